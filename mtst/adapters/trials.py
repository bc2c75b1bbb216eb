"""One trial of a sweep, in a Ray worker, and the driver's record of all trials."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil
from ray.tune import Callback

from mtst.adapters.trial_runs import TrialRow, TrialRuns
from mtst.blocks import BLOCK_NAMES, blocks_of
from observability.logging import get_logger
from observability.priority import step_back
from observability.progress import ProgressTask

if TYPE_CHECKING:
    from mtst.panel import Panel, Split
    from observability.metrics import Meters

STATE = "state.safetensors"
SYSTEM = ("system/cpu_percent", "system/memory_megabytes", "system/gpu_memory_megabytes")
SETTINGS = ("peak_lr", "dropout", "weight_decay")  # reported where they may change on the way
LOGGED = (
    "train_loss", "valid_loss", "base_loss", "skill", "lr", "windows_per_second", *BLOCK_NAMES, *SYSTEM, *SETTINGS,
)  # fmt: skip


def run_trial(choice: dict[str, Any], *, panel: Panel, split: Split, job: Mapping[str, Any]) -> None:
    """Train one configuration; report and checkpoint every epoch; go on from the checkpoint after a crash.

    `panel` comes from the object store: its arrays are shared by all workers of the machine and never copied.
    """
    from ray import tune

    from mtst.adapters.search_space import configs_of
    from mtst.threads import keep_freed_memory
    from mtst.training import train
    from pipelines.spec import DatasetSpec

    step_back()
    keep_freed_memory()
    population = job["sweep"]["scheduler"] == "pbt"
    model_config, training_config = configs_of(choice, DatasetSpec.from_json(job["spec"]), job["sweep"])
    training_config = replace(training_config, device=job["device"], perturbed=population)
    changeable = (training_config.lr, model_config.dropout, training_config.weight_decay)
    settings = dict(zip(SETTINGS, changeable, strict=True)) if population else {}
    usage = Usage()
    with tempfile.TemporaryDirectory(prefix="mtst-trial-") as name:
        folder = Path(name)
        _take_up(folder)

        def on_epoch(epoch: int, metrics: dict[str, float]) -> bool:
            report_safely({**metrics, **usage.read(), **settings, "epoch": epoch, "complete": False}, folder)
            return True

        result = train(model_config, training_config, panel, split, on_epoch, folder / STATE)
    best = result.history[result.best_epoch - 1]
    tune.report({**best, "valid_loss": result.best_loss, "epoch": len(result.history), "complete": True})


def report_safely(report: dict[str, Any], folder: Path) -> None:
    """Report with the checkpoint in `folder`; without it where its storage is full or away.

    A checkpoint insures against a crash. Training that can go on must not end because it cannot be insured: its result
    does not depend on it.
    """
    from ray import tune

    if (folder / STATE).is_file():
        try:
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(str(folder)))
        except OSError as error:
            get_logger(__name__).warning("a trial goes on without a checkpoint", error=str(error))
        else:
            return
    tune.report(report)


class Usage:
    """What this process took since it was asked last."""

    def __init__(self) -> None:
        self._process = psutil.Process(os.getpid())
        self._wall, self._cpu = time.monotonic(), sum(self._process.cpu_times()[:2])

    def read(self) -> dict[str, float]:
        """Per cent of one core, resident memory, and the largest GPU memory where there is a GPU, in 2^20 bytes."""
        import torch

        wall, cpu = time.monotonic(), sum(self._process.cpu_times()[:2])
        share = 100 * (cpu - self._cpu) / max(wall - self._wall, 1e-6)
        self._wall, self._cpu = wall, cpu
        values = [share, self._process.memory_info().rss / 2**20]
        if torch.cuda.is_available():
            values.append(torch.cuda.max_memory_allocated() / 2**20)
        return dict(zip(SYSTEM, values, strict=False))


def _take_up(folder: Path) -> None:
    """Put the trial's last checkpoint, if it left one, where training looks for it."""
    from ray import tune

    last = tune.get_checkpoint()
    if last is not None:
        with last.as_directory() as saved:
            shutil.copy2(Path(saved) / STATE, folder / STATE)


@dataclass
class _Live:
    """What exists in the driver only, and must not travel into Tune's saved state."""

    runs: TrialRuns
    task: ProgressTask
    epochs: int
    meters: Meters | None


class TrialsCallback(Callback):
    """Tells MLflow of each trial from the driver, and the person waiting where the sweep stands."""

    def __init__(self) -> None:
        self._live: _Live | None = None

    def attach(self, runs: TrialRuns, task: ProgressTask, epochs: int, meters: Meters | None) -> Self:
        """Give it the driver's runs and progress."""
        self._live = _Live(runs, task, epochs, meters)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"_live": None}  # Tune saves its callbacks; a tracker or a terminal cannot be saved

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Open the trial's run, or find it again after a crash or resumption."""
        if self._live is not None:
            self._live.runs.start(trial.trial_id, dict(trial.config))

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
        live.runs.epoch(trial.trial_id, metrics, int(result["epoch"]))
        live.task.advance(1.0 / live.epochs, note)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run; a pruned trial is a finished piece of work, and tagged as what it is."""
        outcome = outcome_of(trial.last_result)
        self._end(trial, outcome)
        if self._live is not None and outcome == "pruned":
            missing = self._live.epochs - int(trial.last_result.get("epoch", 0))
            self._live.task.advance(max(0, missing) / self._live.epochs, "one pruned")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the run as FAILED, with the last line of the error."""
        error = str(trial.get_pickled_error() or trial.error_file or "unknown")
        self._end(trial, "failed", error.strip().splitlines()[-1][:400] if error else "")

    def _end(self, trial: Any, outcome: str, error: str = "") -> None:
        live = self._live
        if live is None:
            return
        config = {"config": dict(trial.config)}
        live.runs.end(_row_of(trial.trial_id, outcome, {**config, **(trial.last_result or {})}), error)
        if live.meters is not None:
            live.meters.inc("mtst_trials_total", status=outcome)


def outcome_of(metrics: Mapping[str, Any] | None) -> str:
    """Whether a trial that ended without an error ran to its own end."""
    return "completed" if metrics and metrics.get("complete") else "pruned"


def rows_of(results: Iterable[Any]) -> tuple[TrialRow, ...]:
    """All trials from Tune's result grid, the best first, those without a loss last; without their MLflow runs."""
    rows = (_row(result) for result in results)
    return tuple(sorted(rows, key=lambda row: (row.loss != row.loss, row.loss)))


def _row(result: Any) -> TrialRow:
    metrics = {"config": result.config, **(result.metrics or {})}
    trial_id = str(metrics.get("trial_id", Path(result.path).name))
    table = result.metrics_dataframe
    epochs = [] if table is None or "complete" not in table else table[~table["complete"].astype(bool)]["valid_loss"]
    row = _row_of(trial_id, "failed" if result.error is not None else outcome_of(metrics), metrics)
    return replace(row, curve=tuple(float(loss) for loss in epochs))


def _row_of(trial_id: str, outcome: str, metrics: Mapping[str, Any]) -> TrialRow:
    return TrialRow(
        trial_id=trial_id,
        outcome=outcome,
        epochs=int(metrics.get("epoch", 0)),
        loss=float(metrics.get("valid_loss", float("nan"))),
        skill=float(metrics.get("skill", float("nan"))),
        seconds=float(metrics.get("time_total_s", 0.0)),
        config=dict(metrics["config"] or {}),
        run_id="",
        blocks=blocks_of(metrics),
    )


__all__ = ["TrialRow", "TrialsCallback", "outcome_of", "rows_of", "run_trial"]
