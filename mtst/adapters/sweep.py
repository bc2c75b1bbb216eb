"""Search for a model: Ray Tune runs trials, Optuna proposes them, ASHA ends the weak ones early, MLflow remembers all.

A trial sees the training and validation parts of the FIRST walk-forward fold only. The blocks on which the winner is
judged later are thus unknown to the search as well as to the weights.

Trials survive the death of their worker (they go on from the epoch's checkpoint), and the sweep survives the death of
its driver (`resume=True`). All MLflow runs are written by the driver, under one parent, and all of them end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtst.adapters.search_space import configs_of, default_choice, search_space
from mtst.adapters.tracking import Tracker
from mtst.selection import Overfitting, overfitting_of
from observability.errors import TrainingError
from observability.files import write_whole
from observability.progress import NullProgress, Progress
from pipelines.folds import walk_forward

if TYPE_CHECKING:
    from mtst.adapters.trials import TrialRow, TrialsCallback
    from mtst.panel import Panel, Split
    from observability.metrics import Meters
    from pipelines.spec import DatasetSpec

METRIC = "valid_loss"
STATE_FILE = "sweep.json"


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
        gpus_per_trial: fraction of a GPU that Ray reserves for a trial.
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
    gpus_per_trial: float = 0.0
    small: bool = False


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        best_config: {"model": MTSTConfig fields, "training": TrainingConfig fields} of the lowest validation loss.
        best_loss: that loss (pinball, in units of recent volatility); base_loss: the same of the untrained forecast.
        parent_run_id: MLflow run that all trials' runs are nested under.
        overfitting: what the trials' losses by block of time say of choosing the best; None below two trials.
    """

    best_config: dict[str, dict[str, Any]]
    best_loss: float
    base_loss: float
    trials: tuple[TrialRow, ...]
    parent_run_id: str
    seconds: float
    folder: Path
    overfitting: Overfitting | None = None


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
) -> SweepResult:
    """Search on a running Ray cluster (`ray.init` is the caller's).

    Args:
        features_path: folder of feature files, as `pipelines` builds them.
        storage_dir: Tune's checkpoints and state; trusted storage, as Tune keeps its own state as pickles.
        resume: go on with the newest unfinished sweep of this specification in `storage_dir`, if there is one.

    Raises:
        TrainingError: no trial gave a usable loss.
        RegistryError: MLflow cannot be opened.
    """
    # Ray reads its token settings while it is imported, and the session sets them first: so not at the top.
    from mtst.adapters.trials import TrialsCallback
    from mtst.panel import load_panel

    started = time.monotonic()
    panel = load_panel(features_path, spec)
    split = search_split(panel, spec, config)
    tracker = Tracker(mlflow_uri)
    folder, state = _open_sweep(config, spec, tracker, storage_dir, resume)
    parent = state["parent_run_id"]
    with (progress or NullProgress()).task("sweep", total=config.trials) as task:
        callback = TrialsCallback().attach(tracker, parent, task, config.epochs, meters)
        try:
            results = _tune(config, spec, folder, callback, {"panel": panel, "split": split})
            rows = tuple(sorted(callback.rows(results), key=lambda row: (row.loss != row.loss, row.loss)))
            best, base = _best(rows, results, spec, config)
            _finish(tracker, parent, folder, rows, best)
        except BaseException as error:
            tracker.close_open_runs(parent, f"the sweep ended with {type(error).__name__}")
            tracker.end(parent, "FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        task.done(f"best {rows[0].loss:.4f} against {base:.4f} untrained, {len(rows)} trials")
    overfit = overfitting_of(row.blocks for row in rows)
    return SweepResult(best, rows[0].loss, base, rows, parent, time.monotonic() - started, folder, overfit)


def search_split(panel: Panel, spec: DatasetSpec, config: SweepConfig) -> Split:
    """Training and validation rows of the first walk-forward fold: the only past that the search may know."""
    from mtst.panel import split_fold

    first = walk_forward(panel.timestamps, config.folds, max(spec.horizons), config.embargo)[0]
    return split_fold(panel, first, spec.lookback)


def latest_sweep(storage_dir: Path, spec_hash: str) -> dict[str, Any] | None:
    """State of the newest finished sweep of a data set: best_config, parent_run_id, config, trials,
    overfitting; None if there is none."""
    for file in sorted(storage_dir.glob(f"*/{STATE_FILE}"), reverse=True):
        state: dict[str, Any] = json.loads(file.read_text())
        if state["spec_hash"] == spec_hash and state["done"]:
            return state
    return None


def _tune(
    config: SweepConfig, spec: DatasetSpec, folder: Path, callback: TrialsCallback, shared: Mapping[str, Any]
) -> Any:
    import optuna
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    from mtst.adapters.trials import run_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    job = {"spec": spec.to_json(), "sweep": asdict(config)}
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, job=job, **shared), {"cpu": 1, "gpu": config.gpus_per_trial}
    )
    if tune.Tuner.can_restore(str(folder)):
        tuner = tune.Tuner.restore(str(folder), trainable, resume_unfinished=True, resume_errored=True)
        _attach_again(tuner, callback)
        return tuner.fit()
    search = OptunaSearch(seed=config.seed, points_to_evaluate=[default_choice(spec.lookback, small=config.small)])
    tuner = tune.Tuner(
        trainable,
        param_space=search_space(spec.lookback, small=config.small),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="min",
            num_samples=config.trials,
            search_alg=search,
            scheduler=ASHAScheduler(time_attr="epoch", max_t=config.epochs + 1, grace_period=1, reduction_factor=2),
            max_concurrent_trials=_cores(),
            time_budget_s=config.time_budget_s or None,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent.resolve()),
            callbacks=[callback],
            failure_config=tune.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            verbose=0,
        ),
    )
    return tuner.fit()


