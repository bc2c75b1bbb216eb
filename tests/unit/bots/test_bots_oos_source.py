"""A backtest believes no forecast whose model had seen its candle."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from observability.errors import ForecastError
from pipelines.candles import TIMESTAMP
from trading.adapters.oos_source import OutOfSampleForecasts

START = datetime(2024, 3, 1, tzinfo=UTC)


def _table(rows: int = 8, trained_until: datetime | None = START - timedelta(hours=1)) -> pl.DataFrame:
    times = [START + timedelta(minutes=15 * row) for row in range(rows)]
    values = {f"q_{h}_{level}": [(level - 0.5) * 0.02 * h] * rows for h in (1, 4) for level in (0.1, 0.5, 0.9)}
    table = pl.DataFrame({"timestamp": times, "pair": ["BTC/USDT"] * rows, **values})
    table = table.with_columns(pl.col("timestamp").cast(TIMESTAMP))
    return (
        table
        if trained_until is None
        else table.with_columns(pl.lit(trained_until).cast(TIMESTAMP).alias("trained_until"))
    )


def _written(folder: Path, table: pl.DataFrame) -> Path:
    path = folder / "forecasts.parquet"
    table.write_parquet(path)
    return path


def test_forecasts_are_found_by_pair_and_candle(tmp_path: Path) -> None:
    found = OutOfSampleForecasts.read(_written(tmp_path, _table()), "15m")
    first = int(START.timestamp() * 1000)
    assert (found.first_ms, found.last_ms) == (first, first + 7 * 900_000)
    assert found.of("BTC/USDT")[first].horizons == (1, 4)
    assert found.of("ETH/USDT") == {}


@pytest.mark.parametrize("late", [timedelta(0), timedelta(minutes=15), timedelta(days=9)])
def test_a_forecast_of_a_candle_that_its_model_had_seen_spoils_the_file(tmp_path: Path, late: timedelta) -> None:
    with pytest.raises(ForecastError, match="in sample: BTC/USDT at 2024-03-01"):
        OutOfSampleForecasts.read(_written(tmp_path, _table(trained_until=START + late)), "15m")


def test_a_file_that_does_not_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForecastError, match="do not say"):
        OutOfSampleForecasts.read(_written(tmp_path, _table(trained_until=None)), "15m")


def test_a_row_without_the_time_counts_as_in_sample(tmp_path: Path) -> None:
    table = _table().with_columns(
        pl.when(pl.int_range(8) == 5).then(None).otherwise(pl.col("trained_until")).alias("trained_until")
    )
    with pytest.raises(ForecastError, match="1 of 8 forecasts are in sample"):
        OutOfSampleForecasts.read(_written(tmp_path, table), "15m")


@pytest.mark.parametrize("kind", ["missing", "garbage", "empty"])
def test_an_unusable_file_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "forecasts.parquet"
    if kind == "garbage":
        path.write_bytes(b"PAR1 not really")
    elif kind == "empty":
        _table().head(0).write_parquet(path)
    with pytest.raises(ForecastError, match="forecasts"):
        OutOfSampleForecasts.read(path, "15m")
