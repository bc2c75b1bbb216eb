"""Our scores and tests against other people's code for the same formulas."""

from __future__ import annotations

import arch.bootstrap
import numpy as np
import pytest
import scoringrules
import statsmodels.api as sm
from arch import arch_model

from mtst.scoring import central_sigma, crps, pinball_loss
from mtst.significance import block_bootstrap, correlation_interval, diebold_mariano
from tests.unit.mtst.test_mtst_significance import moving_average

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


@pytest.fixture
def forecasts() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    values = np.sort(rng.standard_normal((300, 2, 7)), -1)
    return values, rng.standard_normal((300, 2))


def test_the_quantile_loss(forecasts: tuple[np.ndarray, np.ndarray]) -> None:
    values, target = forecasts
    theirs = np.stack([scoringrules.quantile_score(target, values[..., i], q) for i, q in enumerate(LEVELS)], -1)
    np.testing.assert_allclose(pinball_loss(values, target, LEVELS), theirs.mean(-1))


def test_the_ranked_probability_score_of_a_fine_grid_is_the_exact_one() -> None:
    rng = np.random.default_rng(1)
    levels = (np.arange(400) + 0.5) / 400
    mean, sigma, target = rng.standard_normal(50), rng.uniform(0.5, 2, 50), rng.standard_normal(50)
    quantiles = mean[:, None] + sigma[:, None] * np.quantile(np.random.default_rng(2).standard_normal(400_000), levels)
    ours = crps(quantiles[:, None], target[:, None], levels)[:, 0]
    np.testing.assert_allclose(ours, scoringrules.crps_normal(target, mean, sigma), rtol=0.02, atol=0.005)


def test_the_volatility_of_a_normal_law() -> None:
    quantiles = 0.3 + 2.0 * np.quantile(np.random.default_rng(0).standard_normal(1_000_000), LEVELS)
    assert central_sigma(quantiles[None, None], LEVELS)[0, 0] == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("lag", [0, 3, 12])
def test_diebold_mariano_is_a_regression_on_a_constant_with_newey_wests_variance(lag: int) -> None:
    d = 0.1 + moving_average(np.random.default_rng(lag), 500, 4)
    ours = diebold_mariano(np.zeros(500), d, lag)
    fit = sm.OLS(d, np.ones(500)).fit(cov_type="HAC", cov_kwds={"maxlags": lag, "use_correction": False})
    h = lag + 1
    small = np.sqrt((500 + 1 - 2 * h + h * (h - 1) / 500) / 500)  # Harvey et al.; theirs leaves it to the user
    assert ours.statistic == pytest.approx(float(fit.tvalues[0]) * small)


def test_the_block_bootstraps_p_is_that_of_another_ones_draws() -> None:
    d = 0.15 + moving_average(np.random.default_rng(5), 800, 4)
    ours = block_bootstrap(np.zeros(800), d, 20, draws=4000)
    theirs = arch.bootstrap.MovingBlockBootstrap(20, d - d.mean(), seed=0).apply(np.mean, 4000)[:, 0]
    assert ours.p_value == pytest.approx(float((theirs - theirs.mean() >= d.mean()).mean()), abs=0.03)


def test_the_interval_of_a_correlation_is_that_of_another_ones_draws() -> None:
    rng = np.random.default_rng(6)
    x = moving_average(rng, 1000, 4)
    y = 0.3 * x + moving_average(rng, 1000, 4)
    ours = correlation_interval(x, y, np.arange(1000), 20)
    draws = arch.bootstrap.MovingBlockBootstrap(20, x, y, seed=0).apply(lambda a, b: np.corrcoef(a, b)[0, 1], 1000)
    assert (ours.low, ours.high) == pytest.approx(np.quantile(draws, (0.025, 0.975)), abs=0.02)
    assert ours.value == pytest.approx(np.corrcoef(x, y)[0, 1])


def test_windows_of_one_time_are_no_independent_witnesses() -> None:
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal(400), rng.standard_normal(400)
    alone = correlation_interval(x, y, np.arange(400), 1)
    copied = correlation_interval(np.tile(x, 6), np.tile(y, 6), np.tile(np.arange(400), 6), 1)
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.05)
    ranked = correlation_interval(np.exp(3 * x), np.exp(3 * x + 0.1 * y), np.arange(400), 5, ranks=True)
    assert ranked.low > 0.95
    assert correlation_interval(np.zeros(50), y[:50], np.arange(50), 2).value == 0.0


def test_garch_forecasts_as_its_library_does() -> None:
    from mtst.naive import _fit_garch, garch_variance

    returns = arch_model(None, mean="Zero", vol="GARCH", p=1, q=1).simulate([0.05, 0.08, 0.9], 3000)["data"].to_numpy()
    fitted = _fit_garch(returns)
    ours = garch_variance(returns, fitted, (1, 4, 16))
    model = arch_model(returns, mean="Zero", vol="GARCH", p=1, q=1, dist="t", rescale=False)
    theirs = model.fit(disp="off").forecast(horizon=16, start=2900).variance.to_numpy().cumsum(1)[:, (0, 3, 15)]
    np.testing.assert_allclose(ours[2900:], theirs, rtol=1e-3)
