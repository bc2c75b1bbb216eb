from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtst.inference import Windows
from mtst.model import MTSTConfig
from mtst.panel import VOLATILITY_FLOOR, Panel, Scaler, Split, load_panel, make_panel, recent_volatility, split_fold
from observability.errors import DataError, SpecError
from pipelines.folds import walk_forward
from pipelines.frames import Enrichment, training_frame
from pipelines.spec import default_spec


def frame(n: int, *, drop: tuple[int, ...] = (), seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal(n)))
    table = pl.DataFrame(
        {
            "timestamp": pl.Series(
                [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in range(n)],
                dtype=pl.Datetime("ms", "UTC"),
            ),
            "close": close,
            "a": rng.standard_normal(n),
            "b": rng.standard_normal(n),
            "fwd_2": [*np.log(close[2:] / close[:-2]), None, None],
        }
    )
    return table.with_row_index("i").filter(~pl.col("i").is_in(drop)).drop("i")


def test_volatility_is_the_weighted_root_mean_square_and_forgets() -> None:
    close = 100 * np.exp(np.cumsum(0.01 * np.random.default_rng(0).standard_normal(200)))
    volatility = recent_volatility(close, 20, halflife=5)
    returns = np.diff(np.log(close))
    for t in (20, 57, 199):
        weights = 0.5 ** (np.arange(20) / 5)
        squares = returns[t - 20 : t][::-1] ** 2
        assert volatility[t] == pytest.approx(np.sqrt((weights * squares).sum() / weights.sum()))
    assert np.isnan(volatility[:20]).all()
    np.testing.assert_allclose(recent_volatility(close[150 - 20 :], 20, 5)[20:], volatility[150:], rtol=1e-12)


def test_volatility_sees_no_future_and_survives_constants_and_holes() -> None:
    close = 100 * np.exp(np.cumsum(0.01 * np.random.default_rng(1).standard_normal(100)))
    changed = close.copy()
    changed[60:] *= 5
    np.testing.assert_array_equal(recent_volatility(close, 10)[:60], recent_volatility(changed, 10)[:60])
    assert (recent_volatility(np.full(50, 3.0), 10)[10:] == VOLATILITY_FLOOR).all()
    changed[30] = np.nan
    assert np.isnan(recent_volatility(changed, 10)[30:41]).all()
    assert np.isfinite(recent_volatility(changed, 10)[41:]).all()
    assert np.isnan(recent_volatility(close[:5], 10)).all()


def test_windows_stop_at_gaps_holes_and_pair_borders() -> None:
    spoiled = frame(60, seed=1).with_columns(a=pl.when(pl.arange(60) == 30).then(None).otherwise(pl.col("a")))
    panel = make_panel({"A/B": frame(60, drop=(40,)), "C/D": spoiled}, ("a", "b"), (2,), "1h", 8)
    rows = set(panel.rows(8).tolist())
    expected = set()
    for pair, start in ((0, 0), (1, 59)):
        n = 59 if pair == 0 else 60
        for end in range(n):
            window = np.arange(start + end - 7, start + end + 1)
            if end < 8 or np.isnan(panel.features[window]).any() or np.isnan(panel.labels[start + end]).any():
                continue  # the 8 returns behind `scale` need 9 closes
            if np.ptp(panel.timestamps[window]) == 7 * 3_600_000:
                expected.add(start + end)
    assert rows == expected
    assert len(panel.rows(8, labelled=False)) == len(rows) + 4


def test_a_window_is_exactly_the_rows_up_to_its_end() -> None:
    panel = make_panel({"A/B": frame(50), "C/D": frame(50, seed=2)}, ("a", "b"), (2,), "1h", 8)
    scaler = Scaler(panel.columns, (0.0, 0.0), (1.0, 1.0))
    rows = panel.rows(8)
    windows = Windows(panel, scaler, MTSTConfig(lookback=8, n_channels=2, patches=(4,))).inputs(rows).numpy()
    for window, row in zip(windows, rows, strict=True):
        np.testing.assert_allclose(window, panel.features[row - 7 : row + 1], rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(0, 5), st.integers(0, 50))
