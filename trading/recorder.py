"""Book and journal as one: an event changes the book at once, and is on disk before anybody is told of it.

Several threads share one sync of the disk (group commit): the first to wait writes everything that is on its way, the
others find theirs done. When the disk refuses, all that was on its way is forgotten together, book included, and each
waiter is told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from observability.errors import JournalError
from trading.book import Book, apply
from trading.events import Event, to_rows
from trading.journal import JournalStore, encoded
from trading.snapshot import book_to_text


class Ticket:
    """A promise that an event will be on disk; redeemed by `Recorder.wait`."""

    __slots__ = ("done", "durable", "error", "row", "rows")

    def __init__(self, rows: list[tuple[str, str]], durable: bool) -> None:
        self.rows, self.durable = rows, durable
        self.done, self.row = False, 0
        self.error: BaseException | None = None


class Recorder:
    """Keeps the book of one journal; safe to use from several threads.

    Args:
        journal: where events go; None records nothing and refuses everything with `failure`.
        book: what the journal's events led to.
        failure: why there is no journal.
        wrote: told the seconds of every write.
    """

    def __init__(
        self, journal: JournalStore | None, book: Book, failure: str = "", wrote: Callable[[float], None] | None = None
    ) -> None:
        self.journal, self.failure = journal, failure
        self._book = self._safe = book
        self._wrote = wrote
        self._waiting: list[Ticket] = []
        self._state, self._disk = threading.Lock(), threading.Lock()

    @property
    def book(self) -> Book:
        """The book with everything that is known, on disk or on its way there."""
        return self._book

    def need_journal(self) -> JournalStore:
        """The journal; raises JournalError when there is none."""
        if self.journal is None:
            raise JournalError(
                self.failure or "no journal", todo="repair or replace the journal and start trading again"
            )
        return self.journal

    def commit(self, event: Event, *, durable: bool = True) -> int:
        """Record one event; returns the id of its last row. Raises JournalError, and then nothing has changed."""
        return self.wait(self.put(event, durable=durable))

    def put(self, event: Event, *, durable: bool = True) -> Ticket:
        """Change the book now and the journal soon. Nobody may be told before `wait` has returned.

        Args:
            event: what happened.
            durable: on disk when `wait` returns; else a killed process keeps it, and a power cut may lose it.
        """
        self.need_journal()
        ticket = Ticket([encoded(kind, payload) for kind, payload in to_rows(event)], durable)
        with self._state:
            self._book = apply(self._book, event)
            self._waiting.append(ticket)
        return ticket

    def wait(self, ticket: Ticket) -> int:
        """Come back when the event is recorded, with the id of its last row.

        Raises:
            JournalError: it is not, and the book has forgotten it.
        """
        if not ticket.done:
            with self._disk:
                if not ticket.done:
                    self._flush()
        if ticket.error is not None:
            raise JournalError(f"not recorded: {ticket.error}") from ticket.error
        return ticket.row

    def save_snapshot(self) -> None:
        """Keep the book beside the journal; what is on its way is written first. Raises JournalError."""
        with self._disk:
            if self._waiting:
                self._flush()
            journal = self.need_journal()
            # nobody writes while we hold the disk, so this is the book of exactly the last row
            journal.save_snapshot(book_to_text(self._safe))

    def close(self) -> None:
        """Close the journal; what is still on its way is written first."""
        with self._disk:
            if self.journal is not None:
                if self._waiting:
                    self._flush()
                self.journal.close()

    def _flush(self) -> None:
        with self._state:
            batch, self._waiting = self._waiting, []
            after = self._book
        started = time.perf_counter()
        rows = [row for ticket in batch for row in ticket.rows]
        try:
            row = self.need_journal().append_encoded(rows, durable=any(ticket.durable for ticket in batch)) - len(rows)
        except BaseException as error:
            self._forget(batch, error)
            if not isinstance(error, JournalError):
                raise
            return
        self._safe = after
        for ticket in batch:
            row += len(ticket.rows)
            ticket.row, ticket.done = row, True
        if self._wrote is not None:
            self._wrote(time.perf_counter() - started)

    def _forget(self, batch: list[Ticket], error: BaseException) -> None:
        with self._state:
            lost, self._waiting, self._book = [*batch, *self._waiting], [], self._safe
        for ticket in lost:
            ticket.error, ticket.done = error, True
