"""How good were forecasts: proper scores of the distribution, calibration, and direction. Pure numpy.

Shapes: `values` [n, H, Q] quantiles ascending in Q, `target` [n, H] what came, `levels` [Q].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.stats import spearmanr

from mtst.panel import Array

CENTRAL = (0.1, 0.9)  # the interval whose coverage we promise: the central 80 %
WILSON_Z = 1.959964  # 95 % two-sided
TINY = 1e-9  # no forecast is surer than this; a log-return


@dataclass(frozen=True, slots=True)
class HorizonScores:
    """One model's scores at one horizon; `pinball` in units of `unit`, `crps` in log-return.

    `direction` is the share of moves whose sign was called, with a 95 % interval over non-overlapping moves;
    `ic`, `rank_ic` correlate the expected with the actual return; `coverage` is of the central 80 % interval.
    """

    horizon: int
    n: int
    pinball: float
    crps: float
    coverage: float
    direction: float
    direction_low: float
    direction_high: float
    ic: float
    rank_ic: float
    calibration: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Scores:
    """One model's scores: `pinball` is the mean over horizons."""

    model: str
    pinball: float
    horizons: tuple[HorizonScores, ...]


def score(
    model: str, values: Array, target: Array, unit: Array, *, levels: Sequence[float], horizons: Sequence[int]
) -> Scores:
    """All scores of one model's forecasts. `unit` [n, H] makes pairs and horizons comparable (see `evaluation`)."""
    losses = pinball_loss(values, target, levels) / unit
    expected, up = expected_return(values, levels), probability_up(values, levels)
    continuous, observed = crps(values, target, levels), calibration(values, target, levels)
    inside = coverage(values, target, levels)
    rows = []
    for i, h in enumerate(horizons):
        called, low, high = direction_accuracy(up[:, i], target[:, i], overlap=h)
        ic, rank_ic = information_coefficients(expected[:, i], target[:, i])
        rows.append(
            HorizonScores(
                h,
                len(target),
                float(losses[:, i].mean()),
                float(continuous[:, i].mean()),
                float(inside[i]),
                called,
                low,
                high,
                ic,
                rank_ic,
                tuple(observed[i].tolist()),
            )
        )
    return Scores(model, float(losses.mean()), tuple(rows))


def pinball_loss(values: Array, target: Array, levels: Sequence[float]) -> Array:
    """Quantile loss, mean over levels: [n, H]. Proper for the quantiles forecast (Koenker and Bassett 1978)."""
    q = np.asarray(levels)
    error = target[:, :, None].astype(np.float64) - values
    loss: Array = np.maximum(q * error, (q - 1.0) * error).mean(-1)
    return loss


def crps(values: Array, target: Array, levels: Sequence[float]) -> Array:
    """Continuous ranked probability score, 2 * integral of the pinball loss over levels (Laio and Tamea 2007): [n, H].

    Every level stands for the levels nearer to it than to its neighbours.
    """
    q = np.asarray(levels)
    edges = np.concatenate([[0.0], (q[1:] + q[:-1]) / 2, [1.0]])
    error = target[:, :, None].astype(np.float64) - values
    total: Array = 2.0 * (np.maximum(q * error, (q - 1.0) * error) * np.diff(edges)).sum(-1)
    return total


def calibration(values: Array, target: Array, levels: Sequence[float]) -> Array:
    """Share of targets at or below each quantile, [H, Q]; equals the levels for a calibrated forecast."""
    share: Array = (target[:, :, None] <= values).mean(0)
    return share


def coverage(values: Array, target: Array, levels: Sequence[float], central: tuple[float, float] = CENTRAL) -> Array:
    """Share of targets inside the central interval, [H]."""
    low, high = (_at_level(values, levels, level) for level in central)
    share: Array = ((target >= low) & (target <= high)).mean(0)
    return share


def expected_return(values: Array, levels: Sequence[float]) -> Array:
    """Mean of the piecewise-linear quantile function, flat in the tails: [n, H]. Same rule as Forecast."""
    q = np.asarray(levels)
    inner = ((values[..., 1:] + values[..., :-1]) / 2 * np.diff(q)).sum(-1)
    mean: Array = inner + q[0] * values[..., 0] + (1 - q[-1]) * values[..., -1]
    return mean


def central_sigma(values: Array, levels: Sequence[float], central: tuple[float, float] = CENTRAL) -> Array:
    """Standard deviation of a normal law with the same central interval, [n, H]; the rule of `Forecast.sigma`."""
    low, high = (_at_level(values.astype(np.float64), levels, level) for level in central)
    normal = NormalDist()
    sigma: Array = np.maximum((high - low) / (normal.inv_cdf(central[1]) - normal.inv_cdf(central[0])), TINY)
    return sigma


def probability_up(values: Array, levels: Sequence[float]) -> Array:
    """P(r > 0) by linear interpolation between quantiles, kept inside the outermost levels: [n, H]."""
    q = np.asarray(levels, dtype=np.float64)
    v = values.astype(np.float64)
    width = np.diff(v)
    share = np.clip((0.0 - v[..., :-1]) / np.where(width > 0, width, 1.0), 0.0, 1.0)
    share = np.where(width > 0, share, (v[..., :-1] < 0).astype(np.float64))
    tie = (v == 0).sum(-1) > 1  # several quantiles at exactly 0: the middle of their levels, as in Forecast
    below = q[0] + (share * np.diff(q)).sum(-1)
    if tie.any():
        zero = v == 0
        first, last = zero.argmax(-1), v.shape[-1] - 1 - zero[..., ::-1].argmax(-1)
        below = np.where(tie, (q[first] + q[last]) / 2, below)
    up: Array = 1.0 - below
    return up


def direction_accuracy(p_up: Array, target: Array, overlap: int = 1) -> tuple[float, float, float]:
    """Share of moves called right, and Wilson's 95 % interval on n / overlap independent moves.

    Unmoved prices do not count. Without a single move the answer is (0.5, 0, 1): nothing is known.
    """
    moved = target != 0
    n = int(moved.sum())
    if n == 0:
        return 0.5, 0.0, 1.0
    p = float(((p_up[moved] > 0.5) == (target[moved] > 0)).mean())
    m = max(n / overlap, 1.0)
    centre = (p + WILSON_Z**2 / (2 * m)) / (1 + WILSON_Z**2 / m)
    half = WILSON_Z / (1 + WILSON_Z**2 / m) * np.sqrt(p * (1 - p) / m + WILSON_Z**2 / (4 * m * m))
    return p, float(centre - half), float(centre + half)


def information_coefficients(expected: Array, target: Array) -> tuple[float, float]:
    """Pearson and Spearman correlation of expected and actual return; 0 where either is constant."""
    if len(target) < 3 or np.ptp(expected) == 0 or np.ptp(target) == 0:
        return 0.0, 0.0
    ic = np.corrcoef(expected.astype(np.float64), target.astype(np.float64))[0, 1]
    return float(ic), float(spearmanr(expected, target).statistic)


def _at_level(values: Array, levels: Sequence[float], level: float) -> Array:
    """Quantile at `level`, linear between levels, the outermost one beyond them: [n, H]."""
    q = np.asarray(levels)
    right = int(np.clip(np.searchsorted(q, level), 1, len(q) - 1))
    share = float(np.clip((level - q[right - 1]) / (q[right] - q[right - 1]), 0.0, 1.0))
    line: Array = values[..., right - 1] * (1 - share) + values[..., right] * share
    return line
