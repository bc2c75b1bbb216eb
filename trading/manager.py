"""The keeper of the book: takes questions and reports, writes everything to the journal first, then remembers it.

All judgement is in `trading.risk`, `trading.state` and `trading.lease`; this class adds a lock, the journal, the
breakers' latch and the meters. When the journal cannot be written, entries are refused and exits still pass.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from observability.errors import JournalError, LeaseError, MtstError, OrderError, SecretError, TradingError
from observability.logging import get_logger
from observability.metrics import Meters
from trading import lease as leases
from trading.book import AccountView, Book, Reservation
from trading.breakers import after_breakers
from trading.clock import Clock, FixedClock
from trading.directive import Directive, directive_of
from trading.events import (
    OUTCOMES,
    AccountReport,
    Decided,
    Estimated,
    Event,
    Fill,
    LeaseChanged,
    Noted,
    Outcome,
    Reported,
    Settled,
    StateChanged,
)
from trading.gauges import Gauges
from trading.journal import Journal, JournalStore
from trading.kill_switch import RISK, UNREADABLE, Command, KillSwitch, Verb
from trading.limits import RiskLimits
from trading.market import MarketRisk
from trading.orders import Approved, Decision, OrderIntent, Refused
from trading.recorder import Recorder
from trading.recovery import recovered
from trading.risk import decide
from trading.rulebook import Rule
from trading.state import Cause, Latch, TradingState, flattening, lift, reconciled, tighten

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
        self._limits, self._clock, self._gauges, self._switch = limits, clock, Gauges(meters), switch
        self._lock, self._kept_at = threading.RLock(), 0
        try:
            self._recorder = self._recover(journal)
        except (JournalError, SecretError) as error:
            # not raised: a restarted actor that fails here would never come back, and exits need no journal
            self._recorder = Recorder(None, Book(), str(error))
            log.error("journal_unusable", error=str(error))
        self._gauges.limits(limits)
        self._gauges.show(self._book)

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
        with self._lock:
            held = self._book.reservations.get(reservation_id)
            if held is None or held.settled_ms is not None:
                return False
            settled = Settled(reservation_id, outcome, float(filled), float(price), self._now())
            ticket = self._recorder.put(settled)
        self._recorder.wait(ticket)  # outside the lock, to share the disk's sync with others
        self._gauges.show(self._book)
        return True

    def report(self, report: AccountReport) -> Directive:
        """Take a bot's view of its account, move the breakers, and answer what to do.

        Raises:
            TradingError: the account is not configured. OrderError: impossible numbers.
            LeaseError: the bot reports under an old epoch. JournalError: not recorded.
        """
        with self._lock:
            report.check()
            if report.account not in self._limits.accounts:
                raise TradingError("an unknown account reports", where=report.account, todo="add it to risk.accounts")
            held = self._book.leases.get(report.account)
            if held is None or held.epoch != report.lease_epoch:
                raise LeaseError(f"{report.bot} reports under an old lease", where=report.account, todo="acquire it")
            self.obey()  # before the breakers: a resume that was written earlier must not lift what they do now
            # a killed process loses nothing here; a power cut loses at most the last reports, and bots report again
            self._commit(Reported(report), durable=False)
            self._breakers(self._book.accounts[report.account])
            if self._agreed():
                self._move(reconciled(self._book.latch, self._now()))
            return self.directive(report.account)

    def record_fill(self, fill: Fill) -> int:
        """Journal what an order has filled so far; returns the journal id."""
        with self._lock:
            row = self._commit(fill)
            view = self._book.accounts.get(fill.account)
            if view is not None:
                self._breakers(view)
            return row

    # --- leases ----------------------------------------------------------------------------------------------------

    def acquire_lease(self, account: str, holder: str) -> leases.Lease:
        """Give the account to `holder` under a new epoch; raises LeaseError while another holds it."""
        with self._lock:
            if account not in self._limits.accounts:
                raise LeaseError("the account is not configured", where=account, todo="add it to risk.accounts")
            current = self._book.leases.get(account)
            return self._lease(
                leases.grant(current, account, holder, ttl_ms=self._limits.lease_ttl_ms, now_ms=self._now())
            )

    def renew_lease(self, account: str, holder: str, epoch: int) -> leases.Lease:
        """Prolong a live lease; raises LeaseError when it was lost."""
        with self._lock:
            current = self._book.leases.get(account)
            ttl_ms = self._limits.lease_ttl_ms
            return self._lease(
                leases.renew(current, account, holder, epoch, ttl_ms=ttl_ms, now_ms=self._now()), durable=False
            )

    def release_lease(self, account: str, holder: str, epoch: int) -> bool:
        """End one's own lease at an orderly stop; False when it was lost already."""
        with self._lock:
            current = self._book.leases.get(account)
            if current is None or (current.holder, current.epoch) != (holder, epoch):
                return False
            self._lease(leases.expire(current, self._now()))
            return True

    # --- people ----------------------------------------------------------------------------------------------------

    def halt(self, reason: str, who: str) -> Latch:
        """Stop entries until a person resumes; survives restarts."""
        return self._ordered("halt", who, reason)

    def reduce(self, reason: str, who: str) -> Latch:
        """Only closing from now on, until a person resumes."""
        with self._lock:
            return self._tighten(TradingState.REDUCING, Cause.PERSON, who, reason)

    def flatten(self, reason: str, who: str) -> Latch:
        """Ask every bot to close everything; entries stay refused until a person resumes."""
        return self._ordered("flatten", who, reason)

    def resume(self, who: str, reason: str = "resumed", rebase: bool = False) -> Latch:
        """Lift a halt by name. `rebase` starts drawdown, daily loss and streaks anew: a breaker that tripped would
        otherwise trip again at the next report. Raises TradingError when nobody is named."""
        return self._ordered("resume", who, reason, rebase=rebase)

    def obey(self) -> Latch:
        """Do what the kill switch was told since the last look, and journal it with who, when and why.

        Raises:
            JournalError: not recorded. MtstError, OSError: the clock cannot be read. Both: try again; gates read the
                switch for themselves, so entries are closed meanwhile.
        """
        with self._lock:
            if self._switch is not None:
                for command in self._switch.since(self._book.command):
                    self._obey(command)
                with suppress(OSError):  # whoever pulled it sees that nobody told
                    self._switch.acknowledge(RISK, self._book.latch.state.value)
            return self._book.latch

    # --- what the rules know ---------------------------------------------------------------------------------------

    def set_limits(self, limits: RiskLimits, source: str) -> bool:
        """Judge by other limits from now on, journalled first; False when they are the ones in force."""
        with self._lock:
            if limits == self._limits:
                return False
            before, after = self._limits.to_dict(), limits.to_dict()
            self._commit(Noted("limit_change", after))
            self._limits = limits
        changes = {name: [before[name], after[name]] for name in after if before[name] != after[name]}
        log.warning("limits_changed", source=source, changes=changes)
        self._gauges.limits(limits)
        return True

    def refuse_limits(self, source: str, error: str) -> None:
        """Note that new limits cannot be used; the old ones stay."""
        self._gauges.limits_file(sound=False)
        log.error("limits_refused", source=source, error=error)
        with self._lock:
            self._commit(Noted("limit_refused", {"source": source, "error": error}))

    def set_market(self, market: MarketRisk) -> None:
        """Take a new estimate of how assets move and how far together."""
        with self._lock:
            self._commit(Estimated(market), durable=False)

    # --- looking in ------------------------------------------------------------------------------------------------

    def state(self) -> Latch:
        """The trading state with who set it and why."""
        return self._book.latch

    def directive(self, account: str | None = None) -> Directive:
        """What bots shall do now; with an account, also its share of the portfolio's stop."""
        return directive_of(self._book, self._limits, account)

    def book(self) -> Book:
        """The whole book, a frozen value."""
        return self._book

    def reservations(self, account: str | None = None) -> tuple[Reservation, ...]:
        """Approved entries whose outcome nobody told; a restarted bot looks them up on the exchange and settles."""
        return self._book.unsettled(account)

    def decisions(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest decisions with their intents, newest first."""
        with self._lock:
            journal = self._recorder.need_journal()
            verdicts = journal.latest("decision", limit)
            intents = {entry.payload["intent_id"]: entry.payload for entry in journal.latest("intent", limit)}
        return [
            {
                "id": entry.id,
                "at_ms": entry.payload["at_ms"],
                **entry.payload["decision"],
                "intent": intents[entry.payload["decision"]["intent_id"]],
            }
            for entry in verdicts
        ]

    def snapshot(self, rows: int = SNAPSHOT_ROWS) -> bool:
        """Keep the book, so that a restart replays at most about `rows` events; False while there are fewer.

        Raises:
            JournalError: not kept; the journal alone tells the same story.
        """
        journal = self._recorder.need_journal()
        if journal.last_id - self._kept_at < rows:
            return False
        self._recorder.save_snapshot()
        self._kept_at = journal.last_id
        return True

    def ping(self) -> dict[str, Any]:
        """That it lives, and what it can do: the state, the journal's last id, why the journal is unusable (or "")."""
        journal, state = self._recorder.journal, self._book.latch.state.value
        last_id = 0 if journal is None else journal.last_id
        return {"state": state, "last_id": last_id, "failure": self._recorder.failure, "pid": os.getpid()}

    def close(self) -> None:
        """Close the journal."""
        with self._lock:
            self._recorder.close()

    # --- inside ----------------------------------------------------------------------------------------------------

    @property
    def _book(self) -> Book:
        return self._recorder.book

    def _recover(self, source: Path | Callable[[], JournalStore]) -> Recorder:
        journal = Journal(source) if isinstance(source, Path) else source()
        recorder = Recorder(journal, recovered(journal), wrote=self._gauges.journalled)
        self._kept_at = journal.snapshot()[0]
        before = journal.latest("limit_change", 1)
        limits = self._limits.to_dict()
        if not before or before[0].payload != limits:
            recorder.commit(Noted("limit_change", limits))
        if journal.last_id > 1:
            recorder.commit(Noted("recovery", {"state": recorder.book.latch.state.value, "after": journal.last_id}))
        return recorder

    def _decide(self, intent: OrderIntent) -> Decision:
        is_exit = intent.action == "exit"
        try:
            now_ms = self._clock.now_ms()
        except (MtstError, OSError) as error:
            if not is_exit:
                return Refused(intent.intent_id, Rule.CLOCK_SKEW.value, f"the clock cannot be read: {error}")
            now_ms = 0
        try:
            with self._lock:
                decision = decide(intent, self._book, self._limits, FixedClock(now_ms))
                ticket = self._recorder.put(
                    Decided(intent, decision, now_ms), durable=not isinstance(decision, Refused)
                )
            self._recorder.wait(ticket)  # outside the lock: decisions made meanwhile share one sync of the disk
        except JournalError as error:
            log.error("decision_not_journalled", intent=intent.intent_id, error=str(error))
            if not is_exit:
                return Refused(intent.intent_id, Rule.JOURNAL.value, str(error))
            return decide(intent, Book(), self._limits, FixedClock(now_ms))
        return decision

    def _commit(self, event: Event, *, durable: bool = True) -> int:
        """Journal and remember; what is remembered can always be read again."""
        row = self._recorder.commit(event, durable=durable)
        self._gauges.show(self._book)
        return row

    def _ordered(self, verb: Verb, who: str, reason: str, *, rebase: bool = False) -> Latch:
        """A person's word: into the kill switch, where there is one, and obeyed."""
        with self._lock:
            if self._switch is None:
                self._obey(Command("", verb, who, reason, 0, verb == "flatten", rebase))
            else:
                self._switch.order(verb, who, reason, rebase=rebase)
                self.obey()
            return self._book.latch

    def _obey(self, command: Command) -> None:
        """Move the latch as asked ("start" asks for nothing); recorded also when it stands there already."""
        latch, now_ms = self._book.latch, self._now()
        who, reason = command.who, command.reason
        match command.verb:
            case "resume":
                latch = lift(latch, who, reason, self._agreed(), now_ms)
            case "flatten":
                latch = flattening(latch, who, reason, now_ms)
            case "halt":
                latch = tighten(latch, TradingState.HALTED, Cause.PERSON, who=who, reason=reason, now_ms=now_ms)
        # an unreadable switch is not a command: once it is mended, what was obeyed before must not count again
        obeyed = command.id if command.id != UNREADABLE else ""
        if not obeyed and command.verb == "halt" and latch == self._book.latch:
            return
        self._commit(StateChanged(latch, command.rebase, obeyed))
        log.warning("trading_ordered", verb=command.verb, who=who, reason=reason, state=latch.state.value)

    def _lease(self, lease: leases.Lease, *, durable: bool = True) -> leases.Lease:
        self._commit(LeaseChanged(lease), durable=durable)
        return lease

    def _breakers(self, view: AccountView) -> None:
        self._move(after_breakers(self._book, self._limits, view, self._now()))

    def _tighten(self, to: TradingState, cause: Cause, who: str, reason: str) -> Latch:
        return self._move(tighten(self._book.latch, to, cause, who=who, reason=reason, now_ms=self._now()))

    def _move(self, latch: Latch) -> Latch:
        if latch != self._book.latch:
            self._commit(StateChanged(latch))
            log.warning("trading_state", state=latch.state.value, who=latch.who, reason=latch.reason)
        return latch

    def _agreed(self) -> bool:
        oldest = self._now() - self._limits.max_report_age_ms
        return self._book.books_agree(self._limits.accounts, oldest)

    def _now(self) -> int:
        return self._clock.now_ms()
