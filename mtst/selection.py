"""What choosing among many does to a result: probability of backtest overfitting, and the deflated Sharpe ratio.

All that `overfitting` needs of a sweep are its trials' losses by block of time, see `mtst.blocks`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

import numpy as np
from scipy.stats import kurtosis, rankdata, skew

from mtst.blocks import BLOCKS
from mtst.panel import Array
from observability.errors import DataError

EULER = 0.5772156649015329


@dataclass(frozen=True, slots=True)
class Overfitting:
    """Of `splits` ways to halve the past, in which share (`probability`) the best trial of one half came out below the
    median of the other; `degradation` is the mean relative rank out of sample of the best in sample, 1 the best."""

    probability: float
    degradation: float
    trials: int
    blocks: int
    splits: int


@dataclass(frozen=True, slots=True)
class DeflatedSharpe:
    """`probability` that the true Sharpe ratio exceeds what the best of `trials` worthless ones would have shown.

    `sharpe` and `benchmark` are per period, not per year.
    """

    probability: float
    sharpe: float
    benchmark: float
    trials: int


def overfitting_of(trials: Iterable[Sequence[float]]) -> Overfitting | None:
    """`overfitting` of those trials that left their blocks; None where fewer than two did."""
    whole = [blocks for blocks in trials if len(blocks) == BLOCKS]
    return overfitting(np.asarray(whole)) if len(whole) > 1 else None


def overfitting(losses: Array) -> Overfitting:
    """Combinatorially symmetric cross-validation (Bailey, Borwein, Lopez de Prado and Zhu 2017), on losses.

    Args:
        losses: mean loss by trial and block, [trials, blocks], lower is better.

    Raises:
        DataError: fewer than 2 trials or 4 blocks, an odd number of blocks, or a missing number.
    """
    trials, blocks = losses.shape if losses.ndim == 2 else (0, 0)
    if trials < 2 or blocks < 4 or blocks % 2 or not np.isfinite(losses).all():
        raise DataError(
            f"losses of shape {losses.shape} do not tell of overfitting",
            where="selection",
            todo="give finite losses of at least 2 trials in an even number of blocks, at least 4",
        )
    halves = [list(half) for half in combinations(range(blocks), blocks // 2)]
    inside = np.stack([losses[:, half].mean(1) for half in halves])  # [splits, trials]
    outside = inside[::-1]  # combinations come in an order whose mirror is the complement
    chosen = inside.argmin(1)
    # Relative rank out of sample, 1 / (trials + 1) the worst; ties share their rank, so equal trials give one half.
    rank = rankdata(-outside, axis=1)[np.arange(len(halves)), chosen] / (trials + 1)
    below = np.where(rank < 0.5, 1.0, np.where(rank == 0.5, 0.5, 0.0))
    return Overfitting(float(below.mean()), float(rank.mean()), trials, blocks, len(halves))


def deflated_sharpe(returns: Array, trials: int, spread: float | None = None) -> DeflatedSharpe:
    """Deflated Sharpe ratio (Bailey and Lopez de Prado 2014) of returns by period, chosen among `trials`.

    Args:
        returns: excess returns by period, [T].
        spread: deviation of the trials' Sharpe ratios by period; without it that of worthless strategies over T
            periods, 1 / sqrt(T - 1).

    Returns:
        probability 0 where returns are too few (below 10) or do not vary: nothing is shown.
    """
    n = len(returns)
    deviation = float(returns.std(ddof=1)) if n > 1 else 0.0
    if n < 10 or deviation == 0.0:
        return DeflatedSharpe(0.0, 0.0, 0.0, trials)
    sharpe = float(returns.mean()) / deviation
    spread = 1.0 / math.sqrt(n - 1) if spread is None else spread
    benchmark = spread * expected_maximum(trials)
    third, fourth = float(skew(returns)), float(kurtosis(returns, fisher=False))
    variance = 1.0 - third * sharpe + (fourth - 1.0) / 4.0 * sharpe**2
    statistic = (sharpe - benchmark) * math.sqrt(n - 1) / math.sqrt(max(variance, 1e-12))
    return DeflatedSharpe(NormalDist().cdf(statistic), sharpe, benchmark, trials)


def expected_maximum(trials: int) -> float:
    """Expected largest of `trials` standard normal draws, by the approximation of the paper; 0 for one trial."""
    if trials < 2:
        return 0.0
    normal = NormalDist()
    return (1 - EULER) * normal.inv_cdf(1 - 1 / trials) + EULER * normal.inv_cdf(1 - 1 / (trials * math.e))
