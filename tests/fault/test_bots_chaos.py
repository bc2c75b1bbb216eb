"""Some virtual hours of chaos, played twice: nothing breaks, and both runs are the same history."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.chaos import run
from benchmarks.chaos_plan import FEED, SLOT_MS, Incident
from benchmarks.chaos_stand import ChaosStand
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
    assert _figure(first, "incidents that struck") > 10
    assert any(name.startswith("kill -9") for _, name, _, _ in first.facts["incidents"])
    assert _figure(first, "orders") > 4
    assert first.facts["incidents"] == second.facts["incidents"]
    assert first.facts["history"] == second.facts["history"]


@pytest.mark.parametrize("clock", ["clock: ahead", "clock: behind"])
def test_the_clock_is_mended_before_a_bot_begins(clock: str, tmp_path: Path) -> None:
    """Else it tries again in real time, and the fault would end in virtual time, which waits for the bot."""
    market = {"trading_days": 1.0}
    with ChaosStand(seed=SEED, market=market, folder=tmp_path) as stand:
        stand.begin()
        stand.do(Incident(0, 0, clock, fault={**FEED[clock], "for_ms": 8 * SLOT_MS}))
        stand.do(Incident(1, 0, "kill -9 bot", "anna"))
        assert stand.client.health()["participants"]["anna"] is not None, "it sleeps: its loop is done"
        assert stand.client.faults() == []
        assert len(stand.damage.recovery_s["kill -9 bot"]) == 1
