"""The basis of one coin by two bots and a coordinator, live on the sandbox.

Spot and its perpetual: opened, closed, refused, late, killed, left alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing

import psutil
import pytest

from observability.progress import NullProgress
from tests.integration.gap_stand import AFTER, CHEAP, DEAR, LONG, MINUTE, SHORT, GapStand, gap_stand
from trading.arbitrage.coordinator import Phase

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GapStand]:
    with gap_stand(tmp_path_factory.mktemp("legs"), 6) as made:
        yield made


def test_bots_risk_manager_and_coordinator_have_the_nodes_own_priority(stand: GapStand) -> None:
    import ray

    pids = [state.pid for state in stand.fleet.status().values()]
    pids += [ray.get(stand.fleet.risk.ping.remote())["pid"], ray.get(stand.coordinator.ping.remote())]
    (node,) = [each for each in psutil.Process().children(recursive=True) if each.name() == "raylet"]
    assert {psutil.Process(pid).nice() for pid in pids} == {node.nice()}


def test_both_legs_are_opened_held_and_closed_when_the_basis_has_gone(stand: GapStand) -> None:
    import ray

    fleet = stand.fleet
    stand.to_pulse(0)
    assert stand.flat()
    stand.until_phase(Phase.OPEN)
    coins, position = stand.held()
    assert coins == pytest.approx(-position, rel=0.005), "as many bought as sold, but for the fee"
    assert 800 < coins * 60_000 < 1_200
    fleet.run_candles(2, NullProgress())
    assert stand.phase is Phase.OPEN
    book = ray.get(fleet.risk.book.remote())
    worth = {
        held.pair: (held.notional if held.side == "long" else -held.notional, held.stop)
        for view in book.accounts.values()
        for held in view.report.positions
    }
    assert set(worth) == {CHEAP, DEAR}
    assert abs(sum(net for net, _ in worth.values())) < 0.03 * sum(abs(net) for net, _ in worth.values())
    assert all(stop for _, stop in worth.values()), "each leg's stop rests on its exchange"
    stand.to_pulse(0, AFTER)
    assert stand.flat(), stand.story()
    assert stand.phase is Phase.IDLE
    profit = sum(state.profit for state in fleet.status().values())
    assert 1 < profit < 15, "what the basis had opened to, of 1,000, less four orders"
    assert {name: state.doubts for name, state in fleet.status().items()} == {LONG: {}, SHORT: {}}
    stand.books_agree()


def test_a_refused_leg_has_the_other_unwound(stand: GapStand) -> None:
    before = len(stand.orders(LONG))
    with closing(stand.exchange.client()) as client:
        stand.plan(
            kind="error", count=0, path="/fapi/v1/order", status=400, code=-2019, message="Margin is insufficient."
        )
        stand.to_pulse(1)
        stand.until_phase(Phase.UNWINDING)
        assert stand.phase is Phase.UNWINDING, stand.story()
        assert "leg b came to an end unfilled" in stand.standing.pair.reason
        assert stand.minutes(10, stand.flat) <= 3
        client.clear_faults()
    # by the ledger, as a quick machine has unwound it before anybody looks
    filled = [each for each in stand.orders(LONG)[before:] if each["status"] == "filled"]
    assert [each["side"] for each in filled] == ["buy", "sell"], "the long leg stood alone"
    assert all(float(each["amount"]) * 60_000 > 800 for each in filled), "and whole"
    assert stand.minutes(10, lambda: stand.phase is Phase.IDLE) <= 3
    stand.minutes(15)
    assert stand.flat(), "after an unwinding it rests, whatever the basis"
    stand.to_pulse(1, AFTER)
    assert stand.flat(), stand.story()
    stand.books_agree()


def test_a_leg_that_is_never_filled_has_both_taken_back(stand: GapStand) -> None:
    stand.to_pulse(2)
    with closing(stand.exchange.client()) as client:
        client.plan_fault(kind="partial_fills", pairs=[DEAR], max_fill=30.0, refill_ms=MINUTE)
        stand.until_phase(Phase.OPENING)
        opened_ms = stand.standing.pair.asked_ms
        stand.minutes(10, lambda: stand.phase is not Phase.OPENING)
        assert client.now_ms() - opened_ms <= 5 * MINUTE, "three minutes and a loop"
        assert stand.phase is Phase.UNWINDING, stand.story()
        assert "one leg was missing after 180000 ms" in stand.standing.pair.reason
        client.clear_faults()
    assert stand.minutes(15, stand.flat) <= 5, stand.story()
    stand.to_pulse(2, AFTER)
    assert stand.flat(), stand.story()
    stand.books_agree()


def _kill_coordinator(stand: GapStand) -> None:
    """Kill -9, and wait until Ray has it back."""
    import ray

    pid = ray.get(stand.coordinator.ping.remote(), timeout=10)
    os.kill(pid, signal.SIGKILL)
    for _ in range(100):
        time.sleep(0.1)
        try:
            if ray.get(stand.coordinator.ping.remote(), timeout=10) != pid:
                return
        except ray.exceptions.RayError:
            continue
    pytest.fail("the coordinator did not come back")


def test_a_coordinator_killed_between_the_legs_goes_on_where_it_was(stand: GapStand) -> None:
    stand.to_pulse(3)
    stand.until_phase(Phase.OPENING)
    _kill_coordinator(stand)
    assert stand.phase is Phase.OPENING, "it has read what it had written"
    stand.minutes(10, lambda: stand.phase is not Phase.OPENING)
    assert stand.phase is Phase.OPEN, stand.story()
    coins, position = stand.held()
    assert coins == pytest.approx(-position, rel=0.005)
    assert coins * 60_000 > 800


def test_a_coordinator_that_has_forgotten_everything_has_both_legs_closed(stand: GapStand) -> None:
    assert stand.phase is Phase.OPEN
    (stand.settings.workspace.var / "legs" / "gap.json").unlink()
    _kill_coordinator(stand)
    assert stand.phase is Phase.IDLE
    assert stand.minutes(15, stand.flat) <= 5, stand.story()
    stand.to_pulse(3, AFTER)
    stand.books_agree()


def test_a_killed_bot_takes_its_leg_up_again_and_a_flatten_closes_both(stand: GapStand) -> None:
    from cluster.stages import trade as stage

    fleet = stand.fleet
    stand.to_pulse(4)
    stand.until_phase(Phase.OPEN)
    recovery = fleet.kill_and_recover(SHORT)
    assert recovery.trades_after == recovery.trades_before == (DEAR,)
    stand.minutes(3)
    assert stand.phase is Phase.OPEN, stand.story()
    stage.flatten("tester", "to see both closed")
    assert stand.minutes(10, stand.flat) <= 2, stand.story()
    stand.to_pulse(4, AFTER)
    assert stand.flat(), "nothing is opened until somebody resumes"
    stage.resume("tester", "enough seen")
    stand.books_agree()


def test_without_a_coordinator_nothing_is_opened_and_what_is_held_is_closed(stand: GapStand) -> None:
    import ray

    stand.to_pulse(5)
    stand.until_phase(Phase.OPEN)
    ray.kill(stand.coordinator, no_restart=True)
    assert 8 <= stand.minutes(20, stand.flat) <= 14, "closed when it was silent for ten minutes"
    before = {name: state.orders for name, state in stand.fleet.status().items()}
    stand.minutes(20)
    assert stand.flat(), "the basis is as wide as it was, and nobody says so"
    assert {name: state.orders for name, state in stand.fleet.status().items()} == before
    stand.books_agree()
