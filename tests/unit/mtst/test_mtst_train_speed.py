"""The training benchmark's ceiling: two processes that train at once."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.train_speed import BATCH, TWICE, Found, figures_of, pair


def row(step: float) -> dict[str, Any]:
    """What a child prints that takes `step` seconds a step."""
    return {
        "seconds": [step] * 20, "cpu_seconds": [step] * 20, "peak_gb": 0.5, "parameters": 1000,
        "shares": {"copies": 1.0}, "flop": 1e9, "latency_ms": 0.5,
    }  # fmt: skip


def test_the_ceiling_stands_beside_the_second_thread() -> None:
    found: Found = {
        ("mtst", 1): [row(0.04)], ("mtst", 2): [row(0.025)], (TWICE, 1): [row(0.04), row(0.05)] * 2,
        ("patchtst", 1): [row(0.4)], ("patchtst", 2): [row(0.3)], ("paper", 1): [row(2.0)],
        ("gemm", 1): [{"gflops": 200.0}],
    }  # fmt: skip
    made = figures_of(found)
    rows = {figure.name: figure for figure in made.figures}
    two, ceiling = rows["MTST, 2 threads"], rows["MTST, two trainings at once"]
    assert (two.ratio, two.met) == (pytest.approx(1.6), False)
    assert ceiling.value == pytest.approx(BATCH / 0.04 + BATCH / 0.05)
    assert ceiling.ratio == pytest.approx(1.8)
    assert ceiling.met is None, "a bound of the machine is no goal"
    assert made.bound.endswith("two threads: 1.60 of the 1.80 times that two trainings at once reach here")


@pytest.mark.slow
def test_two_real_trainings_run_at_once() -> None:
    rows = pair(0.5)
    assert len(rows) == 2
    assert all(each["seconds"] and each["peak_gb"] > 0 for each in rows)
