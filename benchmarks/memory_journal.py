"""A journal without a disk, for runs that are judged by what was decided and not by what survives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trading.journal import Entry, decoded


class MemoryJournal:
    """The rows of `trading.journal.Journal`, encoded in the same way."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []
        self.kept = (0, "")

    @property
    def last_id(self) -> int:
        return len(self.rows)

    def append_encoded(self, events: Sequence[tuple[str, str]], *, durable: bool = True) -> int:
        self.rows += events
        return len(self.rows)

    def read(self, kind: str | None = None, after: int = 0) -> Iterator[Entry]:
        for number, (row_kind, payload) in enumerate(self.rows[after:], start=after + 1):
            if kind in (None, row_kind):
                yield Entry(number, row_kind, decoded(payload, number))

    def latest(self, kind: str, limit: int) -> list[Entry]:
        found = []
        for number in range(len(self.rows), 0, -1):
            if self.rows[number - 1][0] == kind:
                found.append(Entry(number, kind, decoded(self.rows[number - 1][1], number)))
                if len(found) == limit:
                    break
        return found

    def save_snapshot(self, text: str) -> None:
        self.kept = (len(self.rows), text)

    def snapshot(self) -> tuple[int, str]:
        return self.kept

    def close(self) -> None:
        return None
