"""Out-of-sample forecasts as a table: what a backtest may use, because the model was trained before their time.

The contract, `forecasts.parquet` of every evaluation, sorted by time and pair:

    timestamp         Datetime(ms, UTC), open time of the last closed candle that the forecast has seen (`as_of`); an
                      order on it can be filled from the next candle's open on
    pair              text, "BTC/USDT"
    trained_until     Datetime(ms, UTC), when the last label was known that this row's model learned from; before
                      `timestamp` in every row, and `read_forecasts` refuses a table in which it is not
    q_<h>_<level>     Float64, quantile of the log-return over the next h candles, ascending in the level

A fold's model differs from the next one's, so `trained_until` differs by block; the model fitted for use is in no row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from mtst.forecast import Forecast
from observability.errors import ForecastError
from pipelines.candles import TIMESTAMP

if TYPE_CHECKING:
    from mtst.evaluation import OutOfSample


def to_table(parts: Sequence[OutOfSample]) -> pl.DataFrame:
    """One table from the forecasts of several folds, sorted by time and pair."""
    return pl.concat([_table(part) for part in parts]).sort("timestamp", "pair")


def read_forecasts(
    path: Path,
    *,
    timeframe: str,
    model_name: str,
    model_version: str,
    spec_hash: str,
    status: str = "champion",
) -> Iterator[Forecast]:
    """The table's rows as `Forecast`s, in time order.

    Raises:
        ForecastError: the file is not such a table, or a row's model had seen the row's time.
    """
    table = pl.read_parquet(path)
    names = [name.split("_") for name in table.columns if name.startswith("q_")]
    if not names or not {"timestamp", "pair", "trained_until"} <= set(table.columns):
        raise ForecastError("not a table of out-of-sample forecasts", where=str(path), todo="run `train evaluate`")
    seen = table.filter(pl.col("trained_until") > pl.col("timestamp")).height
    if seen:
        raise ForecastError(f"{seen} forecasts are of times their model had seen", where=str(path), todo="judge anew")
    horizons = tuple(sorted({int(h) for _, h, _ in names}))
    levels = tuple(sorted({float(level) for _, _, level in names}))
    values = table.select(f"q_{h}_{level}" for h in horizons for level in levels).to_numpy()
    values = values.reshape(table.height, len(horizons), len(levels))
    times = table["timestamp"].dt.epoch("ms").to_list()
    for pair, time, quantiles in zip(table["pair"].to_list(), times, values.tolist(), strict=True):
        rows = tuple(tuple(row) for row in quantiles)
        yield Forecast(pair, time, timeframe, horizons, levels, rows, model_name, model_version, spec_hash, status)


def _table(part: OutOfSample) -> pl.DataFrame:
    pairs = np.asarray(part.pairs, dtype=object)[part.pair_index]
    columns = {
        f"q_{h}_{level}": part.values[:, i, j].astype(np.float64)
        for i, h in enumerate(part.horizons)
        for j, level in enumerate(part.levels)
    }
    until = np.full(len(pairs), part.trained_until_ms, dtype=np.int64)
    keys = {"timestamp": part.timestamps.astype(np.int64), "pair": pairs.tolist(), "trained_until": until}
    return pl.DataFrame({**keys, **columns}).with_columns(pl.col("timestamp", "trained_until").cast(TIMESTAMP))
