"""What breaks in a run of chaos is known before it runs."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.chaos import strikes
from benchmarks.chaos_plan import (
    AWAY,
    BETWEEN,
    CALM,
    CANDLE_MS,
    DAY,
    KILLS,
    SLOT_MS,
    SLOTS,
    Incident,
    draw,
    moment_ms,
)
from trading.adapters.sandbox.faults import READER

BOTS = ("anna", "bert", "carl", "nina")
DAYS = 5
PLAN = draw(1, DAYS * DAY, BOTS)


def test_a_seed_tells_the_whole_plan() -> None:
    assert draw(1, DAYS * DAY, BOTS) == PLAN != draw(2, DAYS * DAY, BOTS)
    assert [item.number for item in PLAN] == list(range(len(PLAN)))
    assert [item.slot for item in PLAN] == sorted(item.slot for item in PLAN)


def test_something_breaks_every_few_minutes_and_often_several_things_at_once() -> None:
    assert DAYS * 96 * 15 / len(PLAN) < 5, "virtual minutes from one to the next"
    assert max(Counter(item.slot for item in PLAN).values()) >= 3
    assert sum(item.kills for item in PLAN) > DAYS * 12
    assert {item.name for item in draw(3, 60 * DAY, BOTS)} > set(KILLS)


def test_days_end_calm_and_whatever_lasts_is_over_by_then() -> None:
    for item in PLAN:
        calm_from = item.slot - item.slot % DAY + DAY - CALM
        assert item.slot + item.slots <= calm_from


def test_every_fault_is_one_of_the_exchange() -> None:
    faults = [item for item in PLAN if item.fault]
    assert faults
    for item in faults:
        planned = READER.validate_python({**item.fault, "name": item.label})
        assert planned.for_ms > 0 or planned.count > 0, "it ends by itself"


def test_nobody_is_killed_who_is_away() -> None:
    last: dict[str, Incident] = {}
    for item in PLAN:
        whom = KILLS[item.name][1] or (item.who,) if item.kills else ()
        for one in whom:
            if one in last:
                assert item.slot > last[one].slot + last[one].slots
            last[one] = item
    assert AWAY[1] * SLOT_MS > CANDLE_MS, "some stay away beyond the close of a candle"


@pytest.mark.parametrize("slot", range(SLOTS))
def test_things_break_while_whoever_began_with_an_earlier_one_sleeps(slot: int) -> None:
    at = {moment_ms(slot) + loops * SLOT_MS + tries * 30_000 for loops in range(SLOTS) for tries in range(8)}
    assert not at & {moment_ms(later) for later in range(slot + 1, SLOTS)}
    assert slot * SLOT_MS + 1_000 < moment_ms(slot) < (slot + 1) * SLOT_MS


def test_what_met_nothing_is_not_counted() -> None:
    names = ("order: reply lost", "kill -9 bot", BETWEEN)
    lost, killed, hunted = (Incident(number, 0, name) for number, name in enumerate(names))
    assert [strikes(one, {}) for one in (lost, killed, hunted)] == [False, True, False]
    assert all(strikes(one, {one.label: 1}) for one in (lost, killed, hunted))
    assert not strikes(lost, {hunted.label: 1})
