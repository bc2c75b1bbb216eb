"""What features cost: beside pandas and TA-Lib, beside a plain loop, live, and in memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.features_peer import STEP, simulated
from benchmarks.figures import Figure, Figures
from cluster.ray_local import ray_session
from cluster.settings import Settings
from observability.progress import NullProgress, Progress
from pipelines.adapters.ray_features import WORKER_ENVIRONMENT, build_features
from pipelines.frames import feature_frames
from pipelines.spec import DatasetSpec, default_spec
from pipelines.store import CandleStore, SeriesKey

EXCHANGE, YEAR = "bench", 35_040
LOOP = """
import json, sys, time
from benchmarks.peak import peak_mib
from pipelines.blobs import Blobs
from pipelines.partitions import build_partition, plan
from pipelines.spec import DatasetSpec
from pipelines.store import CandleStore
store, spec, out = CandleStore(sys.argv[1]), DatasetSpec.from_json(sys.argv[2]), Blobs.at(sys.argv[3])
started = time.perf_counter()
rows = sum(build_partition(store, "bench", spec, out, part).rows for part in plan(store, "bench", spec))
took = time.perf_counter() - started
print(json.dumps([rows, took, peak_mib()]))
"""
STAGES = """
import json, sys, time
from pipelines.frames import feature_frame, training_frame, read_enrichment
from pipelines.partitions import plan, reach
from pipelines.series import to_parquet
from pipelines.spec import DatasetSpec
from pipelines.store import CandleStore, SeriesKey
store, spec = CandleStore(sys.argv[1]), DatasetSpec.from_json(sys.argv[2])
parts = list(plan(store, "bench", spec))[:12]
spent = dict.fromkeys(("read", "features", "labels", "encode"), 0.0)
for part in parts:
    marks = [time.perf_counter()]
    candles = store.read(SeriesKey("bench", "ohlcv", part.pair, spec.timeframe), *reach(spec, part))
    marks.append(time.perf_counter())
    extra = read_enrichment(store, spec, "bench", part.pair)
    feature_frame(candles, spec, extra)
    marks.append(time.perf_counter())
    frame = training_frame(candles, spec, extra)
    marks.append(time.perf_counter())
    to_parquet(frame)
    marks.append(time.perf_counter())
    read, features, both, encode = (after - before for before, after in zip(marks, marks[1:]))
    for name, value in zip(spent, (read, features, max(both - features, 0.0), encode)):
        spent[name] += value
print(json.dumps(spent))
"""


def fill(root: Path, pairs: int, rows: int) -> DatasetSpec:
    """A store of simulated 15m candles and the default data set over it."""
    store, names = CandleStore(str(root)), tuple(f"P{number:02}/USDT" for number in range(pairs))
    for number, pair in enumerate(names):
        store.write(SeriesKey(EXCHANGE, "ohlcv", pair, "15m"), simulated(rows, number))
    return default_spec(names, "15m")


def alone(code: str, *arguments: str) -> Any:
    """What a Python process of a worker's settings prints as JSON."""
    return beside(code, arguments)[0]


def beside(code: str, *runs: tuple[str, ...]) -> list[Any]:
    """What such processes print that run at the same time, one for each tuple of arguments."""
    place = Path(__file__).parent.parent
    environment = {**os.environ, **WORKER_ENVIRONMENT, "PYTHONPATH": str(place)}
    command = [sys.executable, *(("-c", code) if "\n" in code else ("-m", code))]
    started = [
        subprocess.Popen([*command, *each], env=environment, cwd=place, stdout=subprocess.PIPE, text=True)
        for each in runs
    ]
    said = [process.communicate()[0] for process in started]
    for process in started:
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
    return [json.loads(text.splitlines()[-1]) for text in said]


