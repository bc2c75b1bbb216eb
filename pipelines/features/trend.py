"""Trend and oscillators with a short memory: Cutler's RSI, MACD and ATR in units of the true range, Bollinger."""

from __future__ import annotations

import numpy as np

from pipelines.features.bars import Bars
from pipelines.features.formulas import FLAT, TINY, ratio
from pipelines.features.registry import feature
from pipelines.features.windows import Array, change

_CONSTANT = 1e-12  # deviation of a log price below which only rounding moves


@feature(warmup=lambda n: n)
def rsi(bars: Bars, n: int) -> Array:
    """Relative strength of n log-returns in [-1, 1] (Cutler's form: plain means, hence a short memory)."""
    path = bars.total(bars.moves, n)
    return np.clip(ratio(change(bars.log("close"), n), path, path == 0), -1.0, 1.0)


@feature(warmup=lambda fast, slow: max((fast, slow)))
def atr_ratio(bars: Bars, fast: int, slow: int) -> Array:
    """Log of the mean true range of `fast` candles over that of `slow` candles."""
    return np.log((bars.mean(bars.true_ranges, fast) + TINY) / (bars.mean(bars.true_ranges, slow) + TINY))


@feature(warmup=lambda fast, slow: max(3 * fast - 1, 3 * slow - 1, slow))
def macd_norm(bars: Bars, fast: int, slow: int) -> Array:
    """Difference of two exponential means of ln(close), cut after three spans, in units of the mean true range of
    `slow` candles."""
    close = bars.log("close")
    spread = bars.smooth(close, 1 - 2 / (fast + 1), 3 * fast) - bars.smooth(close, 1 - 2 / (slow + 1), 3 * slow)
    size = bars.mean(bars.true_ranges, slow)
    return ratio(spread, size, size <= FLAT)


@feature(warmup=lambda n: n - 1)
def bollinger(bars: Bars, n: int) -> Array:
    """Position of ln(close) in its band: (x - mean) / (2 std), clipped at +-10; 0 where the price is constant."""
    close = bars.log("close")
    deviation = bars.deviation(close, n, ddof=1)
    return ratio(close - bars.mean(close, n), 2 * deviation, deviation <= _CONSTANT)
