"""The whole chain from candles to the decision, on markets whose truth is known, and on real candles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.figures import Figures
from benchmarks.markets import panel_of, real_candles, shuffled, simulated_candles, with_shuffled_labels
from benchmarks.promotion import evaluate, run
from mtst.adapters.walkforward import JudgeConfig
from mtst.baselines import BaselineConfig
from mtst.evaluation import EvaluationOptions
from observability.errors import DataError
from observability.progress import NullProgress
from pipelines.candles import validate_candles


def few(folds: int = 1) -> JudgeConfig:
    """One baseline and every fourth window, for haste."""
    return JudgeConfig(folds, 16, options=EvaluationOptions(BaselineConfig(names=("ewma",)), test_stride=4))


def row(figures: Figures, name: str) -> float:
    return next(each.value for each in figures.figures if each.name == name)


@pytest.mark.slow
def test_a_planted_edge_is_promoted(tmp_path: Path) -> None:
    kept = tmp_path / "rows.jsonl"
    found = run(NullProgress(), seeds=2, kinds=("edge",), rows=kept)
    assert row(found, "edge: promoted") == 1.0
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [(each["kind"], each["seed"]) for each in lines] == [("edge", 1), ("edge", 2)]
    again = run(NullProgress(), seeds=2, kinds=("edge",), rows=kept)  # nothing is judged twice
    assert json.loads(json.dumps(again.facts)) == json.loads(json.dumps(found.facts))


@pytest.mark.slow
def test_noise_is_not_promoted_and_the_gate_says_that_it_has_no_direction(tmp_path: Path) -> None:
    found = run(NullProgress(), seeds=2, kinds=("noise",), rows=tmp_path / "rows.jsonl")
    assert row(found, "noise: promoted") == 0.0
    assert all("correlate" in " ".join(each["failed"]) for each in found.facts["runs"])


@pytest.mark.slow
def test_shuffled_labels_leave_nothing_to_find() -> None:
    panel, spec = panel_of(simulated_candles(3, 0.1))
    found = evaluate(with_shuffled_labels(panel, 3), spec, 3, few())
    longest = found.skill[-1].ic
    assert longest.low < 0 < longest.high


@pytest.mark.slow
@pytest.mark.realdata
def test_volatility_of_real_candles_is_forecast_better_than_by_ewma(shared_data: Path) -> None:
    panel, spec = panel_of(real_candles(shared_data / "market" / "binance", "1h"), "1h")
    against = evaluate(panel, spec, 0, few(3)).volatility["ewma"]
    assert against.improvement > 0
    assert max(against.p_value, against.bootstrap_p) < 0.05


def test_shuffling_moves_blocks_of_time_and_keeps_the_candles_whole() -> None:
    before = simulated_candles(1, 0.1, days=10)
    after = shuffled(before, 4)
    for pair, table in after.items():
        assert validate_candles(table, "15m", pair).height == table.height
        moves = [np.diff(np.log(each["close"].to_numpy())) for each in (before[pair], table)]
        assert 0 < len(moves[0]) - len(moves[1]) < 17  # the rest that fills no block, and the first candle
        np.testing.assert_allclose(*(np.quantile(each, (0.05, 0.5, 0.95)) for each in moves), atol=2e-4)
    closes = np.stack([table["close"].to_numpy() for table in after.values()])
    assert np.corrcoef(np.diff(np.log(closes)))[0, 1] > 0.2  # pairs still move together


def test_an_unknown_kind_of_market_is_refused() -> None:
    with pytest.raises(DataError, match="unknown kinds"):
        run(NullProgress(), kinds=("edges",))
