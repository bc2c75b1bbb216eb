"""Forecasts for a backtest: only such as a model made that had been trained before their time.

The table is `train evaluate`'s out-of-sample file (`mtst.oos`): each row says until when its model had learned. A row
whose model had seen its candle, or that does not say, makes the whole file unusable: a backtest on it would be a lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mtst.forecast import Forecast
from mtst.oos import read_forecasts
from observability.errors import ForecastError

TRAINED_UNTIL = "trained_until"
TODO = "run `train evaluate`, which writes out-of-sample forecasts only"


@dataclass(frozen=True)
class OutOfSampleForecasts:
    """Forecasts by pair and by the open time (ms) of the last candle that they saw."""

    by_pair: Mapping[str, Mapping[int, Forecast]]
    first_ms: int
    last_ms: int

    @classmethod
    def read(cls, path: Path, timeframe: str) -> OutOfSampleForecasts:
        """The forecasts in a file.

        Raises:
            ForecastError: not such a file, none inside, or a row was made by a model that had seen its candle.
        """
        check_out_of_sample(path)
        by_pair: dict[str, dict[int, Forecast]] = {}
        for forecast in _rows(path, timeframe):
            by_pair.setdefault(forecast.pair, {})[forecast.as_of_ms] = forecast
        times = [at for rows in by_pair.values() for at in rows]
        if not times:
            raise ForecastError("there are no forecasts in it", where=str(path), todo=TODO)
        return cls(by_pair, min(times), max(times))

    def of(self, pair: str) -> Mapping[int, Forecast]:
        """All forecasts of a pair, by the open time of their candle; empty when there are none."""
        return self.by_pair.get(pair, {})


def check_out_of_sample(path: Path) -> None:
    """Let a table pass only when every row was made by a model trained before it.

    Raises:
        ForecastError: it cannot be read, does not say, or a row is in sample; the first such row is named.
    """
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise ForecastError(f"the forecasts cannot be read: {reason}", where=str(path), todo=TODO) from error
    if not {"timestamp", "pair", TRAINED_UNTIL} <= set(table.columns):
        raise ForecastError("the forecasts do not say until when their model learned", where=str(path), todo=TODO)
    times = {name: _ms(table[name]) for name in ("timestamp", TRAINED_UNTIL)}
    # written so that a missing time counts as in sample
    bad = table.filter(~(times[TRAINED_UNTIL] < times["timestamp"]).fill_null(value=False))
    if bad.height:
        row = bad.row(0, named=True)
        raise ForecastError(
            f"{bad.height} of {table.height} forecasts are in sample: {row['pair']} at {row['timestamp']} was made by "
            f"a model that learned until {row[TRAINED_UNTIL]}",
            where=str(path),
            todo=TODO,
        )


def _rows(path: Path, timeframe: str) -> Iterator[Forecast]:
    # whether the model may trade real money is not a backtest's question: its money is simulated
    return read_forecasts(
        path, timeframe=timeframe, model_name="out-of-sample", model_version="folds", spec_hash="", status="champion"
    )


def _ms(column: pl.Series) -> pl.Series:
    return column.dt.epoch("ms") if column.dtype.is_temporal() else column.cast(pl.Int64)
