"""What a sweep costs beside its trainings: a trial's overhead, how full the GPUs are, and how cost grows.

(a) One trial at a time, real trainings of a sweep's default size, beside the bare training function in a plain loop of
a process of its own. (b) Eight GPUs that Ray is told of and that are not there, under trials that sleep: the search,
Ray and MLflow run as always, and two cores bound nothing. (c) The same sleepers, more of them, over more raylets.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, Figures, Table
from benchmarks.markets import simulated_candles
from benchmarks.raylets import Raylets
from benchmarks.sweep_cpu import KINDS, spent
from benchmarks.sweep_trial import sleeper
from cluster.ray_local import ray_session
from cluster.settings import Settings
from mtst.adapters.sweep import SweepConfig, SweepResult, run_sweep
from observability.progress import NullProgress, NullTask, Progress
from pipelines.frames import Enrichment, training_frame
from pipelines.spec import DatasetSpec, default_spec
from pipelines.store import pair_folder

GPUS, CORES_A_NODE = 8, 4
SHARES = (1.0, 0.5)
SIZES = ((1, 32), (1, 128), (1, 256), (2, 128), (4, 128))  # nodes and trials
STAND_IN = SweepConfig(epochs=4, folds=3, embargo=16, max_windows=2000)  # epochs of two seconds, see `sleeper`


@dataclass(frozen=True)
class Bench:
    """A workspace with a market in it."""

    settings: Settings
    spec: DatasetSpec

    def sweep(self, config: SweepConfig, **options: Any) -> SweepResult:
        """Run on the cluster that is there, each sweep in a folder of its own."""
        workspace = self.settings.workspace
        storage = Path(tempfile.mkdtemp(dir=workspace.var))
        return run_sweep(config, workspace.features, self.spec, workspace.mlflow_uri, storage, **options)


class Stopwatch(NullProgress, NullTask):
    """Progress that notes when each trial ended, and this process's CPU time whenever it is told something."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.cpu: list[float] = []
        self.spent: list[dict[str, float]] = []  # CPU time of driver, trials and Ray when a trial ends

    def task(self, title: str, total: float | None = None) -> NullTask:
        return self

    def advance(self, n: float = 1.0, note: str = "") -> None:
        self.cpu.append(time.process_time())
        if not n:  # how a trial's last report is told
            self.ends.append(time.perf_counter())
            self.spent.append(spent())


def run(progress: Progress, *, trials: int = 4, parts: str = "abc") -> Figures:
    """Measure the parts asked for in a throw-away folder."""
    figures: list[Figure] = []
    tables: list[Table] = []
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, progress.task("sweeps", total=len(parts)) as task:
        bench = prepare(Path(name))
        if "a" in parts:
            made, facts["overhead"] = overhead(bench, trials)
            figures += made
            task.advance(1, "overhead")
        if "b" in parts:
            for share in SHARES:
                made, facts[f"packing_{share}"] = packing(bench, share)
                figures += made
            task.advance(1, "packing")
        if "c" in parts:
            made, table, facts["growth"] = growth(bench)
            figures += made
            tables.append(table)
            task.advance(1, "growth")
    return Figures("sweeps", tuple(figures), _bound(facts), facts, tuple(tables))


def prepare(root: Path) -> Bench:
    """Sixty days of six simulated pairs, as `data features` would leave them."""
    settings = Settings().changed(workspace={"root": root}, cluster={"dashboard": False})
    settings.workspace.make()
    candles = simulated_candles(1, 0.1, 60.0)
    spec = default_spec(tuple(candles), "15m")
    for pair, table in candles.items():
        folder = settings.workspace.features / spec.hash / pair_folder(pair)
        folder.mkdir(parents=True)
        training_frame(table, spec, Enrichment()).write_parquet(folder / "all.parquet")
    return Bench(settings, spec)


def overhead(bench: Bench, trials: int) -> tuple[list[Figure], dict[str, Any]]:
    """(a) From the end of the first trial to the end of the last, against the same trainings in a loop."""
    config = replace(STAND_IN, trials=trials, max_windows=6000, scheduler="none")
    watch = Stopwatch()
    settings = bench.settings.changed(cluster={"num_cpus": 1, "dashboard": False})
    with ray_session(settings):
        began = time.perf_counter()
        found = bench.sweep(config, progress=watch)
    choices = [row.config for row in sorted(found.trials, key=lambda row: row.trial_id)]
    bare, cpu = alone(bench, config, choices).T
    took, plain = watch.ends[-1] - watch.ends[0], float(bare[1:].sum())
    burned = float(cpu[1:].mean())
    beside = {who: (watch.spent[-1][who] - watch.spent[0][who]) / (trials - 1) for who in KINDS}
    beside["trials"] -= burned
    burnt = sum(beside.values())
    each = (took - plain) / (trials - 1)
    hourly = 3600 * (trials - 1) / took
    return [
        Figure("(a) trials, one core", hourly, "/hour", "bare loop", 3600 * (trials - 1) / plain, plain / took),
        Figure(
            "(a) overhead a trial", each, "s", "bare training", plain / (trials - 1), took / plain - 1,
            note=f"the first trial's start: {watch.ends[0] - began - float(bare[0]):.1f} s, once",
        ),
        Figure(
            "(a) the same by CPU time", burnt, "s", "bare training", burned, burnt / burned, goal=0.1, at_most=True,
            note=f"driver {beside['driver']:.2f}, trial's process {beside['trials']:.2f} beside the training, "
            f"Ray's own processes {beside['ray']:.2f}, which they take by the second, trial or none",
        ),
    ], {"sweep_s": found.seconds, "ends_s": [end - began for end in watch.ends], "cpu_s": watch.spent,
        "bare_s": bare.tolist(), "bare_cpu_s": cpu.tolist()}  # fmt: skip


