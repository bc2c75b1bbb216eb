"""A pair among all pairs of the data set: the market's own move, beta, rank, and who leads whom.

The market of a candle is the plain mean of the log-returns of those pairs that have both closes; closes of all pairs
lie beside the pair's own candles, joined by their time.
"""

from __future__ import annotations

import numpy as np

from observability.errors import SpecError
from pipelines.features.bars import Bars
from pipelines.features.formulas import ratio
from pipelines.features.registry import feature
from pipelines.features.windows import Array, change, lag

_STILL = 1e-12  # variance as a share of the mean square below which only rounding moves


def close_column(pair: str) -> str:
    """Name of the column that holds another pair's close."""
    return f"close:{pair}"


@feature(warmup=lambda n: n, source="market")
def market_return(bars: Bars, n: int) -> Array:
    """Mean over all pairs of their log-returns over n candles."""
    return _market(bars, n)


@feature(warmup=lambda n: n, source="market")
def market_beta(bars: Bars, n: int) -> Array:
    """Slope of the pair's one-candle returns on the market's over n candles, clipped at +-10; 0 in a still market."""
    return _slope(bars, bars.returns, _market(bars, 1), n)


@feature(warmup=lambda n: n, source="market")
def market_residual(bars: Bars, n: int) -> Array:
    """The pair's log-return over n candles less beta times the market's, beta over the same candles."""
    beta = _slope(bars, bars.returns, _market(bars, 1), n)
    out: Array = change(bars.log("close"), n) - beta * bars.total(_market(bars, 1), n)
    return out


@feature(warmup=lambda n: n, source="market")
def return_rank(bars: Bars, n: int) -> Array:
    """Rank of the pair's log-return over n candles among all pairs, from -1 (lowest) to 1; ties share; 0 if alone."""
    own = change(bars.log("close"), n)
    lower, higher, known = np.zeros_like(own), np.zeros_like(own), np.zeros_like(own)
    for pair in bars.pairs:
        other = change(_log_close(bars, pair), n)
        lower += other < own
        higher += other > own
        known += ~np.isnan(other)
    return np.where(np.isnan(own), np.nan, (lower - higher) / np.maximum(known - 1, 1))


@feature(warmup=lambda leader, n: n, source="market")
def leader_return(bars: Bars, leader: str, n: int) -> Array:
    """Log-return of another pair, such as BTC/USDT, over n candles."""
    return change(_leader(bars, leader), n)


@feature(warmup=lambda leader, n: n + 1, source="market")
def lead_lag(bars: Bars, leader: str, n: int) -> Array:
    """Slope of the pair's one-candle returns on the leader's of the candle before, over n candles, clipped at +-10."""
    return _slope(bars, bars.returns, lag(change(_leader(bars, leader), 1), 1), n)


def _slope(bars: Bars, y: Array, x: Array, n: int) -> Array:
    mean_x, mean_y = bars.mean(x, n), bars.mean(y, n)
    square = bars.mean(x * x, n)
    variance, covariance = square - mean_x * mean_x, bars.mean(x * y, n) - mean_x * mean_y
    return ratio(covariance, variance, variance <= _STILL * square)


def _market(bars: Bars, n: int) -> Array:
    return bars.made(("market", n), lambda: _mean_return(bars, n))


def _mean_return(bars: Bars, n: int) -> Array:
    total, known = np.zeros(len(bars.times)), np.zeros(len(bars.times))
    for pair in bars.pairs:
        move = change(_log_close(bars, pair), n)
        there = ~np.isnan(move)
        total += np.where(there, move, 0.0)
        known += there
    return total / np.where(known > 0, known, np.nan)


def _log_close(bars: Bars, pair: str) -> Array:
    return bars.log(close_column(pair))


def _leader(bars: Bars, leader: str) -> Array:
    if leader not in bars.pairs:
        raise SpecError(f"the leader {leader!r} is none of the data set's pairs", todo=f"use {', '.join(bars.pairs)}")
    return _log_close(bars, leader)
