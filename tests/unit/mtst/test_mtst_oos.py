"""The table of out-of-sample forecasts, and that no row may be of a time its model had seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mtst.fold_scores import OutOfSample
from mtst.oos import read_forecasts, to_table
from observability.errors import ForecastError

NAMES = {"timeframe": "15m", "model_name": "m", "model_version": "1", "spec_hash": "s"}


def block(start: int, trained_until: int) -> OutOfSample:
    times = np.repeat(start + 900_000 * np.arange(3), 2)
    pair = np.tile([0, 1], 3).astype(np.int16)
    values = np.sort(np.random.default_rng(start).normal(0, 0.01, (6, 2, 3)), -1)
    empty = np.zeros((6, 2))
    levels = (0.1, 0.5, 0.9)
    return OutOfSample(("A/USDT", "B/USDT"), (1, 4), levels, times, pair, values, empty, empty[:, 0], trained_until)


def test_blocks_become_one_table_and_come_back_as_forecasts(tmp_path: Path) -> None:
    later, earlier = block(90_000_000, 80_000_000), block(9_000_000, 8_000_000)
    table = to_table([later, earlier])
    assert table["timestamp"].is_sorted()
    assert table["trained_until"].dt.epoch("ms").unique().sort().to_list() == [8_000_000, 80_000_000]
    table.write_parquet(tmp_path / "forecasts.parquet")
    found = list(read_forecasts(tmp_path / "forecasts.parquet", **NAMES))
    assert [(each.as_of_ms, each.pair) for each in found[:2]] == [(9_000_000, "A/USDT"), (9_000_000, "B/USDT")]
    np.testing.assert_allclose(found[0].values, earlier.values[0])


def test_a_forecast_of_a_time_its_model_had_seen_is_refused(tmp_path: Path) -> None:
    to_table([block(9_000_000, 9_900_000)]).write_parquet(tmp_path / "forecasts.parquet")
    with pytest.raises(ForecastError, match="2 forecasts are of times their model had seen"):
        list(read_forecasts(tmp_path / "forecasts.parquet", **NAMES))
    pl.DataFrame({"timestamp": [1]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(ForecastError, match="not a table"):
        list(read_forecasts(tmp_path / "other.parquet", **NAMES))