def alone(bench: Bench, config: SweepConfig, choices: Sequence[dict[str, Any]]) -> Any:
    """Seconds and CPU of the bare training function in a process of its own, a worker's settings, [trials, 2]."""
    words = [str(bench.settings.workspace.features), bench.spec.to_json(), json.dumps(asdict(config))]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.sweep_trial", *words, json.dumps(choices)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=Path(__file__).parent.parent, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return np.asarray(json.loads(done.stdout.splitlines()[-1]))


def packing(bench: Bench, share: float) -> tuple[list[Figure], dict[str, Any]]:
    """(b) Trials that hold part of a GPU: the time that they slept, of the time that the GPUs were there."""
    places = int(GPUS / share)
    config = replace(STAND_IN, trials=4 * places, gpus_per_trial=share)
    settings = bench.settings.changed(cluster={"num_cpus": places, "num_gpus": GPUS, "dashboard": False})
    with ray_session(settings):
        found = bench.sweep(config, trial=sleeper)
    spans = spans_of(found)
    # While all places could be taken: from the start of the last of the first ones until nobody waits any more.
    starts = sorted(begin for begin, _ in spans)
    window = (starts[places - 1], starts[-1])
    used = used_share(spans, window, places)
    whole = used_share(spans, (starts[0], max(end for _, end in spans)), places)
    note = f"{len(spans)} trials at {places} places; {whole:.1%} from the first start to the last end"
    figure = Figure(f"(b) {GPUS} GPUs, {share:g} a trial, in use", 100 * used, "%", goal=95, goal_of="value", note=note)
    return [figure], {"spans": spans, "window": window, "whole": whole}


def spans_of(found: SweepResult) -> list[tuple[float, float]]:
    """When each trial began and last reported, by its own clock."""
    return [(line["began"], line["seen"]) for line in last_lines(found)]


def last_lines(found: SweepResult) -> list[dict[str, Any]]:
    """Each trial's last report."""
    return [json.loads(file.read_text().splitlines()[-1]) for file in found.folder.glob("*/result.json")]


def used_share(spans: Sequence[tuple[float, float]], window: tuple[float, float], places: int) -> float:
    """Share of `places` x window in which a trial ran."""
    low, high = window
    busy = sum(max(0.0, min(end, high) - max(begin, low)) for begin, end in spans)
    return busy / (places * (high - low))


def growth(bench: Bench) -> tuple[list[Figure], Table, list[dict[str, float]]]:
    """(c) What the driver spends a trial, and how long a place waits between trials, by trials and nodes."""
    rows = [cost(bench, nodes, trials) for nodes, trials in SIZES]
    names = ("nodes", "places", "trials", "processes", "seconds", "driver's CPU a trial", "a place waits", "a sleep")
    cells = tuple(
        (
            *(f"{row[name]:g}" for name in names[:4]),
            f"{row['seconds']:.1f}",
            *(f"{1e3 * row[name]:.0f} ms" for name in ("cpu", "waits", "sleeps")),
        )
        for row in rows
    )
    one, same = [row for row in rows if row["nodes"] == 1], [row for row in rows if row["trials"] == SIZES[-1][1]]
    by_trials, by_nodes = 1 + exponent(one, "trials", "cpu"), exponent(same, "nodes", "cpu")
    unit: dict[str, Any] = {"unit": "", "at_most": True, "goal_of": "value"}
    return (
        [
            Figure(
                "(c) cost of a sweep, exponent by trials", by_trials, **unit, goal=1.1, note="1: each costs the same"
            ),
            Figure("(c) cost of a sweep, exponent by nodes", by_nodes, **unit, goal=0.1, note="0: nodes cost nothing"),
        ],
        Table("the search's own cost a trial", names, cells),
        rows,
    )


def cost(bench: Bench, nodes: int, trials: int) -> dict[str, float]:
    """One sweep of sleepers."""
    watch = Stopwatch()
    with Raylets(bench.settings, nodes, CORES_A_NODE):
        config = replace(STAND_IN, trials=trials, epochs=2, max_windows=200)
        found = bench.sweep(config, trial=sleeper, progress=watch)
    spans, places = spans_of(found), nodes * CORES_A_NODE
    starts = sorted(begin for begin, _ in spans)
    window = (starts[places - 1], starts[-1])
    idle = (1 - used_share(spans, window, places)) * places * (window[1] - window[0])
    return {
        "nodes": nodes, "places": places, "trials": trials, "seconds": found.seconds,
        "processes": len({line["pid"] for line in last_lines(found)}),
        # Between the first and the last report, without what is paid once: imports, the database.
        "cpu": (watch.cpu[-1] - watch.cpu[0]) / trials,
        "waits": idle / (trials - places), "sleeps": sum(end - begin for begin, end in spans) / trials,
    }  # fmt: skip


def exponent(rows: Sequence[dict[str, float]], by: str, of: str) -> float:
    """k of the fitted of ~ by ** k."""
    return float(np.polyfit(np.log([row[by] for row in rows]), np.log([row[of] for row in rows]), 1)[0])


def _bound(facts: dict[str, Any]) -> str:
    """What is left beside the trainings, in words."""
    texts = []
    if "overhead" in facts:
        texts.append("a: a report and a checkpoint an epoch, and a new start of the training function a trial")
    if "growth" in facts:
        most = max(facts["growth"], key=lambda row: row["trials"])
        rate = 1 / most["cpu"]
        texts.append(f"c: Tune's loop and MLflow's thread share one process, so at most {rate:.0f} trials a second")
    return "; ".join(texts)
