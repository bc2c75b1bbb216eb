"""What a journal says when a process begins: the book that its events led to, and the limits that were in force."""

from __future__ import annotations

from collections.abc import Callable

from observability.errors import JournalError, MtstError
from observability.logging import get_logger
from trading.book import Book, replay
from trading.events import from_rows
from trading.journal import JournalStore
from trading.limits import RiskLimits
from trading.snapshot import book_from_text

log = get_logger(__name__)


def recovered(journal: JournalStore) -> Book:
    """The book that a journal leads to: from its newest snapshot on, or from the beginning.

    Raises:
        JournalError: the record cannot be trusted.
    """
    kept_at, text = journal.snapshot()
    if kept_at:
        try:
            return replay(from_rows(journal.read(after=kept_at)), book_from_text(text))
        except JournalError as error:
            log.error("snapshot_unusable", error=str(error))  # the journal itself decides
    return replay(from_rows(journal.read()))


def journalled_limits(opened: Callable[..., JournalStore]) -> RiskLimits | None:
    """The limits that were in force when a journal was written last; None where it cannot tell."""
    try:
        journal = opened(read_only=True)
    except MtstError:
        return None
    try:
        newest = journal.latest("limit_change", 1)
        return RiskLimits.from_dict(newest[0].payload) if newest else None
    except MtstError:
        return None
    finally:
        journal.close()
