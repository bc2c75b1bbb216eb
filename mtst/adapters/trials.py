"""One trial of a sweep, in a Ray worker, and the driver's record of all trials."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ray.tune import Callback

from mtst.adapters.tracking import Tracker
from mtst.selection import BLOCK_NAMES, blocks_of
from observability.errors import RegistryError
from observability.progress import ProgressTask

if TYPE_CHECKING:
    from mtst.panel import Panel, Split
    from observability.metrics import Meters

STATE = "state.safetensors"
LOGGED = ("train_loss", "valid_loss", "base_loss", "skill", "lr", "windows_per_second", *BLOCK_NAMES)


@dataclass(frozen=True)
class TrialRow:
    """One trial: `outcome` is completed, pruned (ended early by ASHA or the budget) or failed; loss NaN if none.

    `curve` is the validation loss of each epoch, `blocks` the last one by block of time (see `mtst.selection`).
    """

    trial_id: str
    outcome: str
    epochs: int
    loss: float
    skill: float
    seconds: float
    config: dict[str, Any]
    run_id: str
    curve: tuple[float, ...] = ()
    blocks: tuple[float, ...] = ()


def run_trial(choice: dict[str, Any], *, panel: Panel, split: Split, job: Mapping[str, Any]) -> None:
    """Train one configuration; report and checkpoint every epoch; go on from the checkpoint after a crash.

    `panel` comes from the object store: its arrays are shared by all workers of the machine and never copied.
    """
    from ray import tune

    from mtst.adapters.search_space import configs_of
    from mtst.training import train
    from pipelines.spec import DatasetSpec

    model_config, training_config = configs_of(choice, DatasetSpec.from_json(job["spec"]), job["sweep"])
    with tempfile.TemporaryDirectory(prefix="mtst-trial-") as name:
        folder = Path(name)
        last = tune.get_checkpoint()
        if last is not None:
            with last.as_directory() as saved:
                shutil.copy2(Path(saved) / STATE, folder / STATE)

        def on_epoch(epoch: int, metrics: dict[str, float]) -> bool:
            report = {**metrics, "epoch": epoch, "complete": False}
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(name))
            return True

        result = train(model_config, training_config, panel, split, on_epoch, folder / STATE)
    best = result.history[result.best_epoch - 1]
    tune.report({**best, "valid_loss": result.best_loss, "epoch": len(result.history), "complete": True})


@dataclass
class _Live:
    """What exists in the driver only, and must not travel into Tune's saved state."""

    tracker: Tracker
    parent: str
    task: ProgressTask
    epochs: int
    meters: Meters | None
    runs: dict[str, str] = field(default_factory=dict)


class TrialsCallback(Callback):
    """Writes each trial's MLflow run from the driver, and tells the person waiting where the sweep stands."""

    def __init__(self) -> None:
        self._live: _Live | None = None

    def attach(self, tracker: Tracker, parent: str, task: ProgressTask, epochs: int, meters: Meters | None) -> Self:
        """Give it the driver's tracker, parent run and progress; runs of an earlier driver are taken up again."""
        self._live = _Live(tracker, parent, task, epochs, meters)
        for run in tracker.children(parent):
            if "trial_id" in run.data.tags:
                self._live.runs[run.data.tags["trial_id"]] = run.info.run_id
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"_live": None}  # Tune saves its callbacks; a tracker or a terminal cannot be saved

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Open the trial's run, or find it again after a crash or resumption."""
        live = self._live
        if live is not None and trial.trial_id not in live.runs:
            tags = {"kind": "trial", "trial_id": trial.trial_id}
            run_id = live.tracker.start(f"trial-{trial.trial_id}", parent=live.parent, tags=tags)
            live.tracker.log(run_id, params=trial.config)
            live.runs[trial.trial_id] = run_id

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Log the epoch and move the bar."""
        live = self._live
        if live is None:
            return
        done = sum(1 for each in trials if each.is_finished())
        note = f"{done}/{len(trials)} ended, {trial.trial_id[-5:]} epoch {result['epoch']}: {result['valid_loss']:.4f}"
        if result["complete"]:
            live.task.advance(0.0, note)
            return
        metrics = {name: float(result[name]) for name in LOGGED if name in result}
        live.tracker.log(self._run(trial), metrics=metrics, step=int(result["epoch"]))
        live.task.advance(1.0 / live.epochs, note)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run; a pruned trial is a finished piece of work, and tagged as what it is."""
        outcome = outcome_of(trial.last_result)
        self._close(trial, outcome, "FINISHED")
        if self._live is not None and outcome == "pruned":
            missing = self._live.epochs - int(trial.last_result.get("epoch", 0))
            self._live.task.advance(max(0, missing) / self._live.epochs, "one pruned")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run as FAILED, with the last line of the error."""
        error = str(trial.get_pickled_error() or trial.error_file or "unknown")
        self._close(trial, "failed", "FAILED", {"error": error.strip().splitlines()[-1][:400] if error else ""})

    def rows(self, results: Iterable[Any]) -> list[TrialRow]:
        """All trials as a table, from Tune's result grid."""
        runs = self._live.runs if self._live is not None else {}
        return [_row(result, runs) for result in results]

    def _run(self, trial: Any) -> str:
        assert self._live is not None
        run_id = self._live.runs.get(trial.trial_id)
        if run_id is None:
            raise RegistryError(f"trial {trial.trial_id} reported before it started", where="sweep")
        return run_id

    def _close(self, trial: Any, outcome: str, status: str, tags: dict[str, str] | None = None) -> None:
        live = self._live
        if live is None:
            return
        loss = float((trial.last_result or {}).get("valid_loss", float("nan")))
        live.tracker.log(self._run(trial), metrics={"final_loss": loss}, tags={"outcome": outcome, **(tags or {})})
        live.tracker.end(self._run(trial), status)
        if live.meters is not None:
            live.meters.inc("mtst_trials_total", status=outcome)


def outcome_of(metrics: Mapping[str, Any] | None) -> str:
    """Whether a trial that ended without an error ran to its own end."""
    return "completed" if metrics and metrics.get("complete") else "pruned"


def _row(result: Any, runs: Mapping[str, str]) -> TrialRow:
    metrics = result.metrics or {}
    trial_id = str(metrics.get("trial_id", Path(result.path).name))
    table = result.metrics_dataframe
    epochs = [] if table is None or "complete" not in table else table[~table["complete"].astype(bool)]["valid_loss"]
    return TrialRow(
        trial_id=trial_id,
        outcome="failed" if result.error is not None else outcome_of(metrics),
        epochs=int(metrics.get("epoch", 0)),
        loss=float(metrics.get("valid_loss", float("nan"))),
        skill=float(metrics.get("skill", float("nan"))),
        seconds=float(metrics.get("time_total_s", 0.0)),
        config=dict(result.config or {}),
        run_id=runs.get(trial_id, ""),
        curve=tuple(float(loss) for loss in epochs),
        blocks=blocks_of(metrics),
    )


__all__ = ["TrialRow", "TrialsCallback", "outcome_of", "run_trial"]