def _attach_again(tuner: Any, callback: TrialsCallback) -> None:
    # Tune restores callbacks from its own state, and offers no public way to hand over a live one.
    from mtst.adapters.trials import TrialsCallback

    run_config = tuner._local_tuner.get_run_config()
    others = [each for each in run_config.callbacks or [] if not isinstance(each, TrialsCallback)]
    run_config.callbacks = [*others, callback]


def _cores() -> int:
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _open_sweep(
    config: SweepConfig, spec: DatasetSpec, tracker: Tracker, storage_dir: Path, resume: bool
) -> tuple[Path, dict[str, Any]]:
    """The sweep's folder and state: the newest unfinished one when resuming, else a fresh one with a parent run."""
    if resume:
        for file in sorted(storage_dir.glob(f"*/{STATE_FILE}"), reverse=True):
            state: dict[str, Any] = json.loads(file.read_text())
            if state["spec_hash"] == spec.hash and state["config"] == asdict(config) and not state["done"]:
                return file.parent, state
    folder = storage_dir / f"sweep-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
    folder.mkdir(parents=True)
    tags = {"kind": "sweep", "spec_hash": spec.hash, "timeframe": spec.timeframe, "folder": str(folder)}
    parent = tracker.start(folder.name, tags=tags)
    tracker.log(parent, params={**asdict(config), "pairs": ",".join(spec.pairs), "features": len(spec.columns)})
    tracker.log_text(parent, spec.to_json(), "spec.json")
    state = {"spec_hash": spec.hash, "config": asdict(config), "parent_run_id": parent, "done": False}
    _write_state(folder, state)
    return folder, state


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


def _finish(
    tracker: Tracker, parent: str, folder: Path, rows: tuple[TrialRow, ...], best: dict[str, dict[str, Any]]
) -> None:
    """Close everything, and be sure of it: a run that stays RUNNING is a lie in the record for ever."""
    tracker.close_open_runs(parent, "the sweep's time budget or driver ended")
    left = tracker.open_runs(parent)
    if left:
        raise TrainingError(f"MLflow runs {left} did not end", where=parent, todo="close them by hand")
    overfit = overfitting_of(row.blocks for row in rows)
    tracker.log(
        parent,
        metrics={
            "best_valid_loss": rows[0].loss,
            **({} if overfit is None else {"overfitting_probability": overfit.probability}),
        },
        tags={"best_run_id": rows[0].run_id, "best_trial": rows[0].trial_id},
    )
    tracker.log_text(parent, json.dumps(best, indent=1), "best_config.json")
    tracker.end(parent)
    state = json.loads((folder / STATE_FILE).read_text())
    found = {"trials": len(rows), "overfitting": None if overfit is None else asdict(overfit)}
    _write_state(folder, {**state, "done": True, "best_config": best, **found})


def _write_state(folder: Path, state: Mapping[str, Any]) -> None:
    write_whole(folder / STATE_FILE, json.dumps(state, indent=1))
