"""The keeper of the book: latches, leases, people, meters, and what still works when the journal or clock does not."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from observability.errors import ClusterError, JournalError, LeaseError, OrderError, TradingError
from observability.metrics import Meters
from tests.unit.trading.trading_makers import CANDLE, FORECAST, MARKS, NOW, intent, report
from trading.clock import FixedClock
from trading.events import Fill
from trading.journal import Journal
from trading.limits import RiskLimits
from trading.manager import RiskManager
from trading.orders import Approved, Decision, OrderIntent, Refused
from trading.state import Cause, TradingState

LIMITS = RiskLimits(accounts={"acc": "binance", "toy": "sandbox"})


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def manager(path: Path, clock: FixedClock) -> Iterator[RiskManager]:
    made = RiskManager(path, LIMITS, clock, Meters("risk"))
    yield made
    made.close()


def opened(manager: RiskManager, *accounts: str) -> RiskManager:
    for account in accounts or ("acc", "toy"):
        manager.acquire_lease(account, "nn")
        manager.report(report(account))
    return manager


def now_intent(clock: FixedClock, **changes: object) -> OrderIntent:
    at = clock.at_ms
    fresh = intent(created_ms=at, candle_ms=at - CANDLE, forecast=replace(FORECAST, as_of_ms=at - CANDLE))
    return replace(fresh, **changes)


def code(decision: Decision) -> str:
    return decision.code if isinstance(decision, Refused) else "APPROVED"


def test_active_only_after_every_account_agrees(manager: RiskManager) -> None:
    assert code(manager.decide(intent())) == "STATE_HALTED"
    opened(manager, "acc")
    assert manager.state().state is TradingState.HALTED, "one of two accounts is not enough"
    manager.acquire_lease("toy", "nn")
    manager.report(report("toy", mismatch=True, mismatch_text="2 orders unknown"))
    assert manager.state().state is TradingState.HALTED, "a mismatch is not agreement"
    directive = manager.report(report("toy"))
    assert directive.state is TradingState.ACTIVE
    assert code(manager.decide(intent())) == "APPROVED"


def test_agreement_needs_fresh_reports(manager: RiskManager, clock: FixedClock) -> None:
    opened(manager, "acc")
    clock.advance(LIMITS.max_report_age_ms + 1)
    manager.acquire_lease("toy", "nn")
    manager.report(report("toy", as_of_ms=clock.at_ms))
    assert manager.state().state is TradingState.HALTED


@pytest.mark.parametrize(
    ("equity", "state", "rule"),
    [(8_400.0, TradingState.HALTED, "DRAWDOWN"), (9_400.0, TradingState.REDUCING, "DAILY_LOSS")],
)
def test_breakers_latch_until_a_person_and_over_restarts(
    manager: RiskManager, path: Path, clock: FixedClock, equity: float, state: TradingState, rule: str
) -> None:
    opened(manager)
    assert manager.report(report(equity=equity, as_of_ms=NOW + 1)).state is state
    manager.report(report(equity=12_000.0, as_of_ms=NOW + 2))
    assert (manager.state().state, manager.state().cause, manager.state().who) == (state, Cause.LIMIT, rule)
    again = RiskManager(path, LIMITS, clock)
    clock.advance(3 * 86_400_000)
    assert again.state() == manager.state()
    with pytest.raises(TradingError, match="named person"):
        again.resume("  ")
    resumed = again.resume("ann", "market was closed", rebase=True)
    assert resumed.state is TradingState.HALTED, "reports are three days old: their books must agree first"
    assert resumed.cause is Cause.START
    for account in ("acc", "toy"):
        lease = again.acquire_lease(account, "nn")
        again.report(report(account, as_of_ms=clock.at_ms, lease_epoch=lease.epoch, equity=12_000.0))
    assert again.state().state is TradingState.ACTIVE
    again.close()


def test_without_rebase_a_breaker_trips_again(manager: RiskManager) -> None:
    opened(manager).report(report(equity=8_400.0))
    assert manager.resume("ann").state is TradingState.ACTIVE
    assert code(manager.decide(intent())) == "DRAWDOWN"
    assert manager.report(report(equity=8_400.0)).state is TradingState.HALTED
    manager.resume("ann", rebase=True)
    assert manager.report(report(equity=8_400.0)).state is TradingState.ACTIVE


def test_losing_streak_counts_each_order_once(manager: RiskManager) -> None:
    opened(manager)
    for number in range(9):
        for _ in range(2):  # a restarted bot tells again what it told before
            manager.record_fill(Fill("acc", "nn", f"o{number}", "BTC/USDT", "sell", 1.0, 1.0, NOW, profit=-1.0))
        expected = TradingState.REDUCING if number >= 8 else TradingState.ACTIVE
        assert manager.state().state is expected, number


def test_daily_loss_counts_from_the_last_equity_of_the_day_before(manager: RiskManager, clock: FixedClock) -> None:
    opened(manager)
    clock.advance(86_400_000)
    manager.report(report(equity=9_600.0, as_of_ms=clock.at_ms))
    assert manager.book().accounts["acc"].daily_loss == pytest.approx(0.04), "the loss of the gap counts"
    clock.advance(86_400_000)
    manager.report(report(equity=9_600.0, as_of_ms=clock.at_ms))
    assert manager.book().accounts["acc"].daily_loss == 0.0


def test_people_can_halt_reduce_flatten_and_resume(manager: RiskManager) -> None:
    opened(manager)
    assert manager.reduce("news", "ann").state is TradingState.REDUCING
    assert code(manager.decide(intent())) == "STATE_REDUCING"
    assert code(manager.decide(intent(action="exit"))) == "APPROVED"
    assert manager.flatten("get out", "ann").flatten
    assert manager.report(report()).flatten
    assert manager.halt("all of it", "bob").state is TradingState.HALTED
    assert manager.directive().flatten, "a halt does not withdraw the wish to close"
    resumed = manager.resume("ann", "checked")
    assert (resumed.state, resumed.flatten, resumed.who) == (TradingState.ACTIVE, False, "ann")


def test_a_wish_to_reduce_outlives_the_fresh_start(manager: RiskManager) -> None:
    manager.reduce("quiet day", "ann")
    opened(manager)
    assert manager.state().cause is Cause.PERSON
    assert code(manager.decide(intent())) != "APPROVED"


def test_a_lost_reply_cannot_become_two_orders(manager: RiskManager) -> None:
    opened(manager)
    assert code(manager.decide(intent(intent_id="first"))) == "APPROVED"
    assert code(manager.decide(intent(intent_id="first"))) == "DUPLICATE"
    assert [code(manager.decide(intent(intent_id=f"again-{n}"))) for n in range(20)] == ["UNSETTLED"] * 20
    assert [held.reservation_id for held in manager.reservations("acc")] == ["r-first"]
    assert manager.settle("r-first", "filled", 0.01, 50_000.0)
    assert manager.book().exposures("acc") == {"BTC/USDT": 500.0}, "filled, not reported yet: it counts"
    manager.report(report(as_of_ms=NOW + 1))
    assert manager.book().exposures("acc") == {}, "a later report is the truth"


def test_settle_takes_no_nonsense(manager: RiskManager) -> None:
    opened(manager).decide(intent())
    for outcome, filled in (("eaten", 0.0), ("filled", -1.0), ("filled", float("nan")), ("filled", float("inf"))):
        with pytest.raises(OrderError):
            manager.settle("r-i-1", outcome, filled)
    assert not manager.settle("r-unknown", "filled", 1.0)
    assert len(manager.reservations()) == 1


def test_leases_fence_the_former_self(manager: RiskManager, clock: FixedClock) -> None:
    opened(manager)
    assert manager.acquire_lease("acc", "nn").epoch == 2, "the same bot, restarted"
    assert code(manager.decide(intent(lease_epoch=1))) == "LEASE"
    assert code(manager.decide(intent(lease_epoch=1, action="exit"))) == "APPROVED"
    with pytest.raises(LeaseError, match="old lease"):
        manager.report(report(lease_epoch=1))
    with pytest.raises(LeaseError, match="held by nn"):
        manager.acquire_lease("acc", "swing")
    clock.advance(LIMITS.lease_ttl_ms - 1)
    assert manager.renew_lease("acc", "nn", 2).expires_ms == clock.at_ms + LIMITS.lease_ttl_ms
    clock.advance(LIMITS.lease_ttl_ms)
    with pytest.raises(LeaseError, match="no longer holds"):
        manager.renew_lease("acc", "nn", 2)
    assert manager.acquire_lease("acc", "swing").epoch == 3
    assert not manager.release_lease("acc", "nn", 2)
    assert manager.release_lease("acc", "swing", 3)
    assert manager.acquire_lease("acc", "nn").epoch == 4, "epochs never come back"
    with pytest.raises(LeaseError):
        manager.acquire_lease("nowhere", "nn")


def test_reports_that_cannot_be_true_are_not_believed(manager: RiskManager) -> None:
    opened(manager)
    before = manager.book()
    for bad in ({"equity": float("nan")}, {"free": -1.0}, {"marks": {"BTC/USDT": 0.0}}, {"equity": float("inf")}):
        with pytest.raises(OrderError):
            manager.report(report(**bad))
    with pytest.raises(TradingError, match="unknown account"):
        manager.report(report("stranger"))
    assert manager.book() == before
    manager.report(report(as_of_ms=NOW - 1, equity=1.0))
    assert manager.book() == before, "a report that was overtaken changes nothing"


def test_everything_said_is_in_the_journal(manager: RiskManager, path: Path) -> None:
    opened(manager).decide(intent(intent_id="yes"))
    manager.decide(intent(intent_id="no"))
    reader = Journal(path, read_only=True)
    kinds = [entry.kind for entry in reader.read()]
    assert kinds == [
        "limit_change", "lease", "report", "lease", "report", "state", "intent", "decision", "intent", "decision",
    ]  # fmt: skip
    newest, older = manager.decisions(2)
    assert (newest["approved"], newest["code"], newest["intent"]["intent_id"]) == (False, "UNSETTLED", "no")
    assert (older["approved"], older["intent"]["pair"]) == (True, "BTC/USDT")
    used = {use["rule"]: (use["used"], use["limit"]) for use in older["limits_used"]}
    assert used["POSITION_LIMIT"] == (500.0, 2_500.0)


def test_changed_limits_and_recoveries_are_noted(manager: RiskManager, path: Path, clock: FixedClock) -> None:
    opened(manager)
    book = manager.book()
    manager.close()
    tighter = replace(LIMITS, max_position=0.01)
    again = RiskManager(path, tighter, clock)
    assert again.book() == book
    assert code(again.decide(intent())) == "POSITION_LIMIT"
    again.close()
    RiskManager(path, tighter, clock).close()
    notes = [entry.kind for entry in Journal(path, read_only=True).read() if entry.kind in ("limit_change", "recovery")]
    assert notes == ["limit_change", "limit_change", "recovery", "recovery"]


class BrokenClock:
    def now_ms(self) -> int:
        raise ClusterError("the venue does not tell the time")


def test_without_a_clock_only_exits_pass(path: Path) -> None:
    manager = RiskManager(path, LIMITS, BrokenClock())
    assert code(manager.decide(intent())) == "CLOCK_SKEW"
    assert code(manager.decide(intent(action="exit"))) == "APPROVED"


def test_with_a_damaged_journal_only_exits_pass(path: Path, clock: FixedClock) -> None:
    path.write_bytes(b"rubbish" * 1000)
    manager = RiskManager(path, LIMITS, clock, Meters("risk"))
    assert "cannot be opened" in str(manager.ping()["failure"])
    assert manager.state().state is TradingState.HALTED
    assert code(manager.decide(intent())) in ("STATE_HALTED", "JOURNAL")
    assert code(manager.decide(intent(action="exit"))) == "APPROVED"
    with pytest.raises(JournalError):
        manager.resume("ann")


def test_while_the_journal_is_locked_entries_wait_in_vain_and_exits_pass(manager: RiskManager, path: Path) -> None:
    opened(manager)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        assert code(manager.decide(intent(action="exit"))) == "APPROVED"
        assert code(manager.decide(intent())) == "JOURNAL"
        assert manager.reservations() == ()
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()
    assert code(manager.decide(intent())) == "APPROVED", "it heals by itself"


def test_a_replaced_manager_can_approve_nothing_more(manager: RiskManager, path: Path, clock: FixedClock) -> None:
    opened(manager)
    newer = RiskManager(path, LIMITS, clock)
    assert code(manager.decide(intent(intent_id="zombie"))) == "JOURNAL"
    assert code(newer.decide(intent(intent_id="real"))) == "APPROVED"
    newer.close()


def test_many_threads_get_one_approval(manager: RiskManager) -> None:
    opened(manager)
    answers: list[Decision] = []
    orders = [intent(intent_id=f"t{number}") for number in range(16)]
    threads = [threading.Thread(target=lambda o=order: answers.append(manager.decide(o))) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(answer, Approved) for answer in answers) == 1
    assert len(answers) == 16


def test_meters_show_the_book(path: Path, clock: FixedClock) -> None:
    meters = Meters("risk")
    manager = opened(RiskManager(path, LIMITS, clock, meters))
    assert meters.value("mtst_trading_state") == 2.0
    manager.decide(intent())
    manager.decide(intent(amount=float("nan")))
    manager.report(report(equity=9_000.0, marks=MARKS))
    assert meters.value("mtst_unsettled_reservations") == 1.0
    assert manager.settle(manager.reservations("acc")[0].reservation_id, "cancelled")
    assert meters.value("mtst_unsettled_reservations") == 0.0
    assert meters.value("mtst_risk_decisions_total", code="APPROVED") == 1.0
    assert meters.value("mtst_risk_decisions_total", code="BAD_NUMBERS") == 1.0
    assert meters.value("mtst_drawdown_ratio", account="acc") == pytest.approx(0.1)
    assert meters.value("mtst_trading_state") == 1.0, "10 % in a day sets it to reducing"
    assert meters.value("mtst_risk_limit", limit="drawdown") == LIMITS.max_drawdown
    assert (meters.value("mtst_journal_write_seconds") or 0) > 5
    manager.close()
