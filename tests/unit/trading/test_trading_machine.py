"""The manager under any sequence of orders, outcomes, losses, people and restarts, against a tally kept apart."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from observability.errors import LeaseError
from tests.unit.trading.trading_makers import CANDLE, MARKS, NOW
from trading.clock import FixedClock
from trading.events import AccountReport, Position
from trading.limits import RiskLimits
from trading.manager import RiskManager
from trading.measures import correlated_exposure
from trading.orders import Approved, ForecastRef, OrderIntent, Refused
from trading.state import TradingState

PAIRS = st.sampled_from(sorted(MARKS))
# tight, so that short sequences meet every limit
LIMITS = RiskLimits(
    accounts={"acc": "sandbox"},
    max_position=0.25,
    max_gross=0.5,
    max_correlated=0.42,
    correlation=0.5,
    max_open_positions=3,
    max_entries=6,
    max_pair_entries=3,
    max_report_age_ms=3_600_000,
    lease_ttl_ms=3_600_000,
)


class Trading(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = FixedClock(NOW)
        self.manager = RiskManager(self.folder / "journal.db", LIMITS, self.clock)
        self.cash, self.held, self.lost = 10_000.0, dict.fromkeys(MARKS, 0.0), 0.0
        self.waiting: dict[str, tuple[str, float]] = {}  # reservation -> pair, amount
        self.approved: list[tuple[int, str]] = []
        self.epoch, self.number, self.equity = 0, 0, 0.0
        self.locked = False  # a limit or a person has stopped trading
        self.peak = self.day_start = 0.0
        self.anew = False
        self.day = -1

    def teardown(self) -> None:
        self.manager.close()
        shutil.rmtree(self.folder)

    def _intent(self, pair: str, action: str, notional: float, epoch: int) -> OrderIntent:
        self.number += 1
        now, price = self.clock.at_ms, MARKS[pair]
        forecast = ForecastRef(now - CANDLE, "m:1", "champion", 0.01, 0.01)
        side = "buy" if action == "entry" else "sell"
        return OrderIntent(
            f"i{self.number}", "nn", "acc", "sandbox", pair, side, action, notional / price, price, price * 0.95,
            epoch, now, now - CANDLE, forecast, CANDLE,
        )  # fmt: skip

    @rule(ms=st.sampled_from([1, 60_000, 900_000, 7_200_000, 40_000_000]))
    def time_passes(self, ms: int) -> None:
        self.clock.advance(ms)

    @rule()
    def take_lease(self) -> None:
        lease = self.manager.acquire_lease("acc", "nn")
        assert lease.epoch > self.epoch, "an epoch must never come back"
        self.epoch = lease.epoch

    @precondition(lambda self: self.epoch > 0)
    @rule(
        loss=st.sampled_from([0.0, 0.0, 0.0, 20.0, 300.0, -100.0, 1_600.0]),
        mismatch=st.sampled_from([False] * 5 + [True]),
    )
    def report(self, loss: float, mismatch: bool) -> None:
        self.lost += loss
        worth = {pair: amount * MARKS[pair] for pair, amount in self.held.items()}
        equity = max(0.0, self.cash + sum(worth.values()) - self.lost)
        positions = tuple(
            Position(pair, "long", amount, MARKS[pair], MARKS[pair], 1e-6)
            for pair, amount in self.held.items()
            if amount > 0
        )
        free = max(0.0, min(self.cash, equity))
        before = self.equity
        self.manager.report(
            AccountReport("acc", "nn", self.epoch, self.clock.at_ms, equity, free, positions, dict(MARKS), mismatch)
        )
        day = self.clock.at_ms // 86_400_000
        if day != self.day:
            self.day_start, self.day = (equity if self.day < 0 else before), day
        if self.anew:  # a person had it counted from the next report on
            self.peak, self.day_start, self.anew = equity, equity, False
        self.peak, self.equity = max(self.peak, equity), equity
        if equity < self.peak * (1 - LIMITS.max_drawdown) * (1 - 1e-12):
            self.locked = True
        if equity < self.day_start * (1 - LIMITS.max_daily_loss) * (1 - 1e-12):
            self.locked = True

    @rule(pair=PAIRS, notional=st.floats(5.0, 3_000.0), stale=st.booleans())
    def enter(self, pair: str, notional: float, stale: bool) -> None:
        order = self._intent(pair, "entry", notional, self.epoch - 1 if stale else self.epoch)
        decision = self.manager.decide(order)
        if isinstance(decision, Refused):
            return
        assert not self.locked
        assert order.lease_epoch == self.epoch
        assert pair not in {name for name, _ in self.waiting.values()}, "two unsettled orders on one pair"
        self.waiting[decision.reservation_id] = (pair, decision.amount)
        self.approved.append((self.clock.at_ms, pair))
        worst = {name: amount * MARKS[name] for name, amount in self.held.items()}
        for name, amount in self.waiting.values():
            worst[name] += amount * MARKS[name]
        slack = 1 + 1e-9
        assert worst[pair] <= LIMITS.max_position * self.equity * slack
        assert sum(worst.values()) <= LIMITS.max_gross * self.equity * slack
        assert sum(money > 1e-9 for money in worst.values()) <= LIMITS.max_open_positions
        window = self.clock.at_ms - LIMITS.entries_window_ms
        lately = [name for at, name in self.approved if at > window]
        assert len(lately) <= LIMITS.max_entries
        assert lately.count(pair) <= LIMITS.max_pair_entries
        assert (
            correlated_exposure(list(worst.values()), LIMITS.correlation) <= LIMITS.max_correlated * self.equity * slack
        )

    @rule(
        wishes=st.lists(
            st.tuples(PAIRS, st.sampled_from([50.0, 400.0, 1_600.0, 2_600.0]), st.booleans()), min_size=1, max_size=8
        )
    )
    def bot_loop(self, wishes: list[tuple[str, float, bool]]) -> None:
        """What a healthy bot does: hold the lease, report, enter, and mostly settle at once."""
        self.take_lease()
        for pair, notional, at_once in wishes:
            self.report(0.0, False)
            known = set(self.waiting)
            self.enter(pair, notional, False)
            if at_once:
                for reservation in set(self.waiting) - known:
                    self._settle(reservation, 1.0)
            self.clock.advance(1)
        self.enter(wishes[0][0], 50.0, True)

    @rule(pair=PAIRS)
    def leave(self, pair: str) -> None:
        assert isinstance(self.manager.decide(self._intent(pair, "exit", 100.0, 0)), Approved)
        self.cash += self.held[pair] * MARKS[pair]
        self.held[pair] = 0.0

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), share=st.sampled_from([0.0, 0.4, 1.0]))
    def settle(self, data: st.DataObject, share: float) -> None:
        self._settle(data.draw(st.sampled_from(sorted(self.waiting))), share)

    def _settle(self, reservation: str, share: float) -> None:
        pair, amount = self.waiting.pop(reservation)
        outcome = {0.0: "cancelled", 0.4: "partial", 1.0: "filled"}[share]
        assert self.manager.settle(reservation, outcome, amount * share, MARKS[pair])
        assert not self.manager.settle(reservation, outcome, amount, MARKS[pair]), "settling twice must be a no-op"
        self.held[pair] += amount * share
        self.cash -= amount * share * MARKS[pair]

    @rule(stop=st.sampled_from(["halt", "reduce", "flatten"]))
    def person_stops(self, stop: str) -> None:
        getattr(self.manager, stop)("looks odd", "ann")
        self.locked = True

    @precondition(lambda self: self.locked)
    @rule()
    def person_resumes(self) -> None:
        self.manager.resume("ann", "looked into it", rebase=True)
        self.locked = False
        self.peak = self.day_start = self.equity
        self.anew = self.day >= 0

    @rule()
    def restart(self) -> None:
        before = self.manager.book()
        self.manager.close()
        self.manager = RiskManager(self.folder / "journal.db", LIMITS, self.clock)
        assert self.manager.book() == before

    @rule()
    def stranger_is_kept_off(self) -> None:
        lease = self.manager.book().leases.get("acc")
        if lease is not None and lease.live(self.clock.at_ms):
            with pytest.raises(LeaseError):
                self.manager.acquire_lease("acc", "stranger")

    @invariant()
    def what_is_latched_stays(self) -> None:
        if self.locked:
            assert self.manager.state().state is not TradingState.ACTIVE

    @invariant()
    def reservations_are_those_we_know(self) -> None:
        assert {held.reservation_id for held in self.manager.reservations()} == set(self.waiting)


Trading.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTrading = Trading.TestCase
