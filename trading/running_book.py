"""The book that the parts of the risk manager work on together: behind its journal, under one lock, with its limits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from observability.errors import JournalError, SecretError
from observability.logging import get_logger
from trading.book import Book
from trading.clock import Clock
from trading.events import Event, Noted
from trading.gauges import Gauges
from trading.journal import Journal, JournalStore
from trading.limits import RiskLimits
from trading.recorder import Recorder
from trading.recovery import recovered

log = get_logger(__name__)


class RunningBook:
    """Opens the journal and replays it; a damaged one leaves a book to which nothing can be committed.

    Args:
        journal: SQLite file, or what opens another kind of journal.
        limits: the limits in force; a change since the last run is journalled.
        clock: the venue's clock.
        gauges: shown every change.

    Attributes:
        lock: held, once or again, by whoever decides by the book and writes what follows from it.
    """

    def __init__(
        self, journal: Path | Callable[[], JournalStore], limits: RiskLimits, clock: Clock, gauges: Gauges
    ) -> None:
        self.limits, self.clock, self.gauges = limits, clock, gauges
        self.lock, self._kept_at = threading.RLock(), 0
        try:
            self.recorder = self._recover(journal)
        except (JournalError, SecretError) as error:
            # not raised: a restarted actor that fails here would never come back, and exits need no journal
            self.recorder = Recorder(None, Book(), str(error))
            log.error("journal_unusable", error=str(error))
        gauges.limits(limits)
        gauges.show(self.book)

    @property
    def book(self) -> Book:
        """The book as it is now, a frozen value."""
        return self.recorder.book

    def now_ms(self) -> int:
        """The venue's time; raises MtstError or OSError when it cannot be read."""
        return self.clock.now_ms()

    def commit(self, event: Event, *, durable: bool = True) -> int:
        """Journal and remember, and show; what is remembered can always be read again. Raises JournalError."""
        row = self.recorder.commit(event, durable=durable)
        self.gauges.show(self.book)
        return row

    def set_limits(self, limits: RiskLimits, source: str) -> bool:
        """Judge by other limits from now on, journalled first; False when they are the ones in force."""
        with self.lock:
            if limits == self.limits:
                return False
            before, after = self.limits.to_dict(), limits.to_dict()
            self.commit(Noted("limit_change", after))
            self.limits = limits
        changes = {name: [before[name], after[name]] for name in after if before[name] != after[name]}
        log.warning("limits_changed", source=source, changes=changes)
        self.gauges.limits(limits)
        return True

    def refuse_limits(self, source: str, error: str) -> None:
        """Note that new limits cannot be used; the old ones stay."""
        self.gauges.limits_file(sound=False)
        log.error("limits_refused", source=source, error=error)
        with self.lock:
            self.commit(Noted("limit_refused", {"source": source, "error": error}))

    def decisions(self, limit: int) -> list[dict[str, Any]]:
        """The newest decisions with their intents, newest first; raises JournalError."""
        with self.lock:
            journal = self.recorder.need_journal()
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

    def snapshot(self, rows: int) -> bool:
        """Keep the book when about `rows` events came since the last time; raises JournalError."""
        journal = self.recorder.need_journal()
        if journal.last_id - self._kept_at < rows:
            return False
        self.recorder.save_snapshot()
        self._kept_at = journal.last_id
        return True

    def _recover(self, source: Path | Callable[[], JournalStore]) -> Recorder:
        journal = Journal(source) if isinstance(source, Path) else source()
        recorder = Recorder(journal, recovered(journal), wrote=self.gauges.journalled)
        self._kept_at = journal.snapshot()[0]
        before = journal.latest("limit_change", 1)
        limits = self.limits.to_dict()
        if not before or before[0].payload != limits:
            recorder.commit(Noted("limit_change", limits))
        if journal.last_id > 1:
            recorder.commit(Noted("recovery", {"state": recorder.book.latch.state.value, "after": journal.last_id}))
        return recorder
