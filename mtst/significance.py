"""Is one forecast better than another, or was it luck: two tests on a series of loss differences, and intervals.

Both tests are one-sided: a small p says that `ours` really loses less than `theirs`. They err differently (the first
trusts a normal limit, the second a resampling), so a promotion asks both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student

from mtst.panel import Array
from observability.errors import DataError


@dataclass(frozen=True, slots=True)
class TestResult:
    """Outcome of one test; `difference` is mean(theirs - ours), positive when ours is better."""

    __test__ = False  # not a test case, whatever pytest thinks of its name

    difference: float
    statistic: float
    p_value: float
    n: int


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def diebold_mariano(ours: Array, theirs: Array, lag: int) -> TestResult:
    """Diebold and Mariano (1995) with Newey-West variance and the small-sample factor of Harvey et al. (1997).

    Args:
        ours, theirs: losses at the same times in time order, [T].
        lag: autocovariances used, Bartlett weights 1 - k / (lag + 1); at least the overlap of the labels.

    Raises:
        DataError: series of different length, fewer than 10 times, or non-finite losses.
    """
    d = _difference(ours, theirs)
    n = len(d)
    mean, centred = float(d.mean()), d - d.mean()
    lag = min(lag, n // 2)
    variance = float(centred @ centred) / n
    for k in range(1, lag + 1):
        variance += 2 * (1 - k / (lag + 1)) * float(centred[k:] @ centred[:-k]) / n
    if variance <= 0 or np.ptp(d) == 0:  # the same loss at every time: certainty either way, or no difference at all
        return TestResult(mean, 0.0, 1.0 if mean <= 0 else 0.0, n)
    h = lag + 1
    small = max((n + 1 - 2 * h + h * (h - 1) / n) / n, 1.0 / n)
    statistic = mean / np.sqrt(variance / n) * np.sqrt(small)
    return TestResult(mean, float(statistic), float(student.sf(statistic, n - 1)), n)


def block_bootstrap(ours: Array, theirs: Array, block: int, draws: int = 2000, seed: int = 0) -> TestResult:
    """Moving-block bootstrap (Kunsch 1989) of the mean difference, centred on no difference.

    p is the share of resampled means at least as large as the one seen, with the usual +1 so that it is never 0.
    The statistic is the mean in standard errors of the resampled means. Raises DataError as `diebold_mariano` does.
    """
    d = _difference(ours, theirs)
    n, mean = len(d), float(d.mean())
    block = max(1, min(block, n // 2))
    blocks = -(-n // block)
    sums = np.concatenate([[0.0], np.cumsum(d - d.mean())])
    means_of_blocks = (sums[block:] - sums[:-block]) / block  # every block that fits, by its first element
    starts = np.random.default_rng(seed).integers(0, len(means_of_blocks), (draws, blocks))
    resampled = (means_of_blocks - means_of_blocks.mean())[starts].mean(1)
    spread = float(resampled.std())
    p = (1 + int((resampled >= mean).sum())) / (draws + 1)
    return TestResult(mean, mean / spread if spread > 0 else 0.0, p, n)


def correlation_interval(
    ours: Array, actual: Array, times: Array, block: int, *, ranks: bool = False, draws: int = 1000, seed: int = 0
) -> Interval:
    """Correlation of forecasts and outcomes, with a 95 % moving-block bootstrap interval over time.

    All windows of a time stay together, as pairs move together. The interval is the resampled correlations'
    percentiles; (0, -1, 1) where there is nothing to correlate.

    Args:
        ours, actual, times: [n], in any order. block: distinct times in a block.
        ranks: Spearman's instead of Pearson's; ranks are taken once, over all windows.
    """
    if len(ours) < 10 or np.ptp(ours) == 0 or np.ptp(actual) == 0:
        return Interval(0.0, -1.0, 1.0)
    x, y = (rankdata(v) if ranks else np.asarray(v, dtype=np.float64) for v in (ours, actual))
    x, y = x - x.mean(), y - y.mean()
    distinct, at = np.unique(times, return_inverse=True)
    sums = np.stack([np.bincount(at, part) for part in (np.ones(len(x)), x, y, x * x, y * y, x * y)], 1)
    block = max(1, min(block, len(distinct) // 2))
    cumulated = np.concatenate([np.zeros((1, 6)), sums.cumsum(0)])
    blocks = cumulated[block:] - cumulated[:-block]
    starts = np.random.default_rng(seed).integers(0, len(blocks), (draws, -(-len(distinct) // block)))
    low, high = np.quantile(_correlations(blocks[starts].sum(1)), (0.025, 0.975))
    return Interval(float(_correlations(sums.sum(0)[None])[0]), float(low), float(high))


def _correlations(sums: Array) -> Array:
    """From the sums of 1, x, y, x^2, y^2, xy in the rows [m, 6]; 0 where one does not vary."""
    n, x, y, xx, yy, xy = sums.T
    spread = np.sqrt(np.maximum(xx - x * x / n, 0.0) * np.maximum(yy - y * y / n, 0.0))
    found: Array = np.where(spread > 0, (xy - x * y / n) / np.where(spread > 0, spread, 1.0), 0.0)
    return found


def hac_lag(n: int, overlap: int) -> int:
    """Lag for n times whose labels overlap by `overlap` candles: twice the overlap, or the usual 4 (n/100)^(2/9)."""
    return max(2 * overlap, int(4 * (max(n, 1) / 100) ** (2 / 9)))


def _difference(ours: Array, theirs: Array) -> Array:
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 10 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError(
            f"losses of shapes {a.shape} and {b.shape} cannot be compared",
            where="significance",
            todo="give two finite series of equal length, at least 10 times long",
        )
    difference: Array = b - a
    return difference
