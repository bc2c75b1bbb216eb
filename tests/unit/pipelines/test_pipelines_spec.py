"""Specifications: what is refused, and what the hash stands for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from observability.errors import SpecError
from pipelines.features import registry as module
from pipelines.spec import DatasetSpec, FeatureRef, default_spec

SPEC = default_spec(["BTC/USDT", "ETH/USDT"], "15m")


def test_defaults():
    assert len(SPEC.columns) == 16
    assert SPEC.columns[0] == "log_return_1"
    assert (SPEC.warmup, SPEC.history, SPEC.labels) == (96, 192, ("fwd_1", "fwd_4", "fwd_16"))
    assert SPEC.sources == frozenset()
    rich = default_spec(["BTC/USDT"], "1h", funding=True, onchain=True)
    assert rich.sources == {"funding", "onchain"}
    assert "funding" in rich.columns
    assert "onchain_change_hash_rate" in rich.columns


def test_json_round_trip_keeps_the_hash():
    for spec in (SPEC, default_spec(["BTC/USDT"], "1h", funding=True, onchain=True)):
        again = DatasetSpec.from_json(spec.to_json())
        assert again == spec
        assert again.hash == spec.hash


def test_every_part_is_in_the_hash():
    others = [
        replace(SPEC, pairs=("BTC/USDT",)),
        replace(SPEC, timeframe="1h"),
        replace(SPEC, features=SPEC.features[1:]),
        replace(SPEC, features=SPEC.features[::-1]),
        replace(SPEC, horizons=(1, 4)),
        replace(SPEC, lookback=97),
    ]
    assert len({SPEC.hash, *(other.hash for other in others)}) == 7


def test_the_hash_is_stable_across_processes_and_releases():
    # A new value here means that every stored data set and model card is of another kind: raise it knowingly.
    assert SPEC.hash == "614ff80ee57439f6"


def test_a_changed_formula_is_another_data_set(monkeypatch):
    text = SPEC.to_json()
    monkeypatch.setitem(module._REGISTRY, "rsi", replace(module.get_feature("rsi"), version=2))
    assert SPEC.to_json() != text
    with pytest.raises(SpecError, match="version 1 there and 2 here"):
        DatasetSpec.from_json(text)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"pairs": ()}, "needs pairs"),
        ({"pairs": ("BTC/USDT", "BTC/USDT")}, "named twice"),
        ({"features": SPEC.features + SPEC.features[:1]}, "named twice"),
        ({"horizons": (4, 1)}, "not increasing"),
        ({"horizons": (0, 1)}, "not increasing"),
        ({"lookback": 0}, "not positive"),
    ],
)
def test_wrong_specs_are_refused(change, text):
    with pytest.raises(SpecError, match=text):
        replace(SPEC, **change)


def test_wrong_features_are_refused():
    with pytest.raises(SpecError, match="unknown feature 'nope'"):
        FeatureRef("nope")
    with pytest.raises(SpecError, match=r"takes \['n'\]"):
        FeatureRef("rsi", {"period": 3})
    with pytest.raises(SpecError, match="below 1"):
        FeatureRef("rsi", {"n": 0})


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1}', json.dumps({"format": 9})])
def test_garbage_is_no_spec(text):
    with pytest.raises(SpecError):
        DatasetSpec.from_json(text)
