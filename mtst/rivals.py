"""Baselines that learn: what a simpler, well-known method makes of the same windows.

Each is a function (panel, split, config) -> quantiles of the log-return [n_test, H, Q], sorted. All forecast in units
of recent volatility and take their quantiles from training residuals, so they are calibrated too: a weak rival proves
nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mtst.baseline_kit import BaselineConfig, evenly, lagged_returns, linear_mean, targets, unit
from mtst.panel import Array, Panel, Scaler, Split
from mtst.training import pinball

TREND = 25  # candles of DLinear's moving average
AVERAGED = (4, 16)  # candles over which the trees see each feature's mean


def ar(panel: Panel, split: Split, config: BaselineConfig) -> Array:
    """A direct autoregression: a linear mean in all one-candle returns of the window, shrunk as validation likes."""
    fit, held, test = (lagged_returns(panel, rows, config.lookback) for rows in (split.train, split.valid, split.test))
    return linear_mean(panel, split, (fit, held, test), config)


def ridge(panel: Panel, split: Split, config: BaselineConfig) -> Array:
    """A linear mean in the newest features and the last eight returns."""
    scaler, lags = Scaler.fit(panel.features[split.train], panel.columns), min(9, config.lookback)
    fit, held, test = (
        np.concatenate([scaler.transform(panel.features[rows]), lagged_returns(panel, rows, lags)], 1)
        for rows in (split.train, split.valid, split.test)
    )
    return linear_mean(panel, split, (fit, held, test), config)


def revin_ridge(panel: Panel, split: Split, config: BaselineConfig) -> Array:
    """A linear mean in the window's prices, each window normalised by its own mean and deviation (RevIN)."""
    fit, held, test = (_normalised(panel, rows, config.lookback) for rows in (split.train, split.valid, split.test))
    return linear_mean(panel, split, (fit, held, test), config)


def logistic(panel: Panel, split: Split, config: BaselineConfig) -> Array:
    """Logistic regression of the sign; the distribution of the past, shifted until it rises with that probability."""
    from sklearn.linear_model import LogisticRegression

    scaler = Scaler.fit(panel.features[split.train], panel.columns)
    fit = evenly(split.train, config.max_rows)
    design, test = (scaler.transform(panel.features[rows]) for rows in (fit, split.test))
    z = targets(panel, fit)
    out = np.empty((len(split.test), len(panel.horizons), len(config.levels)))
    for i in range(len(panel.horizons)):
        if np.ptp(np.sign(z[:, i])) == 0:  # one class only: nothing to tell apart
            shift = np.zeros(len(test))
        else:
            model = LogisticRegression(C=0.01).fit(design, z[:, i] > 0)
            shift = -np.quantile(z[:, i], 1.0 - model.predict_proba(test)[:, 1])
        out[:, i] = shift[:, None] + np.quantile(z[:, i], config.levels)
    return np.sort(out * unit(panel, split.test)[:, :, None], -1)


def dlinear(panel: Panel, split: Split, config: BaselineConfig) -> Array:
    """DLinear (Zeng et al. 2023): one Linear on the window's trend and one on the rest, here to quantiles by pinball.

    The window is the path of the log-price before now, in units of recent volatility; validation chooses the epoch.
    """
    horizons, levels = len(panel.horizons), torch.tensor(config.levels, dtype=torch.float32)
    rows = evenly(split.train, config.max_rows)
    fit, held, test = (_path(panel, each, config.lookback) for each in (rows, split.valid, split.test))
    y, held_y = (torch.from_numpy(targets(panel, each).astype(np.float32)) for each in (rows, split.valid))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _DLinear(fit.shape[1], horizons, torch.quantile(y, levels, dim=0).T)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        kept = [_judged(model, levels, held, held_y, test)]
        for _ in range(config.epochs):
            order = torch.randperm(len(fit))
            for part in (order[i : i + 256] for i in range(0, len(order), 256)):
                loss = pinball(levels, model(fit[part]), y[part]).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            kept.append(_judged(model, levels, held, held_y, test))
    best = min(kept, key=lambda each: each[0])[1]
    return np.sort(best * unit(panel, split.test)[:, :, None], -1)


