"""One side of the training benchmark, in a process of its own.

python -m benchmarks.train_child KIND THREADS SECONDS [wait]

Whole training steps on 128 windows of 7 channels, look-back 336, horizon 96: forward, backward, clipping where the side
does it, optimizer. Prints one line of JSON: seconds of each step, peak memory, parameters, and for the networks of this
project one window's latency and where the time goes. With "wait" it tells when it is warm, and is told to go on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.ett import MEMBERS, TRAINING, network_of
from benchmarks.patchtst import PatchTST
from benchmarks.peak import peak_mib
from mtst.loop import Loop, precision
from mtst.model import MTSTConfig, count_parameters
from mtst.series import Series, SeriesTask
from mtst.threads import keep_freed_memory

BATCH, CHANNELS, LOOKBACK, HORIZON = 128, 7, 336, 96
PAPER = MTSTConfig(
    lookback=LOOKBACK, n_channels=CHANNELS, horizons=tuple(range(1, HORIZON + 1)), patches=(8, 16), n_layers=2,
    d_model=128, n_heads=16, d_ff=256, dropout=0.2, fuse_rank=0, head="point", channel_mode="independent",
    forecast="channels", instance_norm="reversible",
)  # fmt: skip
Step = Callable[[], object]


def mtst_step(config: MTSTConfig) -> tuple[nn.Module, Step]:
    """The product's own training step, with everything that it does: gather, forward, backward, clip, AdamW, EMA."""
    rows = np.random.default_rng(0).standard_normal((3000, CHANNELS)).astype(np.float32)
    training = replace(TRAINING, batch=BATCH, device="cpu")
    task = SeriesTask(config, training, Series(rows, 2000, 2500, 3000), MEMBERS[0], judge_start=False)
    loop = Loop(task, training)
    state = loop.start(None)
    task.model.train()
    random = np.random.default_rng(1)
    return task.model, lambda: loop.step(state, random.integers(0, task.n_windows, BATCH), 0.5)


def patchtst_step() -> tuple[nn.Module, Step]:
    """The plain peer: gather by index, forward, backward, Adam."""
    model = PatchTST().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    past, future = torch.randn(512, LOOKBACK, CHANNELS), torch.randn(512, HORIZON, CHANNELS)

    def step() -> None:
        chosen = torch.randint(0, 512, (BATCH,))
        loss = (model(past[chosen]) - future[chosen]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return model, step


def latency(model: nn.Module) -> float:
    """Median milliseconds of one window's forecast."""
    model.eval()
    x, times = torch.randn(1, LOOKBACK, CHANNELS), []
    with torch.inference_mode():
        for _ in range(60):
            started = time.perf_counter()
            model(x)
            times.append(time.perf_counter() - started)
    return float(np.median(times[10:])) * 1e3


def shares(step: Step) -> dict[str, float]:
    """Shares of a step's processor time by kind of operation."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    times: dict[str, float] = {}
    for row in recorded.key_averages():
        times[_kind(row.key)] = times.get(_kind(row.key), 0.0) + row.self_cpu_time_total
    total = sum(times.values())
    return {name: round(value / total, 3) for name, value in sorted(times.items(), key=lambda item: -item[1])}


def _kind(name: str) -> str:
    kinds = {
        "matrix products": ("mm", "linear", "addmm", "mkldnn"), "softmax": ("softmax", "amax", "exp", "div_"),
        "copies": ("copy", "cat", "index", "contiguous", "clone"), "random": ("random",), "normalise": ("norm",),
        "activation": ("gelu",), "optimizer": ("adam",),
        "sums and products": ("mul", "add", "sub", "sum", "lerp", "ge"),
    }  # fmt: skip
    plain = name.removeprefix("aten::").lower()
    return next((kind for kind, words in kinds.items() if any(word in plain for word in words)), "calls and the rest")


def main(kind: str, threads: int, seconds: float, *, wait: bool) -> dict[str, Any]:
    """Warm up, be told to go on if so wished, then step for so many seconds (at least twice)."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = {"mtst": network_of(CHANNELS, HORIZON), "paper": PAPER}.get(kind)
    model, step = mtst_step(config) if config else patchtst_step()
    times: list[float] = []
    spent: list[float] = []
    for _ in range(1 if kind == "paper" else 3):
        step()
    if wait:
        print("warm", flush=True)
        sys.stdin.readline()
    began = time.perf_counter()
    while len(times) < 2 or time.perf_counter() - began < seconds:
        started, used = time.perf_counter(), time.process_time()
        step()
        times.append(time.perf_counter() - started)
        spent.append(time.process_time() - used)
    peak = peak_mib() * 2**20 / 1e9
    more: dict[str, Any] = {}
    if config:
        more["shares"] = shares(step)
        with precision(TRAINING, model):
            more["flop"] = flop(config) * BATCH * CHANNELS
    more["latency_ms"] = latency(model)
    return {"seconds": times, "cpu_seconds": spent, "peak_gb": peak, "parameters": count_parameters(model), **more}


def flop(c: MTSTConfig) -> float:
    """Floating-point operations in the matrix products of one sequence's step; the backward pass costs twice."""
    inner = sum(c.tokens) * c.d_model
    tokens = sum(c.tokens) * (4 * c.d_model**2 + 2 * c.d_model * c.d_ff)
    tokens += sum(n * p * c.d_model + 2 * n * n * c.d_model for n, p in zip(c.tokens, c.patches, strict=True))
    fused = (c.n_layers - 1) * inner * c.lookback
    return 6.0 * (c.n_layers * tokens + fused + inner * len(c.horizons))


def gemm_peak(threads: int) -> float:
    """bf16 GFLOP/s of a large matrix product here."""
    torch.set_num_threads(threads)
    a = torch.randn(2048, 2048, dtype=torch.bfloat16)
    best = min(_timed(lambda: a @ a) for _ in range(8))
    return 2 * 2048**3 / best / 1e9


def _timed(call: Step) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    which, workers, budget = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    found: dict[str, Any] = (
        {"gflops": gemm_peak(workers)} if which == "gemm" else main(which, workers, budget, wait="wait" in sys.argv)
    )
    print(json.dumps(found))
