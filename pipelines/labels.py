"""Labels: forward log-returns, and the price at which an order is filled. They look ahead and are never features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from observability.errors import SpecError
from pipelines.candles import infer_step_ms, timeframe_ms
from pipelines.features.windows import Doublings, change

NEXT_OPEN = "next_open"


@dataclass(frozen=True)
class Barrier:
    """A triple-barrier label: which of three things happens first within `horizon` candles.

    Prices `up` and `down` volatilities above and below the close, and the horizon's end; a volatility is that of
    `horizon` candles, from the root mean square of the last `window` log-returns, as known at the close.

    Raises:
        SpecError: if a number is out of range.
    """

    horizon: int
    up: float = 1.0
    down: float = 1.0
    window: int = 96

    def __post_init__(self) -> None:
        if self.horizon < 1 or self.window < 2 or not self.up > 0 or not self.down > 0:
            raise SpecError(f"{self} needs a horizon, widths above 0 and a window of 2 or more", where="Barrier")

    @property
    def column(self) -> str:
        """Name of the label, for example `barrier_16_1.5_1`."""
        return f"barrier_{self.horizon}_{self.up:g}_{self.down:g}"


def triple_barrier(df: pl.DataFrame, barrier: Barrier, *, timeframe: str) -> pl.Series:
    """1 where the upper price is reached first, -1 the lower, 0 neither (Lopez de Prado 2018, chapter 3).

    Where one candle reaches both, nobody can know the order, and the worse for a buyer counts: -1. Null without
    `window` returns before, and where the horizon does not lie within the table and free of gaps: a label that only the
    quick ends had time for would favour them.

    Args:
        df: candle table of one pair, sorted by time.
        barrier: the label.
        timeframe: the candles' grid.
    """
    rows, h = df.height, barrier.horizon
    times = df["timestamp"].dt.timestamp("ms").to_numpy()
    known = np.zeros(rows, dtype=bool)
    if rows > h + barrier.window:
        span = (h + barrier.window) * timeframe_ms(timeframe)
        known[barrier.window : rows - h] = times[h + barrier.window :] - times[: rows - h - barrier.window] == span
    high, low, close = (np.log(df[name].to_numpy()) for name in ("high", "low", "close"))
    # The features' sums, so that a piece of the table has the labels of the whole, bit for bit.
    width = np.sqrt(Doublings(change(close, 1) ** 2).total(barrier.window) * (h / barrier.window))
    label, open_ = np.zeros(rows), known & (width > 0)
    for ahead in range(1, min(h, rows - 1) + 1):
        now, then = slice(0, rows - ahead), slice(ahead, rows)
        fell = open_[now] & (low[then] <= close[now] - barrier.down * width[now])
        rose = open_[now] & (high[then] >= close[now] + barrier.up * width[now]) & ~fell
        label[now][fell], label[now][rose] = -1.0, 1.0
        open_[now] &= ~(fell | rose)
    return pl.Series(barrier.column, np.where(known, label, np.nan)).fill_nan(None)


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
