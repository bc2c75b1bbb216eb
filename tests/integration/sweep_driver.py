"""A driver process for sweep tests: Ray keeps one token a process, and one test wants its driver killed.

python -m tests.integration.sweep_driver WORKSPACE whole|cut|resume|population
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

import psutil

from cluster.console import plain
from cluster.ray_local import ray_session
from cluster.settings import Settings
from mtst.adapters.sweep import SweepConfig, SweepResult, run_sweep
from mtst.adapters.walkforward import JudgeConfig, judge
from tests.unit.mtst_serving.serving_kit import small_spec, write_features

CONFIG = SweepConfig(trials=4, epochs=3, max_windows=1500, max_valid=500, folds=2, small=True)
POPULATION = replace(CONFIG, trials=4, epochs=4, scheduler="pbt")
ROWS = 2500
TRIAL = "ImplicitFunc"  # what Tune calls a trial's actor


class Watcher:
    """Progress that notes what it is told and how nice Ray's workers then are, and acts once at a count."""

    def __init__(self, *acts: tuple[float, Callable[[], bool]], title: str = TRIAL) -> None:
        self.notes: list[str] = []
        self.title, self.nice = title, dict[int, int]()
        self.count = 0.0
        self.acts, self.acted = list(acts), 0

    def task(self, title: str, total: float | None = None) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def done(self, note: str = "") -> None:
        self.notes.append(note)

    def advance(self, n: float = 1.0, note: str = "") -> None:
        self.count += n
        self.notes.append(note)
        self.nice |= {each.pid: each.nice() for each in workers(self.title)}
        for each in [act for act in self.acts if self.count >= act[0] and act[1]()]:
            self.acts.remove(each)
            self.acted += 1


def kill_driver() -> bool:
    os.kill(os.getpid(), signal.SIGKILL)
    return True


def kill_worker() -> bool:
    """kill -9 one trial's process; false while there is none."""
    for process in workers(TRIAL):
        process.kill()
        return True
    return False


def workers(title: str) -> list[psutil.Process]:
    """Ray's worker processes that do this now."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found


def main(root: Path, mode: str) -> None:
    settings = Settings().changed(
        workspace={"root": root}, cluster={"num_cpus": 2, "dashboard": False}, market={"timeframe": "15m"}
    )
    settings.workspace.make()
    spec = small_spec()
    if not settings.workspace.features.joinpath(spec.hash).is_dir():
        write_features(settings.workspace.features, spec, ROWS)
    acts = {"whole": [(0.0, kill_worker)], "cut": [(1.4, kill_driver)]}
    watcher = Watcher(*acts.get(mode, []))
    with ray_session(settings):
        result = run_sweep(
            POPULATION if mode == "population" else CONFIG,
            settings.workspace.features,
            spec,
            settings.workspace.mlflow_uri,
            settings.workspace.var / "tune",
            progress=watcher,
            resume=mode == "resume",
        )
        facts = facts_of(result, watcher)
        if mode == "whole":
            judged = judge(
                result.best_config,
                settings.workspace.features,
                spec,
                JudgeConfig(folds=2),
                settings.workspace.models / "evaluation",
                progress=(judging := Watcher(title="ray::_")),
            )
            facts["nice_of_folds"] = list(judging.nice.values())
            assert judged.final is not None
            facts["final"] = {**judged.final.scaler, "weights": sorted(judged.final.weights)}
            facts["folds"] = [vars(fold) for fold in judged.folds]
            facts["windows"] = judged.evaluation.n_windows
    (root / f"{mode}.json").write_text(json.dumps(facts, default=str))


def facts_of(result: SweepResult, watcher: Watcher) -> dict[str, object]:
    watched = {"notes": watcher.notes, "count": watcher.count, "acted": watcher.acted}
    return {**plain(result), **watched, "nice": list(watcher.nice.values())}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
