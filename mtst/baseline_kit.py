"""What the baselines share: their settings, the unit they forecast in, and how a mean forecast gets quantiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtst.config import DEFAULT_LEVELS
from mtst.linear import fit_ridge
from mtst.panel import Array, Panel, Split

Z_CLIP = 6.0  # a mean is fitted on clipped targets: one crash must not decide it


@dataclass(frozen=True, slots=True)
class BaselineConfig:
    """Settings of all baselines.

    Attributes:
        names: which to fit; see `baselines.CHEAP` and `baselines.DEAR`.
        lookback: candles of the window that the linear rivals read whole, as the model does.
        max_rows: training rows, evenly spaced, that LightGBM, DLinear and the logistic regression learn from.
    """

    levels: tuple[float, ...] = DEFAULT_LEVELS
    names: tuple[str, ...] = ("ewma", "majority", "ar", "ridge", "revin_ridge", "logistic", "lightgbm")
    n_threads: int = 1
    seed: int = 0
    lookback: int = 96
    max_rows: int = 8_000
    trees: int = 40
    leaves: int = 8
    lightgbm_lr: float = 0.1
    epochs: int = 6


def unit(panel: Panel, rows: Array) -> Array:
    """What all rivals forecast in: the row's recent volatility times the root of the horizon, [n, H]."""
    table: Array = panel.scale[rows, None].astype(np.float64) * np.sqrt(np.asarray(panel.horizons))
    return table


def lagged_returns(panel: Panel, rows: Array, lookback: int) -> Array:
    """The window's one-candle returns in units of recent volatility, newest last, clipped: [n, lookback - 1]."""
    returns = np.diff(np.log(panel.close))  # across pairs too, but no window of one pair reaches there
    windows = np.lib.stride_tricks.sliding_window_view(returns, lookback - 1)[rows - lookback + 1]
    scaled: Array = np.clip(windows / panel.scale[rows, None], -Z_CLIP, Z_CLIP)
    return scaled


def evenly(rows: Array, most: int) -> Array:
    """At most `most` of the rows, evenly spaced."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64)]


def around(mean: Array, residual: Array, units: Array, levels: tuple[float, ...]) -> Array:
    """Quantiles of a forecast mean [n, H] and training residuals [m, H], both in `units` [n, H]: [n, H, Q]."""
    shape = np.quantile(residual, levels, axis=0).T
    quantiles: Array = np.sort((mean[:, :, None] + shape) * units[:, :, None], -1)
    return quantiles


def targets(panel: Panel, rows: Array) -> Array:
    """Labels in `unit`s, [n, H]."""
    return panel.labels[rows].astype(np.float64) / unit(panel, rows)


def linear_mean(panel: Panel, split: Split, designs: tuple[Array, Array, Array], config: BaselineConfig) -> Array:
    """Quantiles [n_test, H, Q] around a linear mean, from the training residuals.

    Args:
        designs: inputs [n, D] of the training, validation and test rows, of about unit size.
    """
    fit, held, test = designs
    y = targets(panel, split.train)
    model = fit_ridge((fit, np.clip(y, -Z_CLIP, Z_CLIP)), (held, targets(panel, split.valid)))
    return around(model.predict(test), y - model.predict(fit), unit(panel, split.test), config.levels)
