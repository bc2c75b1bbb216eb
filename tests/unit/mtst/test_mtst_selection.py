"""What choosing among many does to a result, against cases whose answer is known."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from mtst.blocks import BLOCKS, block_losses
from mtst.selection import deflated_sharpe, expected_maximum, overfitting
from observability.errors import DataError


def test_a_trial_that_is_better_everywhere_is_no_overfitting() -> None:
    losses = np.random.default_rng(0).normal(0.3, 0.01, (8, BLOCKS))
    losses[3] -= 0.2
    found = overfitting(losses)
    assert found.probability == 0.0
    assert found.degradation == pytest.approx(8 / 9)
    assert (found.trials, found.blocks, found.splits) == (8, 12, 924)


def test_the_best_of_noise_is_as_likely_bad_as_good() -> None:
    found = [overfitting(np.random.default_rng(seed).normal(0.3, 0.01, (9, 8))).probability for seed in range(60)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.08)


def test_a_trial_that_fits_one_half_and_fails_in_the_other_is_overfitting() -> None:
    losses = np.full((4, 4), 0.3) + np.random.default_rng(0).normal(0, 1e-4, (4, 4))
    losses[0], losses[1] = (0.1, 0.1, 0.9, 0.9), (0.9, 0.9, 0.1, 0.1)
    found = overfitting(losses)
    assert found.probability > 0.3  # the two halvings along the fault; others mix good and bad blocks
    assert overfitting(np.tile(losses[2], (4, 1))).probability == pytest.approx(0.5)  # equal trials: nothing to choose


def test_every_way_to_halve_the_past_is_paired_with_its_other_half() -> None:
    losses = np.array([[1.0, 2.0, 3.0, 9.0], [2.0, 2.0, 2.0, 2.0]])
    # by hand: halves 01|23 12|03 ... ; in sample 0 wins in 01, 02, (12: 2.5 against 2 no), 1 wins in 03, 12, 13, 23
    inside = {(0, 1): 0, (0, 2): 1, (0, 3): 1, (1, 2): 1, (1, 3): 1, (2, 3): 1}
    losses[0, 2] = 2.5
    inside[0, 2] = 0
    below = 0
    for half, best in inside.items():
        rest = [k for k in range(4) if k not in half]
        below += losses[best, rest].mean() > losses[1 - best, rest].mean()
    assert overfitting(losses).probability == pytest.approx(below / 6)


@pytest.mark.parametrize("losses", [np.zeros((1, 8)), np.zeros((3, 2)), np.zeros((3, 5)), np.full((3, 4), np.nan)])
def test_losses_that_tell_nothing_are_refused(losses: np.ndarray) -> None:
    with pytest.raises(DataError, match="do not tell"):
        overfitting(losses)


def test_blocks_are_of_equal_time_and_keep_the_mean() -> None:
    times = np.repeat(np.arange(240) * 1000, 2)
    losses = np.arange(480, dtype=float)
    found = block_losses(losses, times)
    assert len(found) == BLOCKS
    assert found == pytest.approx(losses.reshape(BLOCKS, 40).mean(1))
    assert np.isnan(block_losses(np.ones(2), np.array([0, 100]))[1:-1]).all()


def test_the_expected_best_of_many_draws() -> None:
    draws = np.random.default_rng(0).standard_normal((20_000, 50)).max(1).mean()
    assert expected_maximum(50) == pytest.approx(draws, rel=0.02)
    assert expected_maximum(1) == 0.0


def test_one_trial_of_normal_returns_is_the_plain_test_of_a_sharpe_ratio() -> None:
    returns = 0.001 + 0.01 * np.random.default_rng(1).standard_normal(2000)
    found = deflated_sharpe(returns, 1)
    t = returns.mean() / returns.std(ddof=1) * np.sqrt(len(returns) - 1)
    assert found.probability == pytest.approx(NormalDist().cdf(t), abs=0.005)
    assert found.benchmark == 0.0


def test_the_more_was_tried_the_less_a_sharpe_ratio_proves() -> None:
    returns = 0.0006 + 0.01 * np.random.default_rng(2).standard_normal(1500)
    found = [deflated_sharpe(returns, n).probability for n in (1, 8, 100, 10_000)]
    assert found == sorted(found, reverse=True)
    assert found[0] - found[-1] > 0.3
    assert deflated_sharpe(np.zeros(100), 3).probability == 0.0


def test_the_best_of_worthless_strategies_is_seldom_taken_for_skill() -> None:
    rng = np.random.default_rng(3)
    called = []
    for _ in range(200):
        trials = 0.01 * rng.standard_normal((20, 500))
        best = trials[(trials.mean(1) / trials.std(1)).argmax()]
        called.append((deflated_sharpe(best, 20).probability > 0.95, deflated_sharpe(best, 1).probability > 0.95))
    ours, undeflated = np.mean(called, axis=0)
    assert ours < 0.08
    assert undeflated > 0.5
