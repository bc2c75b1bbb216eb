"""What a sweep leaves in its folder: who drives it, which MLflow run it writes to, and what it found."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from mtst.adapters.tracking import Tracker
from observability.errors import RegistryError
from observability.files import write_whole
from observability.logging import get_logger

if TYPE_CHECKING:
    from pipelines.spec import DatasetSpec

STATE_FILE = "sweep.json"


def open_sweep(
    config: Mapping[str, Any], spec: DatasetSpec, tracker: Tracker, storage_dir: Path, *, resume: bool
) -> tuple[Path, str]:
    """The sweep's folder and parent run: of the newest unfinished one when resuming, else fresh ones.

    A fresh one ends the MLflow runs of sweeps whose driver has died here; they can be resumed all the same.
    """
    if resume:
        for file, state in _states(storage_dir):
            if state["spec_hash"] == spec.hash and state["config"] == config and not state["done"]:
                write_whole(file, json.dumps({**state, "driver": _driver(), "closed": False}, indent=1))
                return file.parent, str(state["parent_run_id"])
    else:
        _end_abandoned(tracker, storage_dir)
    folder = storage_dir / f"sweep-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
    folder.mkdir(parents=True)
    tags = {"kind": "sweep", "spec_hash": spec.hash, "timeframe": spec.timeframe, "folder": str(folder)}
    parent = tracker.start(folder.name, tags=tags)
    tracker.log(parent, params={**config, "pairs": ",".join(spec.pairs), "features": len(spec.columns)})
    tracker.log_text(parent, spec.to_json(), "spec.json")
    state = {"spec_hash": spec.hash, "config": dict(config), "parent_run_id": parent, "done": False}
    write_whole(folder / STATE_FILE, json.dumps({**state, "driver": _driver()}, indent=1))
    return folder, parent


def finish_sweep(folder: Path, **facts: Any) -> None:
    """Note what was found; only now does the sweep count as done."""
    state = json.loads((folder / STATE_FILE).read_text())
    write_whole(folder / STATE_FILE, json.dumps({**state, "done": True, **facts}, indent=1))


def latest_sweep(storage_dir: Path, spec_hash: str) -> dict[str, Any] | None:
    """State of the newest finished sweep of a data set: best_config, parent_run_id, config, trials,
    overfitting; None if there is none."""
    return next((s for _, s in _states(storage_dir) if s["spec_hash"] == spec_hash and s["done"]), None)


def _states(storage_dir: Path) -> list[tuple[Path, dict[str, Any]]]:
    """All sweeps there, the newest first."""
    files = sorted(storage_dir.glob(f"*/{STATE_FILE}"), reverse=True)
    return [(file, json.loads(file.read_text())) for file in files]


def _end_abandoned(tracker: Tracker, storage_dir: Path) -> None:
    for file, state in _states(storage_dir):
        if state["done"] or state.get("closed") or _lives(state.get("driver")):
            continue
        parent = str(state["parent_run_id"])
        try:
            tracker.close_open_runs(parent, "the sweep's driver died")
            tracker.end(parent, "KILLED")
        except RegistryError as error:  # another MLflow's, or its database is gone
            get_logger(__name__).warning(
                "an abandoned sweep cannot be ended", folder=str(file.parent), error=str(error)
            )
        write_whole(file, json.dumps({**state, "closed": True}, indent=1))


def _driver() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def _lives(driver: Mapping[str, Any] | None) -> bool:
    """Whether a sweep's driver may still be at work; of another machine's nothing is known."""
    if driver is None or driver["host"] != socket.gethostname():
        return True
    try:
        return bool(psutil.Process(driver["pid"]).create_time() == driver["started"])
    except psutil.Error:
        return False