def with_ray(root: Path, spec: DatasetSpec, out: Path, cores: int) -> tuple[float, float]:
    """Seconds that the build takes on a Ray cluster of so many cores, its start left aside, and its workers' MiB."""
    # One workspace for all calls: Ray reads its token once a process, and every workspace has a token of its own.
    workspace = {"root": root.parent / "ray"}
    settings = Settings().changed(workspace=workspace, cluster={"num_cpus": cores, "dashboard": False})
    settings.workspace.make()
    with ray_session(settings):
        # Two partitions first: a worker's start and imports are paid once a cluster, not once a build.
        first = DatasetSpec(spec.pairs[:2], spec.timeframe, spec.features, spec.horizons, spec.lookback)
        build_features(str(root), EXCHANGE, first, str(out / "first"), NullProgress())
        with peak_of_workers() as peak:
            started = time.perf_counter()
            build_features(str(root), EXCHANGE, spec, str(out / "all"), NullProgress())
            took = time.perf_counter() - started
    return took, max(peak, default=0.0)


def two_loops(raw: Path, spec: DatasetSpec, out: Path) -> float:
    """Seconds that two plain loops take for half of the pairs each, at the same time: what the machine itself gives."""
    middle = len(spec.pairs) // 2
    halves = [
        DatasetSpec(pairs, spec.timeframe, spec.features, spec.horizons, spec.lookback)
        for pairs in (spec.pairs[:middle], spec.pairs[middle:])
    ]
    runs = [(str(raw), half.to_json(), str(out / f"half{number}")) for number, half in enumerate(halves)]
    return float(max(took for _, took, _ in beside(LOOP, *runs)))


@contextmanager
def peak_of_workers() -> Iterator[list[float]]:
    """Samples of the MiB that Ray's busy workers hold together, once a second: looking costs CPU, too."""
    samples: list[float] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(1.0):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.name().startswith("ray::"):
                        total += process.memory_info().rss
                except psutil.Error:
                    continue
            samples.append(total / 2**20)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def columns(rounds: int, rows: int) -> tuple[list[Figure], dict[str, Any]]:
    """(a) CPU time a row beside pandas and TA-Lib."""
    took = alone("benchmarks.features_peer", str(rows), str(rounds))
    names = {"default": "16 default columns", "wide": "33 columns with TA-Lib's and the market's"}
    return [
        Figure(
            f"(a) {names[name]}, CPU", one["ours"], "ns/row", "pandas + TA-Lib", one["pandas"],
            one["pandas"] / one["ours"], goal=10,
        )
        for name, one in took.items()
    ], took  # fmt: skip


