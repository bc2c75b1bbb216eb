from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mtst.baselines import BASELINES, BaselineConfig, baseline_forecasts
from mtst.panel import Panel, Split, split_fold
from mtst.scoring import coverage, pinball_loss
from observability.errors import ModelError
from pipelines.folds import walk_forward

CONFIG = BaselineConfig(max_rows=1500, trees=15, lookback=32, epochs=2)


def split_of(panel: Panel) -> Split:
    return split_fold(panel, walk_forward(panel.timestamps, 1, 4, 2)[0], 32)


@pytest.mark.parametrize("name", BASELINES)
def test_forecasts_are_ordered_calibrated_and_of_the_right_shape(noise: Panel, name: str) -> None:
    split = split_of(noise)
    values = baseline_forecasts(name, noise, split, CONFIG)
    assert values.shape == (len(split.test), 3, 7)
    assert np.isfinite(values).all()
    assert (np.diff(values, axis=-1) >= 0).all()
    assert coverage(values, noise.labels[split.test], CONFIG.levels) == pytest.approx([0.8] * 3, abs=0.08)


@pytest.mark.parametrize("name", BASELINES)
def test_nothing_after_the_forecast_row_matters(noise: Panel, name: str) -> None:
    split = split_of(noise)
    split = replace(
        split, test=split.test[noise.pair_index[split.test] == 2][:40]
    )  # the last pair: its future is the end
    after = np.arange(len(noise)) > split.test.max()
    rng = np.random.default_rng(0)
    changed = replace(
        noise,
        features=np.where(after[:, None], rng.standard_normal(noise.features.shape), noise.features).astype(np.float32),
        close=np.where(after, 777.0, noise.close),
        labels=np.where(np.arange(len(noise))[:, None] >= split.test.min(), 9.0, noise.labels).astype(np.float32),
    )
    np.testing.assert_array_equal(*(baseline_forecasts(name, p, split, CONFIG) for p in (noise, changed)))


def test_volatility_that_comes_in_bursts_is_ewmas_to_find(make_market: Callable[..., Panel]) -> None:
    panel = make_market(rows=1500)
    calm = (np.arange(len(panel)) // 100) % 2 == 0
    returns = np.diff(np.log(panel.close), prepend=np.log(panel.close[0])) * np.where(calm, 0.2, 2.0)
    returns[::1500] = 0
    close = 100 * np.exp(np.cumsum(returns))
    labels = np.stack([np.log(np.roll(close, -h) / close) for h in panel.horizons], 1)
    labels[np.isnan(panel.labels)] = np.nan
    burst = replace(panel, close=close, labels=labels.astype(np.float32))
    split = split_of(burst)
    target = burst.labels[split.test].astype(np.float64)
    loss = {
        n: pinball_loss(baseline_forecasts(n, burst, split, CONFIG), target, CONFIG.levels).mean() for n in BASELINES
    }
    assert loss["ewma"] < 0.9 * loss["majority"]


def test_ridge_finds_momentum_and_majority_forecasts_the_common_sign(make_market: Callable[..., Panel]) -> None:
    panel = make_market(echo=0.6, lag=1)
    split = split_of(panel)
    target = panel.labels[split.test].astype(np.float64)
    loss = {
        n: pinball_loss(baseline_forecasts(n, panel, split, CONFIG), target, CONFIG.levels)[:, 0].mean()
        for n in BASELINES
    }
    assert loss["ridge"] < 0.9 * loss["ewma"]
    drift = replace(panel, labels=(panel.labels + 0.05).astype(np.float32))
    assert (baseline_forecasts("majority", drift, split, CONFIG)[:, :, 3] > 0).all()


def test_an_unknown_baseline_is_refused(noise: Panel) -> None:
    with pytest.raises(ModelError, match="unknown baseline"):
        baseline_forecasts("oracle", noise, split_of(noise), CONFIG)
