"""Some virtual hours of chaos, played twice: nothing breaks, and both runs are the same history."""

from __future__ import annotations

import pytest

from benchmarks.chaos import run
from benchmarks.figures import Figures
from observability.progress import NullProgress

pytestmark = pytest.mark.slow
DAYS, SEED = 0.15, 7


def _figure(found: Figures, name: str) -> float:
    return next(figure.value for figure in found.figures if figure.name == name)


def test_hours_of_chaos_break_nothing_and_are_the_same_twice() -> None:
    first, second = (run(NullProgress(), days=DAYS, seed=SEED) for _ in range(2))
    assert first.facts["broken"] == []
    assert _figure(first, "bots that ended by themselves") == 0
    assert len(first.facts["incidents"]) > 3
    assert any(name.startswith("kill -9") for _, name in first.facts["incidents"])
    assert _figure(first, "orders") > 4
    assert first.facts["incidents"] == second.facts["incidents"]
    assert first.facts["history"] == second.facts["history"]
