"""Indicators as TA-Lib defines them, equal to its values to 1e-9 once its own start is forgotten.

TA-Lib smooths by recursion, so its values depend on where the history starts, by ever less: after `memory(...)` rows by
less than 1e-13 of the older values. Here the recursion is a window of that length with geometric weights, which is the
declared warm-up. Prices are left out: what TA-Lib gives in price units comes as a share of the close.
"""

from __future__ import annotations

import numpy as np

from pipelines.features.bars import Bars
from pipelines.features.registry import feature
from pipelines.features.windows import Array, change, lag, memory


def _wilder(n: int) -> float:
    return 1 - 1 / n


def _span(n: int) -> float:
    return 1 - 2 / (n + 1)


@feature(warmup=lambda n: memory(_wilder(n)))
def ta_rsi(bars: Bars, n: int) -> Array:
    """RSI(n): Wilder's mean of rises as a percentage of that of all moves; 0 where nothing moves."""
    steps = bars.made("steps", lambda: change(bars.column("close"), 1))
    rises = bars.smooth(bars.made("rises", lambda: np.maximum(steps, 0.0)), _wilder(n))
    moves = bars.smooth(bars.made("sizes of steps", lambda: np.abs(steps)), _wilder(n))
    return _percent(rises, moves)


@feature(warmup=lambda fast, slow: max(memory(_span(fast)), memory(_span(slow))) - 1)
def ta_macd(bars: Bars, fast: int, slow: int) -> Array:
    """MACD line: difference of two exponential means of the close, as a share of the close."""
    return _macd(bars, fast, slow) / bars.column("close")


@feature(warmup=lambda fast, slow, signal: max(memory(_span(fast)), memory(_span(slow))) + memory(_span(signal)) - 2)
def ta_macd_signal(bars: Bars, fast: int, slow: int, signal: int) -> Array:
    """MACD's signal line: exponential mean of the line, as a share of the close."""
    return bars.smooth(_macd(bars, fast, slow), _span(signal)) / bars.column("close")


@feature(warmup=lambda n: memory(_wilder(n)))
def ta_natr(bars: Bars, n: int) -> Array:
    """NATR(n), which is ATR(n) as a percentage of the close."""
    return 100.0 * bars.smooth(_true_range(bars), _wilder(n)) / bars.column("close")


@feature(warmup=lambda n: n - 1)
def ta_bbands(bars: Bars, n: int) -> Array:
    """Position of the close in BBANDS(n, 2, 2): (close - middle) / (upper - middle); 0 where the price is constant."""
    close = bars.column("close")
    mean, deviation = bars.mean(close, n), bars.deviation(close, n)
    still = deviation <= 1e-12 * mean
    return np.where(still, 0.0, (close - mean) / np.where(still, 1.0, 2 * deviation))


@feature(warmup=lambda n: memory(_wilder(n)))
def ta_plus_di(bars: Bars, n: int) -> Array:
    """PLUS_DI(n): Wilder's mean of upward directional moves as a percentage of the true range."""
    return _percent(bars.smooth(_directional(bars)[0], _wilder(n)), bars.smooth(_true_range(bars), _wilder(n)))


@feature(warmup=lambda n: memory(_wilder(n)))
def ta_minus_di(bars: Bars, n: int) -> Array:
    """MINUS_DI(n): Wilder's mean of downward directional moves as a percentage of the true range."""
    return _percent(bars.smooth(_directional(bars)[1], _wilder(n)), bars.smooth(_true_range(bars), _wilder(n)))


@feature(warmup=lambda n: 2 * memory(_wilder(n)) - 1)
def ta_adx(bars: Bars, n: int) -> Array:
    """ADX(n): Wilder's mean of |+DI - -DI| as a percentage of their sum; where neither moves it counts as 0."""
    # The true range in both indicators cancels out.
    up, down = (bars.smooth(moves, _wilder(n)) for moves in _directional(bars))
    return bars.smooth(_percent(np.abs(up - down), up + down), _wilder(n))


def _macd(bars: Bars, fast: int, slow: int) -> Array:
    close = bars.column("close")
    return bars.made(("macd", fast, slow), lambda: bars.smooth(close, _span(fast)) - bars.smooth(close, _span(slow)))


def _true_range(bars: Bars) -> Array:
    def make() -> Array:
        before = lag(bars.column("close"), 1)
        return np.maximum(bars.column("high"), before) - np.minimum(bars.column("low"), before)

    return bars.made("true range in prices", make)


def _directional(bars: Bars) -> tuple[Array, Array]:
    """Upward and downward directional moves: the larger of the two, if positive, and 0 for the other."""
    rise = bars.made("rise of high", lambda: change(bars.column("high"), 1))
    fall = bars.made("fall of low", lambda: -change(bars.column("low"), 1))
    up = bars.made("up moves", lambda: np.where((rise > fall) & (rise > 0), rise, rise * 0.0))
    down = bars.made("down moves", lambda: np.where((fall > rise) & (fall > 0), fall, fall * 0.0))
    return up, down


def _percent(part: Array, whole: Array) -> Array:
    out = 100.0 * part / np.where(whole == 0, 1.0, whole)
    out[whole == 0] = 0.0
    return out
