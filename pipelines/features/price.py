"""Returns, volatilities and ranges."""

from __future__ import annotations

import math

import numpy as np

from pipelines.features.bars import Bars
from pipelines.features.formulas import TINY, log_volatility
from pipelines.features.registry import feature
from pipelines.features.windows import Array, change, lag


@feature(warmup=lambda n: n)
def log_return(bars: Bars, n: int) -> Array:
    """ln(close[t] / close[t-n])."""
    return bars.returns if n == 1 else change(bars.log("close"), n)


@feature(warmup=lambda n: n)
def log_vol_close(bars: Bars, n: int) -> Array:
    """Log of the realised volatility a candle: root mean square of n one-candle log-returns."""
    return log_volatility(bars.mean(bars.squared_returns, n))


@feature(warmup=lambda n: n - 1)
def log_vol_parkinson(bars: Bars, n: int) -> Array:
    """Log volatility from ranges: mean of ln(high/low)^2 / (4 ln 2) (Parkinson 1980)."""
    squares = bars.made("squared ranges", lambda: bars.ranges * bars.ranges)
    return log_volatility(bars.total(squares, n) * (1 / (4 * math.log(2) * n)))


@feature(warmup=lambda n: n - 1)
def log_vol_garman_klass(bars: Bars, n: int) -> Array:
    """Log volatility from ranges and bodies: ln(h/l)^2 / 2 - (2 ln 2 - 1) ln(c/o)^2 (Garman and Klass 1980)."""
    return log_volatility(bars.mean(bars.made("garman klass", lambda: _garman_klass(bars)), n))


def _garman_klass(bars: Bars) -> Array:
    body = bars.log("close") - bars.log("open")
    out: Array = 0.5 * (bars.ranges * bars.ranges) - (2 * math.log(2) - 1) * (body * body)
    return out


@feature(warmup=lambda n: n)
def log_vol_yang_zhang(bars: Bars, n: int) -> Array:
    """Log volatility free of drift and of opening jumps: variance of the jumps from close to open, a share of that of
    the bodies, and the rest Rogers and Satchell's range measure (Yang and Zhang 2000)."""
    jump = bars.made("jumps", lambda: bars.log("open") - lag(bars.log("close"), 1))
    body = bars.made("bodies", lambda: bars.log("close") - bars.log("open"))
    share = 0.34 / (1.34 + (n + 1) / max(n - 1, 1))
    rogers_satchell = bars.mean(bars.made("rogers satchell", lambda: _rogers_satchell(bars)), n)
    jumps, bodies = bars.deviation(jump, n, ddof=1), bars.deviation(body, n, ddof=1)
    return log_volatility(jumps * jumps + share * (bodies * bodies) + (1 - share) * rogers_satchell)


def _rogers_satchell(bars: Bars) -> Array:
    opened, high, low, close = (bars.log(name) for name in ("open", "high", "low", "close"))
    out: Array = (high - close) * (high - opened) + (low - close) * (low - opened)
    return out


@feature(warmup=lambda n: n - 1)
def range_ratio(bars: Bars, n: int) -> Array:
    """Log of this candle's ln(high/low) over its mean of n candles."""
    return np.log((bars.ranges + TINY) / (bars.mean(bars.ranges, n) + TINY))


@feature(warmup=lambda: 0)
def close_position(bars: Bars) -> Array:
    """Where the candle closed between its low (-1) and its high (1); 0 where they are equal."""
    high, low, close = bars.column("high"), bars.column("low"), bars.column("close")
    width = high - low
    out = (2 * close - high - low) / np.where(width > 0, width, 1.0)
    out[width <= 0] = 0.0
    return out


@feature(warmup=lambda n: n - 1)
def channel_position(bars: Bars, n: int) -> Array:
    """Where the close lies between the lowest low (-1) and the highest high (1) of n candles; 0 where both meet."""
    high, low = bars.highest(bars.column("high"), n), bars.lowest(bars.column("low"), n)
    width = high - low
    out = (2 * bars.column("close") - high - low) / np.where(width > 0, width, 1.0)
    out[width <= 0] = 0.0
    return out
