"""Search for a model: Ray Tune runs trials (`tuning.py`), MLflow remembers all of them (`trial_runs.py`).

A trial sees the training and validation parts of the FIRST walk-forward fold only. The blocks on which the winner is
judged later are thus unknown to the search as well as to the weights.

Trials survive the death of their worker (they go on from the epoch's checkpoint), and the sweep survives the death of
its driver (`resume=True`). All MLflow runs are written by the driver, under one parent, and all of them end.

ASHA decides by who arrives first, so its winner may differ from run to run; with `scheduler="none"` the seed alone
decides what is tried, every trial runs to its end, and the best is the same whatever died meanwhile.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mtst.adapters.search_space import configs_of, search_space
from mtst.adapters.sweep_state import finish_sweep, latest_sweep, open_sweep
from mtst.adapters.sweep_summary import Budget, budget_of, importance_of
from mtst.adapters.tracking import Tracker
from mtst.adapters.trial_runs import TrialRow, TrialRuns
from mtst.selection import Overfitting, overfitting_of
from observability.errors import RegistryError, TrainingError
from observability.logging import get_logger
from observability.progress import NullProgress, Progress
from pipelines.folds import walk_forward

if TYPE_CHECKING:
    from mtst.panel import Panel, Split
    from observability.metrics import Meters
    from pipelines.spec import DatasetSpec

PATIENCE_S = 600.0  # a search of hours outlives a restart of its MLflow
__all__ = ["SweepConfig", "SweepResult", "latest_sweep", "run_sweep", "search_split"]
Scheduler = Literal["asha", "pbt", "none"]


@dataclass(frozen=True)
class SweepConfig:
    """How hard to search.

    Attributes:
        trials: configurations tried; the first is the default one, so that a search can never do worse than no search.
        max_windows: training windows drawn per epoch; max_valid: validation windows.
        folds: walk-forward folds of the later evaluation; only the first one's past is searched on.
        embargo: candles left out between training and validation, besides the longest horizon.
        max_failures: deaths of a trial's worker that are survived.
        time_budget_s: after this the search ends with what it has (0: no limit).
        gpus_per_trial: part of a GPU that Ray reserves for a trial; None lets every core train one, see `gpu_share`.
        scheduler: "asha" (Optuna proposes, the weak are ended early), "pbt" (population-based training: after each
            epoch the weakest quarter goes on from a copy of the strongest, with learning rate, weight decay and
            dropout perturbed), or "none" (drawn by the seed, trained to the end: repeatable).
    """

    trials: int = 8
    epochs: int = 4
    max_windows: int = 6000
    max_valid: int = 4096
    folds: int = 3
    embargo: int = 0
    seed: int = 7
    max_failures: int = 2
    time_budget_s: float = 0.0
    gpus_per_trial: float | None = None
    small: bool = False
    scheduler: Scheduler = "asha"


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        best_config: {"model": MTSTConfig fields, "training": TrainingConfig fields} of the lowest validation loss.
        best_loss: that loss (pinball, in units of recent volatility); base_loss: the same of the untrained forecast.
        parent_run_id: MLflow run that all trials' runs are nested under.
        overfitting: what the trials' losses by block of time say of choosing the best; None below two trials.
        importance: share of the losses' variance that each parameter explains; empty where trials are too few.
        budget: what was spent.
    """

    best_config: dict[str, dict[str, Any]]
    best_loss: float
    base_loss: float
    trials: tuple[TrialRow, ...]
    parent_run_id: str
    seconds: float
    folder: Path
    budget: Budget
    overfitting: Overfitting | None = None
    importance: dict[str, float] = field(default_factory=dict)