def live(pairs: int, rounds: int = 60) -> Figure:
    """(c) One update of many pairs: each pair's last candles in, its newest row out."""
    names = tuple(f"P{number:02}/USDT" for number in range(pairs))
    spec = default_spec(names, "15m")
    tables = {pair: simulated(spec.history + rounds, number) for number, pair in enumerate(names)}
    times = []
    for end in range(rounds):
        seen = {pair: table[end : end + spec.history] for pair, table in tables.items()}
        started = time.perf_counter()
        feature_frames(seen, spec)
        times.append((time.perf_counter() - started) * 1e3)
    times = sorted(times[5:])
    note = f"p99 {times[int(len(times) * 0.99)]:.1f} ms, {spec.history} candles a pair"
    middle = times[len(times) // 2]
    name = f"(c) live update of {pairs} pairs, p50"
    return Figure(name, middle, "ms", goal=50, at_most=True, goal_of="value", note=note)


def a_round(folder: Path, spec: DatasetSpec) -> dict[str, float]:
    """Every way once over the same partitions; what it wrote is gone before the next, on the disk as well.

    Keys: `made` rows; seconds of one plain `loop`, of `two` at once, of `ray_1` and `ray_2`; their workers' MiB.
    """
    raw, out = folder / "raw", folder / "out"

    def after(step: Any) -> Any:
        shutil.rmtree(out, ignore_errors=True)
        os.sync()  # pages still to be written would be the next one's burden
        return step()

    made, loop, _ = after(lambda: alone(LOOP, str(raw), spec.to_json(), str(out)))
    one, peak_one = after(lambda: with_ray(raw, spec, out, 1))
    two, peak_two = after(lambda: with_ray(raw, spec, out, 2))
    both = after(lambda: two_loops(raw, spec, out))
    return {"made": made, "loop": loop, "two": both, "ray_1": one, "ray_2": two, "MiB_1": peak_one, "MiB_2": peak_two}


def whole_path(folder: Path, pairs: int, rows: int, rounds: int = 3) -> tuple[list[Figure], dict[str, Any]]:
    """(b) Ray Data on one and two cores beside plain loops over the same partitions.

    The best of some rounds each, since a shared machine is not equally free at all times.
    """
    spec = fill(folder / "raw", pairs, rows)
    turns = [a_round(folder, spec) for _ in range(rounds)]
    best = {name: min(turn[name] for turn in turns) for name in turns[0]}
    made, plain, one, two = best["made"], best["loop"], best["ray_1"], best["ray_2"]
    ceiling = plain / 2 / best["two"]
    stages = alone(STAGES, str(folder / "raw"), spec.to_json())
    copy = bandwidth()
    # Six columns in, and out what the file holds; what columns in between cost on top is what caches are for.
    moved = 8 * (6 + 2 + len(spec.columns) + len(spec.labels) + 1) * made / plain
    size = f"{pairs} pairs x {rows:,} rows"
    return [
        Figure(f"(b) Ray Data, 1 worker, {size}", one, "s", "plain loop", plain, one / plain, goal=1.15, at_most=True),
        Figure(
            "(b) parallel efficiency, 2 workers", one / two / 2, "", "two plain loops at once", ceiling,
            one / two / 2 / ceiling, goal=0.85, goal_of="value", note=f"{two:.1f} s",
        ),
        Figure("rows a second, plain loop, one core", made / plain, "rows/s"),
        Figure("bytes in and out, plain loop", moved / 1e9, "GB/s", "copy", copy, moved / 1e9 / copy),
    ], {"rounds": turns, "stages_s": stages}  # fmt: skip


def memory(folder: Path, pairs: int = 2) -> list[Figure]:
    """(d) Peak memory over 1x, 4x and 16x the rows of one partition a pair."""
    figures, peaks = [], []
    for times in (1, 4, 16):
        root = folder / f"x{times}"
        spec = fill(root / "raw", pairs, times * YEAR)
        peaks.append(alone(LOOP, str(root / "raw"), spec.to_json(), str(root / "out"))[2])
        figures.append(
            Figure(
                f"(d) peak memory of a worker, {times}x rows", peaks[-1], "MiB", "1x", peaks[0], peaks[-1] / peaks[0],
                goal=2.0, at_most=True, note=f"{pairs * times * YEAR:,} rows",
            )
        )  # fmt: skip
        shutil.rmtree(root)
    return figures


def bandwidth(size: int = 2**24) -> float:
    """GB/s that one core copies, reading and writing counted."""
    source, target = np.ones(size), np.empty(size)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - started)
    return 16 * size / best / 1e9


def run(progress: Progress, *, pairs: int = 50, rows: int = 200_000, rounds: int = 5, parts: str = "abcd") -> Figures:
    """Measure the parts asked for in a throw-away folder."""
    figures: list[Figure] = []
    facts: dict[str, Any] = {"step_ms": STEP}
    with tempfile.TemporaryDirectory() as name, progress.task("features", total=len(parts)) as task:
        folder = Path(name)
        if "a" in parts:
            made, facts["columns"] = columns(rounds, min(rows, 200_000))
            figures += made
            task.advance(1, "columns")
        if "c" in parts:
            figures.append(live(100))
            task.advance(1, "live")
        if "b" in parts:
            made, facts["whole"] = whole_path(folder, pairs, rows)
            figures += made
            task.advance(1, "whole path")
        if "d" in parts:
            figures += memory(folder)
            task.advance(1, "memory")
    return Figures("features", tuple(figures), _bound(facts), facts)


def _bound(facts: dict[str, Any]) -> str:
    stages = facts.get("whole", {}).get("stages_s")
    text = "columns: passes over memory that the cache no longer holds, and logarithms"
    if not stages:
        return text
    total = sum(stages.values())
    shares = ", ".join(f"{name} {value / total:.0%}" for name, value in stages.items())
    return f"{text}; whole path: {shares} of a partition's time"
