"""What a sweep cost and what mattered in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtst.adapters.trial_runs import TrialRow

LEAST_TRIALS = 4  # fewer say nothing of what matters


@dataclass(frozen=True, slots=True)
class Budget:
    """What was spent: epochs trained of those that trials without early stopping would have taken, the trials' own
    time together, and the time that a person waited (this driver's, where a sweep was resumed)."""

    epochs: int
    planned_epochs: int
    trial_seconds: float
    seconds: float
    pruned: int
    failed: int


def budget_of(rows: Sequence[TrialRow], epochs: int, seconds: float) -> Budget:
    """From the trials of a sweep with so many epochs a trial, waited for so long."""
    outcomes = [row.outcome for row in rows]
    return Budget(
        epochs=sum(row.epochs for row in rows),
        planned_epochs=epochs * len(rows),
        trial_seconds=sum(row.seconds for row in rows),
        seconds=seconds,
        pruned=outcomes.count("pruned"),
        failed=outcomes.count("failed"),
    )


def importance_of(rows: Sequence[TrialRow], space: dict[str, Any], seed: int = 0) -> dict[str, float]:
    """Share of the losses' variance that each parameter explains (Optuna's fANOVA), the largest first, sum 1.

    A trial that was ended early counts with the loss it had then. Empty below `LEAST_TRIALS` or where all losses are
    equal: nothing is known.

    Args:
        space: as `search_space` gives it.
    """
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    known = [row for row in rows if math.isfinite(row.loss)]
    if len(known) < LEAST_TRIALS or len({row.loss for row in known}) == 1:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    axes = OptunaSearch.convert_search_space(space)
    study = optuna.create_study()
    for row in known:
        # A population's members may be perturbed out of the space that the first ones were drawn from.
        choice = {name: _inside(row.config[name], axis) for name, axis in axes.items()}
        study.add_trial(optuna.trial.create_trial(params=choice, distributions=axes, value=row.loss))
    judge = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    found = optuna.importance.get_param_importances(study, evaluator=judge)
    return {name: float(share) for name, share in found.items()}


def _inside(value: Any, axis: Any) -> Any:
    low, high = getattr(axis, "low", None), getattr(axis, "high", None)
    return value if low is None or high is None else min(max(value, low), high)