def test_no_label_of_an_earlier_part_reaches_into_a_later_one(n_folds: int, embargo: int, seed: int) -> None:
    panel = make_panel({"A/B": frame(400, seed=seed), "C/D": frame(380, seed=seed + 1)}, ("a",), (2,), "1h", 8)
    for fold in walk_forward(panel.timestamps, n_folds, 2, embargo):
        split = split_fold(panel, fold, 8)
        t, reach = panel.timestamps, 2 * panel.timeframe_ms
        assert t[split.train].max() + reach < t[split.valid].min()
        assert t[split.valid].max() + reach < t[split.test].min()
        assert t[split.test].max() + reach < t.max()  # the sealed block is not touched


def test_an_empty_part_is_an_error() -> None:
    panel = make_panel({"A/B": frame(60)}, ("a",), (2,), "1h", 8)
    fold = replace(walk_forward(panel.timestamps, 1, 2, 0)[0], train_end_ms=int(panel.timestamps[3]))
    with pytest.raises(DataError, match="no complete training window"):
        split_fold(panel, fold, 8)


def test_scaler_centres_clips_and_survives_json() -> None:
    rng = np.random.default_rng(0)
    features = np.stack([5 + 2 * rng.standard_normal(5000), np.full(5000, 3.0), rng.random(5000) < 0.01], 1)
    features[:10, 0] = 1e6  # outliers must not stretch the width
    scaler = Scaler.fit(features, ("a", "b", "c"))
    z = scaler.transform(features)
    assert abs(np.median(z[:, 0])) < 1e-3
    assert np.std(z[10:, 0]) == pytest.approx(1, abs=0.05)
    assert (z[:, 1] == 0).all()
    assert z.max() <= 10
    assert z.dtype == np.float32
    assert Scaler.from_dict(json.loads(json.dumps(scaler.to_dict()))) == scaler
    holes = scaler.transform(np.array([[np.nan, np.inf, -np.inf]]))
    assert holes.tolist() == [[0.0, 10.0, -10.0]]


def test_bad_scalers_are_refused() -> None:
    with pytest.raises(DataError, match="fit a scaler"):
        Scaler.fit(np.empty((0, 2)), ("a", "b"))
    for data in ({}, {"columns": ["a"], "centre": [0], "width": [0]}, {"columns": ["a"], "centre": [], "width": [1]}):
        with pytest.raises(DataError, match="scaler"):
            Scaler.from_dict(data)


def test_files_of_a_specification_load_and_missing_ones_are_named(
    tmp_path: Path, make_market: Callable[..., Panel]
) -> None:
    assert make_market(rows=300).features.shape == (900, 16)
    spec = default_spec(["A/B", "C/D"], "1h", lookback=8, horizons=(2,))
    rng = np.random.default_rng(0)
    for pair in ("A_B", "C_D"):
        candles = frame(200).select(
            "timestamp", open="close", high=pl.col("close") * 1.01, low=pl.col("close") * 0.99, close="close",
            volume=pl.Series(rng.random(200)),
        )  # fmt: skip
        (tmp_path / spec.hash).mkdir(exist_ok=True)
        (tmp_path / spec.hash / pair).mkdir(parents=True)
        whole = training_frame(candles, spec, Enrichment())
        for number, part in enumerate((whole[:7], whole[7:])):
            part.write_parquet(tmp_path / spec.hash / pair / f"{number}.parquet")
    panel = load_panel(tmp_path, spec)
    assert (panel.pairs, panel.columns, len(panel)) == (("A/B", "C/D"), spec.columns, 400)
    np.testing.assert_array_equal(load_panel(tmp_path / spec.hash, spec).features, panel.features)
    shutil.rmtree(tmp_path / spec.hash / "C_D")
    with pytest.raises(SpecError, match="no features of C/D"):
        load_panel(tmp_path, spec)
    with pytest.raises(SpecError, match="lack"):
        make_panel({"A/B": frame(10)}, ("a", "nope"), (2,), "1h", 4)


def test_nothing_after_the_test_block_can_change_a_split(noise: Panel) -> None:
    fold = walk_forward(noise.timestamps, 2, 4, 2)[0]
    later = noise.timestamps >= fold.test_end_ms + 5 * noise.timeframe_ms
    spoiled = replace(noise, features=np.where(later[:, None], np.nan, noise.features).astype(np.float32))
    whole, cut = split_fold(noise, fold, 32), split_fold(spoiled, fold, 32)
    assert all(np.array_equal(getattr(whole, part), getattr(cut, part)) for part in ("train", "valid", "test"))
    assert isinstance(cut, Split)