def lightgbm(panel: Panel, split: Split, config: BaselineConfig) -> Array:
    """Boosted trees, one a horizon and level, on the newest features, their recent means and the window's returns."""
    import lightgbm as lgb

    rows = evenly(split.train, config.max_rows)
    z = targets(panel, rows)
    features, tests = _table(panel, rows, config), _table(panel, split.test, config)
    settings = {
        "objective": "quantile", "num_leaves": config.leaves, "learning_rate": config.lightgbm_lr, "verbose": -1,
        "min_data_in_leaf": 100, "num_threads": config.n_threads, "seed": config.seed, "deterministic": True,
        "force_col_wise": True, "max_bin": 63,
    }  # fmt: skip
    out = np.empty((len(split.test), len(panel.horizons), len(config.levels)))
    data = lgb.Dataset(features, free_raw_data=False, params={"max_bin": 63, "verbose": -1}).construct()
    for i in range(len(panel.horizons)):
        data.set_label(z[:, i])
        for j, level in enumerate(config.levels):
            start = float(np.quantile(z[:, i], level))
            data.set_init_score(np.full(len(rows), start))
            booster = lgb.train({**settings, "alpha": level}, data, num_boost_round=config.trees)
            out[:, i, j] = start + np.asarray(booster.predict(tests, num_threads=config.n_threads))
    return np.sort(out * unit(panel, split.test)[:, :, None], -1)


def _judged(
    model: nn.Module, levels: torch.Tensor, held: torch.Tensor, target: torch.Tensor, test: torch.Tensor
) -> tuple[float, Array]:
    with torch.inference_mode():
        return float(pinball(levels, model(held), target).mean()), model(test).numpy().astype(np.float64)


class _DLinear(nn.Module):
    """[B, L] -> [B, H, Q], started at the quantiles `base` [H, Q] that ignore the window."""

    def __init__(self, length: int, horizons: int, base: torch.Tensor) -> None:
        super().__init__()
        self.trend, self.rest = nn.Linear(length, base.numel()), nn.Linear(length, base.numel(), bias=False)
        for layer in (self.trend, self.rest):
            nn.init.zeros_(layer.weight)
        self.trend.bias.data.copy_(base.flatten())
        self.shape = (horizons, base.shape[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = TREND // 2
        padded = torch.cat([x[:, :1].expand(-1, half), x, x[:, -1:].expand(-1, TREND - 1 - half)], 1)
        smooth = padded.unfold(1, TREND, 1).mean(-1)
        out: torch.Tensor = self.trend(smooth) + self.rest(x - smooth)
        return out.reshape(len(x), *self.shape)


def _path(panel: Panel, rows: Array, lookback: int) -> torch.Tensor:
    """The log-price relative to now, in recent volatilities over the window: [n, lookback]."""
    returns = lagged_returns(panel, rows, lookback)
    before = np.concatenate([returns[:, ::-1].cumsum(1)[:, ::-1], np.zeros((len(rows), 1))], 1)
    return torch.from_numpy((-before / np.sqrt(before.shape[1])).astype(np.float32))


def _normalised(panel: Panel, rows: Array, lookback: int) -> Array:
    """The window's log-prices less their mean, over their deviation: [n, lookback]."""
    prices = np.lib.stride_tricks.sliding_window_view(np.log(panel.close), lookback)[rows - lookback + 1]
    deviation = prices.std(1, keepdims=True)
    normal: Array = (prices - prices.mean(1, keepdims=True)) / np.where(deviation > 0, deviation, 1.0)
    return normal


def _table(panel: Panel, rows: Array, config: BaselineConfig) -> Array:
    """Newest features, their means over the last 4 and 16 candles, the log of the volatility, the window's returns."""
    sums = np.concatenate([np.zeros((1, panel.features.shape[1])), np.nancumsum(panel.features.astype(np.float64), 0)])
    means = [(sums[rows + 1] - sums[np.maximum(rows + 1 - n, 0)]) / n for n in AVERAGED]
    past = lagged_returns(panel, rows, config.lookback)
    return np.concatenate([panel.features[rows], *means, np.log(panel.scale[rows, None]), past], 1).astype(np.float32)
