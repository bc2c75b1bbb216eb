"""Who moves the trading state: people, by the kill switch; the breakers; and books that agree after a start."""

from __future__ import annotations

from contextlib import suppress

from observability.logging import get_logger
from trading.book import AccountView
from trading.breakers import after_breakers
from trading.events import StateChanged
from trading.kill_switch import RISK, UNREADABLE, Command, KillSwitch, Verb
from trading.running_book import RunningBook
from trading.state import Cause, Latch, TradingState, flattening, lift, reconciled, tighten

log = get_logger(__name__)


class Steering:
    """Moves the latch of a running book, each move journalled; `switch` is what people pull, None has none."""

    def __init__(self, running: RunningBook, switch: KillSwitch | None) -> None:
        self._running, self._switch = running, switch

    @property
    def latch(self) -> Latch:
        """The trading state with who set it and why."""
        return self._running.book.latch

    def order(self, verb: Verb, who: str, reason: str, *, rebase: bool = False) -> Latch:
        """A person's word: into the kill switch, where there is one, and obeyed."""
        with self._running.lock:
            if self._switch is None:
                self._follow(Command("", verb, who, reason, 0, verb == "flatten", rebase))
            else:
                self._switch.order(verb, who, reason, rebase=rebase)
                self.obey()
            return self.latch

    def obey(self) -> Latch:
        """Do what the kill switch was told since the last look; see `RiskManager.obey`."""
        with self._running.lock:
            if self._switch is not None:
                for command in self._switch.since(self._running.book.command):
                    self._follow(command)
                with suppress(OSError):  # whoever pulled it sees that nobody told
                    self._switch.acknowledge(RISK, self.latch.state.value)
            return self.latch

    def reduce(self, who: str, reason: str) -> Latch:
        """Only closing from now on, until a person resumes."""
        with self._running.lock:
            now_ms = self._running.now_ms()
            to = TradingState.REDUCING
            return self._move(tighten(self.latch, to, Cause.PERSON, who=who, reason=reason, now_ms=now_ms))

    def trip(self, view: AccountView) -> None:
        """Tighten where an account's figures, as they are now, trip a breaker."""
        running = self._running
        self._move(after_breakers(running.book, running.limits, view, running.now_ms()))

    def open_when_agreed(self) -> None:
        """Lift the halt of a fresh start once every account's books agree; no other halt."""
        if self._agreed():
            self._move(reconciled(self.latch, self._running.now_ms()))

    def _follow(self, command: Command) -> None:
        """Move the latch as asked ("start" asks for nothing); recorded also when it stands there already."""
        latch, now_ms = self.latch, self._running.now_ms()
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
        if not obeyed and command.verb == "halt" and latch == self.latch:
            return
        self._running.commit(StateChanged(latch, command.rebase, obeyed))
        log.warning("trading_ordered", verb=command.verb, who=who, reason=reason, state=latch.state.value)

    def _move(self, latch: Latch) -> Latch:
        if latch != self.latch:
            self._running.commit(StateChanged(latch))
            log.warning("trading_state", state=latch.state.value, who=latch.who, reason=latch.reason)
        return latch

    def _agreed(self) -> bool:
        running = self._running
        oldest = running.now_ms() - running.limits.max_report_age_ms
        return running.book.books_agree(running.limits.accounts, oldest)
