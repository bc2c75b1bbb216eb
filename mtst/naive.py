"""Baselines that claim to know nothing of direction: whoever cannot beat these has no skill at all.

Each is a function (panel, split, config) -> quantiles of the log-return [n_test, H, Q], sorted. Their distribution's
shape is that of the training returns in units of the volatility forecast, so fat tails and drift are in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.signal import lfilter

from mtst.baseline_kit import BaselineConfig
from mtst.panel import Array, Panel, Split, recent_volatility
from mtst.scoring import pinball_loss

HALFLIVES = (6, 12, 24, 48, 96)  # candles; chosen per horizon on the training rows
POINTS = 1e4  # arch wants returns of about this size: basis points
USUAL = (0.05, 0.93)  # alpha and beta that most assets' daily and hourly returns lie near


def ewma(panel: Panel, split: Split, config: BaselineConfig) -> Array:
    """EWMA volatility (RiskMetrics) with the half-life, by horizon, that lost least on the training rows."""
    volatility = np.stack([_volatility(panel, halflife) for halflife in HALFLIVES])
    volatility = np.where(np.isfinite(volatility), volatility, panel.scale.astype(np.float64))
    out = np.empty((len(split.test), len(panel.horizons), len(config.levels)))
    for i, h in enumerate(panel.horizons):
        y = panel.labels[split.train, i].astype(np.float64)
        fits = []
        for number in range(len(HALFLIVES)):
            scale = volatility[number] * np.sqrt(h)
            shape = np.quantile(y / scale[split.train], config.levels)
            loss = pinball_loss((scale[split.train, None] * shape)[:, None], y[:, None], config.levels).mean()
            fits.append((float(loss), number, shape))
        _, number, shape = min(fits, key=lambda fit: fit[:2])
        out[:, i] = volatility[number, split.test, None] * np.sqrt(h) * shape
    return np.sort(out, -1)


def garch(panel: Panel, split: Split, config: BaselineConfig) -> Array:
    """GARCH(1,1) with Student's t (Bollerslev 1987), one a pair, fitted on the training returns; filtered on."""
    variance = np.full((len(panel), len(panel.horizons)), np.nan)
    known_ms = panel.timestamps[split.train].max()
    for pair in range(len(panel.pairs)):
        own = np.flatnonzero(panel.pair_index == pair)
        returns = np.diff(np.log(panel.close[own]), prepend=np.log(panel.close[own[:1]])) * POINTS
        fitted = returns[1:][panel.timestamps[own][1:] <= known_ms]
        variance[own] = garch_variance(returns, _fit_garch(fitted), panel.horizons)
    sigma = np.sqrt(variance) / POINTS
    shape = np.quantile(panel.labels[split.train].astype(np.float64) / sigma[split.train], config.levels, axis=0).T
    return np.sort(sigma[split.test, :, None] * shape, -1)


def garch_variance(returns: Array, fitted: tuple[float, float, float], horizons: Sequence[int]) -> Array:
    """Expected variance over the next h candles after each return, [n, H], by omega, alpha and beta.

    The sum of the h expected ones: h * v + (next - v) * (1 - p^h) / (1 - p), v the long-run variance and
    p = alpha + beta.
    """
    omega, alpha, beta = fitted
    p = min(alpha + beta, 0.9999)
    long_run = omega / (1 - p)
    # next[t] = omega + alpha * r[t]^2 + beta * next[t-1], started at the long-run variance
    ahead, _ = lfilter([1.0], [1.0, -beta], omega + alpha * returns**2, zi=[beta * long_run])
    sums: Array = np.stack([h * long_run + (ahead - long_run) * (1 - p**h) / (1 - p) for h in horizons], 1)
    return sums


def majority(panel: Panel, split: Split, config: BaselineConfig) -> Array:
    """The past's distribution of each pair, the same at every time; its sign is the majority class of the past."""
    out = np.empty((len(split.test), len(panel.horizons), len(config.levels)))
    for pair in range(len(panel.pairs)):
        past = split.train[panel.pair_index[split.train] == pair]
        past = past if len(past) else split.train
        out[panel.pair_index[split.test] == pair] = np.quantile(
            panel.labels[past].astype(np.float64), config.levels, axis=0
        ).T
    return out


def _fit_garch(returns: Array) -> tuple[float, float, float]:
    """Omega, alpha and beta; where the likelihood has no usable top, usual values around the returns' own variance."""
    from arch import arch_model

    model = arch_model(returns, mean="Zero", vol="GARCH", p=1, q=1, dist="t", rescale=False)
    result = model.fit(disp="off", show_warning=False)
    omega, alpha, beta = (float(result.params[name]) for name in ("omega", "alpha[1]", "beta[1]"))
    if not np.isfinite([omega, alpha, beta]).all() or omega <= 0:
        alpha, beta = USUAL
        omega = float(np.mean(returns**2)) * (1 - alpha - beta)
    return max(omega, 1e-12), alpha, beta


def _volatility(panel: Panel, halflife: int) -> Array:
    """EWMA volatility of every row, pair by pair, with a memory of four half-lives."""
    pieces = [
        recent_volatility(panel.close[panel.pair_index == pair], 4 * halflife, halflife)
        for pair in range(len(panel.pairs))
    ]
    return np.concatenate(pieces)
