"""How fast training is: this project's networks beside a plain PatchTST and neuralforecast's, process by process.

Sides take turns, each in a process of its own with the same threads and allocator settings, for several rounds. A
side's figure is the fastest tenth of its steps, as what else runs on the machine only ever slows one down; the same by
processor time stands beside it, which a busy machine hardly changes. Beside the second thread's gain stands a ceiling:
what two trainings of one thread reach at once, which share nothing but the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, Figures
from observability.errors import SettingsError
from observability.progress import Progress

BATCH, ROOT = 128, Path(__file__).parent.parent
TWICE = "two trainings"
CEILING = "the machine's ceiling: they share no step, no lock and no weights"
Found = dict[tuple[str, int], list[dict[str, Any]]]  # by side and threads, what each of its processes printed
ADVICE = (
    "not measured: neuralforecast cannot be locked with this project; make an environment of its own "
    "(uv venv nf; uv pip install --python nf neuralforecast) and pass --neuralforecast-python nf/bin/python"
)


def run(
    progress: Progress, *, rounds: int = 3, seconds: float = 3.0, neuralforecast_python: Path | None = None
) -> Figures:
    """Goals: 2,000 windows/s on one thread and 1.8 times that on two, 0.6 GB, 0.5 ms a window; 40/s at paper size."""
    sides = [("mtst", 1), ("patchtst", 1), ("paper", 1), ("mtst", 2), (TWICE, 1), ("patchtst", 2), ("gemm", 1)]
    if neuralforecast_python is not None:
        sides.append(("neuralforecast", 1))
    found: Found = {side: [] for side in sides}
    with progress.task("training speed", total=rounds * len(sides)) as task:
        for number in range(rounds):
            for kind, threads in sides:
                if kind == "neuralforecast" and number:
                    continue  # one step of it takes many seconds
                found[kind, threads] += _turn(kind, threads, seconds, neuralforecast_python)
                task.advance(1, f"round {number + 1}: {kind}, {threads} threads")
    return figures_of(found)


def figures_of(found: Found) -> Figures:
    """All rows, from what the children printed."""
    speed = {side: _speed(rows) for side, rows in found.items() if side[0] not in ("gemm", TWICE)}
    peak = max(row["gflops"] for row in found["gemm", 1])
    ours, peer = speed["mtst", 1], speed["patchtst", 1]
    small, paper = found["mtst", 1], found["paper", 1]
    share = {kind: found[kind, 1][0]["flop"] * speed[kind, 1] / BATCH / 1e9 / peak for kind in ("mtst", "paper")}
    memory = max(row["peak_gb"] for row in small)
    latency = min(row["latency_ms"] for row in small)
    peer_latency = min(row["latency_ms"] for row in found["patchtst", 1])
    by_cpu = {kind: _speed(found[kind, 1], "cpu_seconds") for kind in ("mtst", "patchtst", "paper")}
    size = f"by processor time {by_cpu['mtst']:.0f} and {by_cpu['patchtst']:.0f}; "
    size += f"{small[0]['parameters']:,} parameters, {share['mtst']:.0%} of the bf16 GEMM peak of {peak:.0f} GFLOP/s"
    both = sum(_speed(found[TWICE, 1][number::2]) for number in (0, 1))
    used = max(row["peak_gb"] for row in paper)
    big = f"by processor time {by_cpu['paper']:.0f}; "
    big += f"{paper[0]['parameters']:,} parameters, {used:.2f} GB, {share['paper']:.0%} of peak"
    unit = "windows/s"
    rows = [
        Figure("MTST, 1 thread", ours, unit, "PatchTST", peer, ours / peer, 2000.0, goal_of="value", note=size),
        Figure(
            "MTST, 2 threads", speed["mtst", 2], unit, "1 thread", ours, speed["mtst", 2] / ours, 1.8,
            note=f"PatchTST on 2: {speed['patchtst', 2]:.0f}",
        ),
        Figure("MTST, two trainings at once", both, unit, "1 thread", ours, both / ours, note=CEILING),
        Figure("paper's size, 1 thread", speed["paper", 1], unit, goal=40.0, goal_of="value", note=big),
        Figure(
            "peak memory", memory, "GB", "PatchTST", max(r["peak_gb"] for r in found["patchtst", 1]), goal=0.6,
            at_most=True, goal_of="value",
        ),
        Figure(
            "one window", latency, "ms", "PatchTST", peer_latency, latency / peer_latency, 0.5, at_most=True,
            goal_of="value",
        ),
    ]  # fmt: skip
    other = speed.get(("neuralforecast", 1))
    note = ADVICE if other is None else f"{found['neuralforecast', 1][0]['parameters']:,} parameters, its defaults"
    rows.append(
        Figure("MTST beside neuralforecast", ours, unit, "PatchTST of it", other, other and ours / other, note=note)
    )
    small_shares, big_shares = small[-1]["shares"], paper[-1]["shares"]
    bound = f"small: {_words(small_shares)}; paper's size: {_words(big_shares)}; two threads: "
    bound += f"{speed['mtst', 2] / ours:.2f} of the {both / ours:.2f} times that two trainings at once reach here"
    facts = {f"{kind}, {threads}": rows for (kind, threads), rows in found.items()}
    return Figures(
        "training", tuple(rows), bound, {"gemm_peak_gflops": peak, "share_of_peak": share, "by_cpu": by_cpu, **facts}
    )


def _speed(rows: list[dict[str, Any]], clock: str = "seconds") -> float:
    return BATCH / float(np.quantile([time for row in rows for time in row[clock]], 0.1))


def _words(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:5])


def _turn(kind: str, threads: int, seconds: float, other: Path | None) -> list[dict[str, Any]]:
    """What one turn of a side printed."""
    return pair(seconds) if kind == TWICE else [_end(kind, _begin(kind, threads, seconds, other))]


def pair(seconds: float) -> list[dict[str, Any]]:
    """Two trainings of one thread each, which begin to step at the same moment."""
    running = [_begin("mtst", 1, seconds, None, "wait") for _ in range(2)]
    for child in running:
        assert child.stdout is not None
        child.stdout.readline()  # it is warm, and waits
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda child: _end("mtst", child), running))


def _begin(kind: str, threads: int, seconds: float, other: Path | None, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.train_child", kind, str(threads), str(seconds), *more]
    if kind == "neuralforecast":
        command = [str(other), str(ROOT / "benchmarks" / "train_peer.py"), str(threads), str(seconds)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, text=True, env=environment, cwd=ROOT, **pipes)


def _end(kind: str, child: subprocess.Popen[str]) -> dict[str, Any]:
    with child:
        told, trouble = child.communicate("go\n")
    if child.returncode:
        raise SettingsError(
            f"the side {kind} failed: {trouble.strip()[-400:]}", where=f"{child.args}", todo="run it by itself"
        )
    found: dict[str, Any] = json.loads(told.strip().splitlines()[-1])
    return found
