"""Sweeps that suffer, in a driver of their own: Ray keeps one token a process, and one test wants its driver killed.

python -m tests.fault.sweep_driver ROOT SCENARIO...

A scenario is calm, worker (a trial's process is killed while MLflow's database is locked), disk (a small disk at
ROOT/small, mounted by the caller, is full for most of the sweep), server (MLflow's server, named in the environment,
answers no more), cut (the driver is killed), resume, node (one of two is killed), or gone (MLflow's database is locked
for longer than a sweep waits, so that it fails and is resumed).
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from benchmarks.raylets import Raylets
from cluster.ray_local import ray_session
from cluster.settings import Settings
from mtst.adapters import sweep
from mtst.adapters.sweep import SweepConfig, run_sweep
from observability.errors import RegistryError
from tests.integration.sweep_driver import Watcher, facts_of, kill_driver, kill_worker
from tests.unit.mtst_serving.serving_kit import small_spec, write_features

CONFIG = SweepConfig(trials=5, epochs=4, max_windows=4000, max_valid=800, folds=2, small=True, scheduler="none")
ROWS = 4000
AWAY_S = 30.0
Acts = list[tuple[float, Callable[[], bool]]]


def main(root: Path, scenarios: list[str]) -> None:
    settings = Settings().changed(workspace={"root": root}, cluster={"num_cpus": 2, "dashboard": False})
    settings.workspace.make()
    if not settings.workspace.features.joinpath(small_spec().hash).is_dir():
        write_features(settings.workspace.features, small_spec(), ROWS)
    with Raylets(settings) if scenarios == ["node"] else ray_session(settings) as session:
        for scenario in scenarios:
            storage = root / ("small" if scenario == "disk" else f"tune-{scenario.replace('resume', 'cut')}")
            watcher = Watcher(*acts_of(scenario, settings, storage, session))
            go = partial(
                run_sweep,
                CONFIG,
                settings.workspace.features,
                small_spec(),
                os.environ["MLFLOW_SERVER"] if scenario == "server" else settings.workspace.mlflow_uri,
                storage,
                progress=watcher,
            )
            if scenario == "gone":
                fail(go)
            result = go(resume=scenario in ("resume", "gone"))
            left = {"crashes": len(list(storage.rglob("error.txt"))), "checkpoints": whole_checkpoints(storage)}
            (root / f"{scenario}.json").write_text(json.dumps({**facts_of(result, watcher), **left}, default=str))


def acts_of(scenario: str, settings: Settings, storage: Path, session: object) -> Acts:
    """What goes wrong, and after how many trials' worth of epochs."""
    filler = storage / "filler"
    acts: dict[str, Acts] = {
        "worker": [(0.5, lambda: lock(settings.workspace.mlruns / "mlflow.db")), (0.75, kill_worker)],
        "disk": [(0.5, lambda: fill(filler)), (4.0, lambda: filler.unlink() is None)],
        "server": [(0.5, lambda: stop_server(int(os.environ["MLFLOW_SERVER_PID"])))],
        "gone": [(0.5, lambda: lock(settings.workspace.mlruns / "mlflow.db"))],
        "cut": [(1.5, kill_driver)],
    }
    return [(1.0, session.kill)] if isinstance(session, Raylets) else acts.get(scenario, [])


def fail(go: Callable[[], object]) -> None:
    """A sweep without patience; after it MLflow is there again."""
    sweep.PATIENCE_S = 1.0
    with pytest.raises(RegistryError, match="MLflow is away"):
        go()
    sweep.PATIENCE_S = 60.0


def whole_checkpoints(storage: Path) -> int:
    sizes = [file.stat().st_size for file in storage.rglob("state.safetensors")]
    return sum(size > 4096 for size in sizes)


def lock(database: Path) -> bool:
    """Hold a database's write lock for a while, as a stuck process would."""

    def hold() -> None:
        with sqlite3.connect(database, timeout=60) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            held.set()
            time.sleep(AWAY_S)
        connection.close()

    held = threading.Event()
    threading.Thread(target=hold).start()
    return held.wait(60)


def stop_server(pid: int) -> bool:
    """Stop it, workers too: it takes requests and answers none. Who started it kills it and starts another."""
    for process in (*psutil.Process(pid).children(recursive=True), psutil.Process(pid)):
        process.suspend()
    return True


def fill(file: Path) -> bool:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as target:
        try:
            while True:
                target.write(b"\0" * 4096)
        except OSError:
            return True


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
