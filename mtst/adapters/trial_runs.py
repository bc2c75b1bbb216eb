"""The MLflow runs of a sweep's trials: one thread writes them, in order, beside the search and never in its way.

An MLflow that is away therefore costs the search nothing. What a driver that died had not written yet is made up for
from Tune's own results (`settle`), so after a sweep every trial has its run, whole and ended.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtst.adapters.tracking import Tracker
from mtst.curves import Curves, loss_curves
from observability.errors import RegistryError

ENDED = "outcome"  # the tag that a run gets last: a run without it was cut off
STATUS = {"completed": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
HURRY_S = 5.0


@dataclass(frozen=True)
class TrialRow:
    """One trial: `outcome` is completed, pruned (ended early by ASHA or the budget) or failed; loss NaN if none.

    `curve` is the validation loss of each epoch, `blocks` the last one by block of time (see `mtst.blocks`).
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


class TrialRuns:
    """Runs nested under `parent`; those of an earlier driver are taken up again."""

    def __init__(self, tracker: Tracker, parent: str) -> None:
        self._tracker, self._parent = tracker, parent
        self._ids = {trial: run.info.run_id for trial, run in self._known().items()}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._written: list[Future[None]] = []
        self._gave_up = False
        self._history: dict[str, dict[str, list[tuple[int, float]]]] = {}

    def start(self, trial_id: str, config: Mapping[str, Any]) -> None:
        """Open the trial's run, unless it has one."""
        self._later(lambda: self._open(trial_id, config))

    def epoch(self, trial_id: str, metrics: Mapping[str, float], step: int) -> None:
        """Add an epoch's numbers to its curves."""
        for name, value in metrics.items():
            self._history.setdefault(trial_id, {}).setdefault(name, []).append((step, value))
        self._later(lambda: self._tracker.log(self._ids[trial_id], metrics=metrics, step=step))

    def end(self, row: TrialRow, error: str = "") -> None:
        """Close the run, with its plot and the settings it ended with (a population's members change theirs)."""
        curves = self._history.pop(row.trial_id, {})
        self._later(lambda: self._close(row, curves, error))

    def finish(self, rows: Iterable[TrialRow]) -> tuple[TrialRow, ...]:
        """Wait until all is written, make up for what an earlier driver left out, and name each trial's run.

        Raises:
            RegistryError: MLflow refused something, or stayed away for longer than the tracker's patience.
        """
        self._writer.shutdown()
        for each in self._written:
            each.result()
        ended = {trial for trial, run in self._known().items() if ENDED in run.data.tags}
        rows = tuple(rows)
        for row in rows:
            if row.trial_id not in ended:
                self._make_up_for(row)
        return tuple(replace(row, run_id=self._ids[row.trial_id]) for row in rows)

    def abandon(self) -> None:
        """Write no more of what waits: the sweep failed, and somebody waits for its sentence."""
        self._tracker.patience_s = HURRY_S
        self._writer.shutdown(cancel_futures=True)

    def _known(self) -> dict[str, Any]:
        runs = self._tracker.children(self._parent)
        return {run.data.tags["trial_id"]: run for run in runs if "trial_id" in run.data.tags}

    def _later(self, action: Callable[[], None]) -> None:
        self._written = [each for each in self._written if not each.done() or each.exception() is not None]
        self._written.append(self._writer.submit(self._write, action))

    def _write(self, action: Callable[[], None]) -> None:
        if self._gave_up:
            return  # it was waited for long enough: `finish` tells, and a resumed sweep makes up for all of it
        try:
            action()
        except RegistryError:
            self._gave_up = True
            raise

    def _make_up_for(self, row: TrialRow) -> None:
        curve = list(enumerate(row.curve, start=1))
        self._open(row.trial_id, row.config)
        there = self._tracker.steps(self._ids[row.trial_id], "valid_loss")
        for step, value in curve:
            if step not in there:
                self._tracker.log(self._ids[row.trial_id], metrics={"valid_loss": value}, step=step)
        self._close(row, {"valid_loss": curve})

    def _open(self, trial_id: str, config: Mapping[str, Any]) -> None:
        if trial_id in self._ids:
            return
        tags = {"kind": "trial", "trial_id": trial_id}
        self._ids[trial_id] = self._tracker.start(f"trial-{trial_id}", parent=self._parent, tags=tags)
        self._tracker.log(self._ids[trial_id], params=config)

    def _close(self, row: TrialRow, curves: Curves, error: str = "") -> None:
        run_id = self._ids[row.trial_id]
        with tempfile.TemporaryDirectory(prefix="mtst-run-") as name:
            folder = Path(name)
            (folder / "curves.svg").write_text(loss_curves(curves))
            (folder / "config.json").write_text(json.dumps(row.config, indent=1))
            self._tracker.log_folder(run_id, folder, "trial")
        tags = {ENDED: row.outcome, **({"error": error} if error else {})}
        self._tracker.log(run_id, metrics={"final_loss": row.loss}, tags=tags)
        self._tracker.end(run_id, STATUS[row.outcome])
