"""The parts of a sweep that need no cluster: what a trial reserves, what mattered, what was spent."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mtst.adapters.placement import gpu_share
from mtst.adapters.search_space import search_space
from mtst.adapters.sweep_summary import budget_of, importance_of
from mtst.adapters.trial_runs import TrialRow


def rows(losses: list[float], outcome: str = "completed") -> list[TrialRow]:
    """Trials whose learning rate rises from one to the next, all else drawn by lot."""
    rng = np.random.default_rng(0)
    return [
        TrialRow(
            trial_id=str(number), outcome=outcome, epochs=2, loss=loss, skill=0.0, seconds=3.0, run_id="",
            config={
                "patches": str(rng.choice(["8+32", "4+16"])), "d_model": int(rng.choice([16, 32, 64])), "n_layers": 1,
                "dropout": float(rng.uniform(0.1, 0.4)), "lr": 3e-4 * 10 ** (number / len(losses)),
                "weight_decay": float(rng.uniform(0.001, 0.1)),
            },
        )
        for number, loss in enumerate(losses)
    ]  # fmt: skip


def test_the_setting_that_decides_the_loss_is_named_first() -> None:
    found = importance_of(rows([0.25 + 0.001 * number for number in range(24)]), search_space(96))
    assert next(iter(found)) == "lr"
    assert found["lr"] > 0.5
    assert sum(found.values()) == pytest.approx(1)
    assert found["n_layers"] == 0.0  # the same everywhere


@pytest.mark.parametrize("losses", [[0.3, 0.2, 0.1], [0.2] * 9, [math.nan] * 9])
def test_few_or_equal_losses_say_nothing_of_what_matters(losses: list[float]) -> None:
    assert importance_of(rows(losses), search_space(96)) == {}


def test_a_perturbed_setting_may_lie_outside_of_the_space() -> None:
    tried = rows([0.25 + 0.001 * number for number in range(8)])
    tried[0].config["dropout"] = 0.45
    assert importance_of(tried, search_space(96))


def test_the_budget_adds_up() -> None:
    spent = budget_of([*rows([0.3, 0.2]), *rows([0.1], "pruned"), *rows([math.nan], "failed")], 4, 9.0)
    assert (spent.epochs, spent.planned_epochs, spent.trial_seconds, spent.seconds) == (8, 16, 12.0, 9.0)
    assert (spent.pruned, spent.failed) == (1, 1)


@pytest.mark.parametrize(
    ("asked", "cluster", "share"),
    [
        (None, {"CPU": 16.0}, 0.0),
        (None, {"CPU": 16.0, "GPU": 8.0}, 0.5),
        (None, {"CPU": 64.0, "GPU": 1.0}, 0.125),
        (None, {"CPU": 4.0, "GPU": 8.0}, 1.0),
        (0.0, {"CPU": 4.0, "GPU": 8.0}, 0.0),
        (0.25, {"CPU": 4.0, "GPU": 8.0}, 0.25),
    ],
)
def test_a_fit_reserves_what_lets_every_core_train(
    asked: float | None, cluster: dict[str, float], share: float
) -> None:
    assert gpu_share(asked, cluster) == share
