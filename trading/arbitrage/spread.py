"""Statistical pair: ln A against beta times ln B, estimated on the past, traded back to its mean.

Engle and Granger's two steps (Econometrica 55, 1987): regress, then ask the residual whether it reverts (augmented
Dickey-Fuller). The hedge is estimated anew at fixed calendar times on the candles before that time only, and holds
until the next: no z-score knows its own candle's future, and none depends on where the history begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import pandas as pd

from observability.errors import TradingError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PairPolicy:
    """When a pair is traded.

    Attributes:
        window: candles of an estimate; refit: candles from one estimate to the next, counted from 1970.
        enter, leave, stop: absolute z-scores that open, close and give up.
        max_p: largest p-value of the residual's unit root; max_half_life: slowest reversion, in candles.
        min_beta, max_beta: hedges outside say that the pair is none.
    """

    window: int = 480
    refit: int = 96
    enter: float = 2.0
    leave: float = 0.5
    stop: float = 4.0
    max_p: float = 0.05
    max_half_life: float = 96.0
    min_beta: float = 0.2
    max_beta: float = 5.0


@dataclass(frozen=True, slots=True)
class Hedge:
    """ln A = alpha + beta ln B + residual: its standard deviation, its p-value of a unit root, its half-life."""

    alpha: float
    beta: float
    sigma: float
    p_value: float
    half_life: float

    def tradable(self, policy: PairPolicy) -> bool:
        """Whether the past shows a pair; False on any number that is not finite."""
        return (
            self.sigma > 0
            and self.p_value <= policy.max_p
            and self.half_life <= policy.max_half_life
            and policy.min_beta <= self.beta <= policy.max_beta
        )


class Spread(IntEnum):
    """Which way the pair is held: LONG buys A and sells B."""

    SHORT = -1
    FLAT = 0
    LONG = 1


def estimate(log_a: Floats, log_b: Floats) -> Hedge:
    """The hedge of two series of log-prices, oldest first."""
    from statsmodels.tsa.stattools import adfuller

    design = np.column_stack([np.ones_like(log_b), log_b])
    (alpha, beta), *_ = np.linalg.lstsq(design, log_a, rcond=None)
    residual = log_a - alpha - beta * log_b
    sigma = float(residual.std(ddof=2))
    if not sigma > 1e-12:
        return Hedge(float(alpha), float(beta), 0.0, 1.0, math.inf)
    p_value = float(adfuller(residual, maxlag=1, regression="n", autolag=None, result_object=False)[1])
    return Hedge(float(alpha), float(beta), sigma, p_value, half_life(residual))


def half_life(residual: Floats) -> float:
    """Candles in which half of a deviation is gone, of the first-order autoregression; infinite when none reverts."""
    before, change = residual[:-1], np.diff(residual)
    slope = float(before @ change / (before @ before))
    return math.log(2.0) / -slope if slope < 0 else math.inf


def next_spread(held: Spread, z: float, tradable: bool, policy: PairPolicy) -> Spread:
    """What to hold after this candle: in by `enter`, out by `leave`, given up by `stop`; sides change through flat.

    Args:
        held: what is held now.
        z: the spread's z-score; one that is not finite closes.
        tradable: whether the estimate behind it may be traded.
    """
    if not math.isfinite(z) or abs(z) >= policy.stop:
        return Spread.FLAT
    if held is not Spread.FLAT:
        done = z > -policy.leave if held is Spread.LONG else z < policy.leave
        return Spread.FLAT if done else held
    if not tradable or abs(z) < policy.enter:
        return Spread.FLAT
    return Spread.LONG if z < 0 else Spread.SHORT


def pair_signals(times_ms: Floats, a: Floats, b: Floats, step_ms: int, policy: PairPolicy) -> pd.DataFrame:
    """Hedge, z-score and what to do, candle by candle.

    Args:
        times_ms: open times, increasing; a, b: closes of both; NaN where one is missing.
        step_ms: length of a candle.
        policy: thresholds.

    Returns:
        Columns beta, z, tradable, long_a, short_a, exit_long, exit_short; rows as given.

    Raises:
        TradingError: the series differ in length.
    """
    if not len(times_ms) == len(a) == len(b):
        raise TradingError("the two legs have different candles", todo="align them on time first")
    with np.errstate(invalid="ignore", divide="ignore"):
        log_a, log_b = np.log(a), np.log(b)
    beta, z, tradable = np.full(len(a), np.nan), np.full(len(a), np.nan), np.zeros(len(a), dtype=bool)
    for first, last in _blocks(times_ms, step_ms, policy):
        past = slice(first - policy.window, first)
        if not (np.isfinite(log_a[past]).all() and np.isfinite(log_b[past]).all()):
            continue
        hedge = estimate(log_a[past], log_b[past])
        if hedge.sigma > 0:
            beta[first:last] = hedge.beta
            z[first:last] = (log_a[first:last] - hedge.alpha - hedge.beta * log_b[first:last]) / hedge.sigma
            tradable[first:last] = hedge.tradable(policy)
    inside = np.abs(z) < policy.stop
    return pd.DataFrame(
        {
            "beta": beta,
            "z": z,
            "tradable": tradable,
            "long_a": tradable & inside & (z <= -policy.enter),
            "short_a": tradable & inside & (z >= policy.enter),
            "exit_long": ~inside | (z > -policy.leave),
            "exit_short": ~inside | (z < policy.leave),
        }
    )


def _blocks(times_ms: Floats, step_ms: int, policy: PairPolicy) -> Iterator[tuple[int, int]]:
    """Rows [first, last) that share an estimate; only such as have a whole window before them."""
    block = (np.asarray(times_ms, dtype=np.int64) // step_ms) // policy.refit
    starts = np.flatnonzero(np.diff(block, prepend=block[:1] - 1))
    ends = np.append(starts[1:], len(block))
    for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
        if first >= policy.window:
            yield first, last
