"""Labels: forward log-returns, and the price at which an order is filled. They look ahead and are never features."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from observability.errors import SpecError
from pipelines.candles import infer_step_ms, timeframe_ms

NEXT_OPEN = "next_open"


def next_open(df: pl.DataFrame, *, timeframe: str) -> pl.Series:
    """The open of the next candle: the first price that an order decided at this close can get. Null before a gap."""
    time = pl.col("timestamp").dt.timestamp("ms")
    follows = time.shift(-1) - time == timeframe_ms(timeframe)
    return df.select(pl.when(follows).then(pl.col("open").shift(-1)).alias(NEXT_OPEN)).to_series()


def forward_returns(df: pl.DataFrame, horizons: Sequence[int], *, timeframe: str = "") -> pl.DataFrame:
    """Columns `fwd_{h}` = ln(close[t+h] / close[t]), as many rows as `df`.

    Null where candle t+h does not exist: at the end of the table, and wherever a gap lies between, since the h-th row
    after a gap is not the h-th candle.

    Args:
        df: `timestamp` and `close`, sorted by time.
        horizons: in candles, each at least 1.
        timeframe: taken from the smallest step if not given.

    Raises:
        SpecError: if a horizon is below 1.
    """
    if any(h < 1 for h in horizons):
        raise SpecError(f"horizons {tuple(horizons)} must be at least 1", where="forward_returns")
    if df.height < 2:
        return df.select(pl.lit(None, pl.Float64).alias(f"fwd_{h}") for h in horizons)[: df.height]
    step = timeframe_ms(timeframe) if timeframe else infer_step_ms(df, "forward_returns")
    time = pl.col("timestamp").dt.timestamp("ms")
    return df.select(
        pl.when(time.shift(-h) - time == h * step)
        .then((pl.col("close").shift(-h) / pl.col("close")).log())
        .alias(f"fwd_{h}")
        for h in horizons
    )