def run_sweep(
    config: SweepConfig,
    features_path: Path | str,
    spec: DatasetSpec,
    mlflow_uri: str,
    storage_dir: Path,
    *,
    progress: Progress | None = None,
    resume: bool = False,
    meters: Meters | None = None,
    trial: Callable[..., None] | None = None,
) -> SweepResult:
    """Search on a running Ray cluster (`ray.init` is the caller's).

    Args:
        features_path: folder of feature files, as `pipelines` builds them.
        storage_dir: Tune's checkpoints and state; a folder that all nodes share, and trusted storage, as Tune keeps
            its own state as pickles.
        resume: go on with the newest unfinished sweep of this specification in `storage_dir`, if there is one.
        trial: a stand-in for `run_trial`, for benchmarks of the search itself.

    Raises:
        TrainingError: no trial gave a usable loss.
        RegistryError: MLflow cannot be opened.
    """
    # Ray reads its token settings while it is imported, and the session sets them first: so not at the top.
    from mtst.adapters.trials import TrialsCallback, rows_of, run_trial
    from mtst.adapters.tuning import tune_trials
    from mtst.panel import load_panel

    started = time.monotonic()
    panel = load_panel(features_path, spec)
    split = search_split(panel, spec, config)
    tracker = Tracker(mlflow_uri, patience_s=PATIENCE_S)
    folder, parent = open_sweep(asdict(config), spec, tracker, storage_dir, resume=resume)
    runs = TrialRuns(tracker, parent)
    with (progress or NullProgress()).task("sweep", total=config.trials) as task:
        callback = TrialsCallback().attach(runs, task, config.epochs, meters)
        try:
            shared = {"panel": panel, "split": split}
            results = tune_trials(config, spec, folder, callback, shared, trial=trial or run_trial)
            rows = rows_of(results)
            best, base = _best(rows, results, spec, config)
            rows = runs.finish(rows)
            found = SweepResult(
                best_config=best,
                best_loss=rows[0].loss,
                base_loss=base,
                trials=rows,
                parent_run_id=parent,
                seconds=time.monotonic() - started,
                folder=folder,
                budget=budget_of(rows, config.epochs, time.monotonic() - started),
                overfitting=overfitting_of(row.blocks for row in rows),
                importance=importance_of(rows, search_space(spec.lookback, small=config.small)),
            )
            _finish(tracker, found)
        except BaseException as error:
            runs.abandon()
            _end_badly(tracker, parent, error)
            raise
        task.done(f"best {found.best_loss:.4f} against {base:.4f} untrained, {len(rows)} trials")
    return found


def search_split(panel: Panel, spec: DatasetSpec, config: SweepConfig) -> Split:
    """Training and validation rows of the first walk-forward fold: the only past that the search may know."""
    from mtst.panel import split_fold

    first = walk_forward(panel.timestamps, config.folds, max(spec.horizons), config.embargo)[0]
    return split_fold(panel, first, spec.lookback)


def _best(
    rows: tuple[TrialRow, ...], results: Any, spec: DatasetSpec, config: SweepConfig
) -> tuple[dict[str, dict[str, Any]], float]:
    if not rows or rows[0].loss != rows[0].loss:
        errors = (
            "; ".join(sorted({str(e).strip().splitlines()[-1][:200] for e in results.errors})) or "no trial reported"
        )
        raise TrainingError(
            f"no trial of the sweep gave a loss: {errors}", where="sweep", todo="mend the cause, sweep again"
        )
    model, training = configs_of(rows[0].config, spec, asdict(config))
    base = next((r.metrics["base_loss"] for r in results if r.metrics and "base_loss" in r.metrics), float("nan"))
    return {"model": model.to_dict(), "training": training.to_dict()}, float(base)


def _finish(tracker: Tracker, found: SweepResult) -> None:
    """Close everything, and be sure of it: a run that stays RUNNING is a lie in the record for ever."""
    parent = found.parent_run_id
    tracker.close_open_runs(parent, "the sweep's time budget or driver ended")
    left = tracker.open_runs(parent)
    if left:
        raise TrainingError(f"MLflow runs {left} did not end", where=parent, todo="close them by hand")
    overfit, best = found.overfitting, found.trials[0]
    chances = {} if overfit is None else {"overfitting_probability": overfit.probability}
    spent = {f"budget_{name}": float(value) for name, value in asdict(found.budget).items()}
    importance = {f"importance_{name}": share for name, share in found.importance.items()}
    tracker.log(
        parent,
        metrics={"best_valid_loss": found.best_loss, **chances, **spent, **importance},
        tags={"best_run_id": best.run_id, "best_trial": best.trial_id},
    )
    tracker.log_text(parent, json.dumps(found.best_config, indent=1), "best_config.json")
    tracker.end(parent)
    facts = {"trials": len(found.trials), "overfitting": None if overfit is None else asdict(overfit)}
    finish_sweep(found.folder, best_config=found.best_config, **facts)


def _end_badly(tracker: Tracker, parent: str, error: BaseException) -> None:
    """Close the runs of a sweep that failed; where even that fails, what made the sweep fail is told, not this."""
    try:
        tracker.close_open_runs(parent, f"the sweep ended with {type(error).__name__}")
        tracker.end(parent, "FAILED" if isinstance(error, Exception) else "KILLED")
    except RegistryError as closing:
        get_logger(__name__).warning("runs stay open", parent=parent, error=str(closing))
