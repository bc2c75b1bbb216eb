"""The keeper of the book: takes questions and reports, writes everything to the journal first, then remembers it.

All judgement is in `trading.risk`, `trading.state` and `trading.lease`; this class is the one door to what works on the
running book: decisions and settlements here, the state in `trading.steering`, leases in `trading.lease_office`. When
the journal cannot be written, entries are refused and exits still pass.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from observability.errors import JournalError, MtstError, OrderError
from observability.logging import get_logger
from observability.metrics import Meters
from trading.book import Book, Reservation
from trading.clock import Clock, FixedClock
from trading.directive import Directive, directive_of
from trading.events import OUTCOMES, AccountReport, Decided, Estimated, Fill, Outcome, Reported, Settled
from trading.gauges import Gauges
from trading.journal import JournalStore
from trading.kill_switch import KillSwitch
from trading.lease import Lease
from trading.lease_office import LeaseOffice
from trading.limits import RiskLimits
from trading.market import MarketRisk
from trading.orders import Approved, Decision, OrderIntent, Refused
from trading.risk import decide
from trading.rulebook import Rule
from trading.running_book import RunningBook
from trading.state import Latch
from trading.steering import Steering

log = get_logger(__name__)

SNAPSHOT_ROWS = 5_000


class RiskManager:
    """Decides, remembers, and tells; safe to call from several threads.

    Args:
        journal: SQLite file, or what opens another kind of journal; replayed at start. A damaged one leaves the
            manager up, refusing every entry.
        limits: the limits; a change since the last run is journalled.
        clock: the venue's clock; one that raises MtstError or OSError stops entries, not exits.
        meters: where figures go; None keeps none.
        switch: the kill switch that people pull; what they ask of this class goes through it, too.
    """

    def __init__(
        self,
        journal: Path | Callable[[], JournalStore],
        limits: RiskLimits,
        clock: Clock,
        meters: Meters | None = None,
        switch: KillSwitch | None = None,
    ) -> None:
        self._gauges = Gauges(meters)
        self._running = RunningBook(journal, limits, clock, self._gauges)
        self._leases, self._steering = LeaseOffice(self._running), Steering(self._running, switch)

    # --- questions of the bots -------------------------------------------------------------------------------------

    def decide(self, intent: OrderIntent) -> Decision:
        """Judge an intent; the answer to an entry is on disk before it is given. Raises nothing."""
        started = time.perf_counter()
        decision = self._decide(intent)
        code = "APPROVED" if isinstance(decision, Approved) else str(decision.code)
        self._gauges.decided(code, time.perf_counter() - started)
        return decision

    def settle(self, reservation_id: str, outcome: Outcome, filled: float = 0.0, price: float = 0.0) -> bool:
        """Say what became of an approved entry; False when it was settled before or never existed.

        Args:
            outcome: "filled", "partial", "cancelled" or "rejected".
            filled: base currency that was bought or sold in the end; price: average price of it.

        Raises:
            OrderError: a wrong outcome or number. JournalError: not recorded, so still reserved; say it again.
        """
        if outcome not in OUTCOMES or not (0 <= filled < float("inf")) or not (0 <= price < float("inf")):
            raise OrderError(f"cannot settle as {outcome!r}, {filled!r} at {price!r}", where=reservation_id)
        running = self._running
        with running.lock:
            held = running.book.reservations.get(reservation_id)
            if held is None or held.settled_ms is not None:
                return False
            settled = Settled(reservation_id, outcome, float(filled), float(price), running.now_ms())
            ticket = running.recorder.put(settled)
        running.recorder.wait(ticket)  # outside the lock, to share the disk's sync with others
        self._gauges.reservations(running.book)
        return True

    def report(self, report: AccountReport) -> Directive:
        """Take a bot's view of its account, move the breakers, and answer what to do.

        Raises:
            TradingError: the account is not configured. OrderError: impossible numbers.
            LeaseError: the bot reports under an old epoch. JournalError: not recorded.
        """
        with self._running.lock:
            report.check()
            self._leases.check(report)
            self.obey()  # before the breakers: a resume that was written earlier must not lift what they do now
            # a killed process loses nothing here; a power cut loses at most the last reports, and bots report again
            self._running.commit(Reported(report), durable=False)
            self._steering.trip(self._running.book.accounts[report.account])
            self._steering.open_when_agreed()
            return self.directive(report.account)

    def record_fill(self, fill: Fill) -> int:
        """Journal what an order has filled so far; returns the journal id."""
        with self._running.lock:
            row = self._running.commit(fill)
            view = self._running.book.accounts.get(fill.account)
            if view is not None:
                self._steering.trip(view)
            return row

    # --- leases ----------------------------------------------------------------------------------------------------

    def acquire_lease(self, account: str, holder: str, born_ms: int = 0) -> Lease:
        """Give the account to `holder`, whose process began at `born_ms` by the wall, under a new epoch.

        Raises:
            LeaseError: another holder, or a later process of this one, has it.
        """
        return self._leases.acquire(account, holder, born_ms)

    def renew_lease(self, account: str, holder: str, epoch: int) -> Lease:
        """Prolong a live lease; raises LeaseError when it was lost."""
        return self._leases.renew(account, holder, epoch)

    def release_lease(self, account: str, holder: str, epoch: int) -> bool:
        """End one's own lease at an orderly stop; False when it was lost already."""
        return self._leases.release(account, holder, epoch)

    # --- people ----------------------------------------------------------------------------------------------------

    def halt(self, reason: str, who: str) -> Latch:
        """Stop entries until a person resumes; survives restarts."""
        return self._steering.order("halt", who, reason)

    def reduce(self, reason: str, who: str) -> Latch:
        """Only closing from now on, until a person resumes."""
        return self._steering.reduce(who, reason)

    def flatten(self, reason: str, who: str) -> Latch:
        """Ask every bot to close everything; entries stay refused until a person resumes."""
        return self._steering.order("flatten", who, reason)

    def resume(self, who: str, reason: str = "resumed", rebase: bool = False) -> Latch:
        """Lift a halt by name. `rebase` starts drawdown, daily loss and streaks anew: a breaker that tripped would
        otherwise trip again at the next report. Raises TradingError when nobody is named."""
        return self._steering.order("resume", who, reason, rebase=rebase)

    def obey(self) -> Latch:
        """Do what the kill switch was told since the last look, and journal it with who, when and why.

        Raises:
            JournalError: not recorded. MtstError, OSError: the clock cannot be read. Both: try again; gates read the
                switch for themselves, so entries are closed meanwhile.
        """
        return self._steering.obey()

    # --- what the rules know ---------------------------------------------------------------------------------------

    def set_limits(self, limits: RiskLimits, source: str) -> bool:
        """Judge by other limits from now on, journalled first; False when they are the ones in force."""
        return self._running.set_limits(limits, source)

    def refuse_limits(self, source: str, error: str) -> None:
        """Note that new limits cannot be used; the old ones stay."""
        self._running.refuse_limits(source, error)

    def set_market(self, market: MarketRisk) -> None:
        """Take a new estimate of how assets move and how far together."""
        with self._running.lock:
            self._running.commit(Estimated(market), durable=False)

    # --- looking in ------------------------------------------------------------------------------------------------

    def state(self) -> Latch:
        """The trading state with who set it and why."""
        return self._running.book.latch

    def directive(self, account: str | None = None) -> Directive:
        """What bots shall do now; with an account, also its share of the portfolio's stop."""
        return directive_of(self._running.book, self._running.limits, account)

    def book(self) -> Book:
        """The whole book, a frozen value."""
        return self._running.book

    def reservations(self, account: str | None = None) -> tuple[Reservation, ...]:
        """Approved entries whose outcome nobody told; a restarted bot looks them up on the exchange and settles."""
        return self._running.book.unsettled(account)

    def decisions(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest decisions with their intents, newest first."""
        return self._running.decisions(limit)

    def snapshot(self, rows: int = SNAPSHOT_ROWS) -> bool:
        """Keep the book, so that a restart replays at most about `rows` events; False while there are fewer.

        Raises:
            JournalError: not kept; the journal alone tells the same story.
        """
        return self._running.snapshot(rows)

    def ping(self) -> dict[str, Any]:
        """That it lives, and what it can do: the state, the journal's last id, why the journal is unusable (or "")."""
        recorder, state = self._running.recorder, self.state().state.value
        last_id = 0 if recorder.journal is None else recorder.journal.last_id
        return {"state": state, "last_id": last_id, "failure": recorder.failure, "pid": os.getpid()}

    def close(self) -> None:
        """Close the journal."""
        with self._running.lock:
            self._running.recorder.close()

    def _decide(self, intent: OrderIntent) -> Decision:
        running, is_exit = self._running, intent.action == "exit"
        try:
            now_ms = running.now_ms()
        except (MtstError, OSError) as error:
            if not is_exit:
                return Refused(intent.intent_id, Rule.CLOCK_SKEW.value, f"the clock cannot be read: {error}")
            now_ms = 0
        try:
            with running.lock:
                decision = decide(intent, running.book, running.limits, FixedClock(now_ms))
                ticket = running.recorder.put(
                    Decided(intent, decision, now_ms), durable=not isinstance(decision, Refused)
                )
            running.recorder.wait(ticket)  # outside the lock: decisions made meanwhile share one sync of the disk
        except JournalError as error:
            log.error("decision_not_journalled", intent=intent.intent_id, error=str(error))
            if not is_exit:
                return Refused(intent.intent_id, Rule.JOURNAL.value, str(error))
            return decide(intent, Book(), running.limits, FixedClock(now_ms))
        return decision
