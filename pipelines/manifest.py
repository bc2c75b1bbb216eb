"""What is known of a stored series without reading it: its monthly parts, its holes, and what its exchange said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from pipelines.candles import Gap, timeframe_ms


@dataclass(frozen=True)
class Part:
    """One calendar month (UTC) of a series in one file.

    `content_hash` names its values and `file_hash` the bytes of the file of `size`; times are of the first and the last
    row, in ms; `gaps` are those inside the part.
    """

    month: str
    file: str
    rows: int
    start_ms: int
    end_ms: int
    content_hash: str
    file_hash: str
    size: int
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True)
class Known:
    """What the exchange told about a series beyond its rows.

    `confirmed`: spans for which it was asked twice and has no rows. `listed_ms`: time of its first row ever, where it
    was asked for earlier ones. `delisted_ms`: time of its last row, where the market has been closed since.
    """

    confirmed: tuple[Gap, ...] = ()
    listed_ms: int | None = None
    delisted_ms: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What a stored series is; everything but the parts and what is known follows from the parts."""

    timeframe: str
    parts: tuple[Part, ...] = ()
    known: Known = field(default_factory=Known)

    @property
    def rows(self) -> int:
        """Rows in all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def start_ms(self) -> int:
        """Time of the first row; 0 for an empty series."""
        return self.parts[0].start_ms if self.parts else 0

    @property
    def end_ms(self) -> int:
        """Time of the last row; 0 for an empty series."""
        return self.parts[-1].end_ms if self.parts else 0

    @property
    def content_hash(self) -> str:
        """SHA-256 over the months and their values: the same however and in whatever order the rows were written."""
        text = " ".join(f"{part.month}={part.content_hash}" for part in self.parts)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Runs of absent candles between the first and the last row, within months and across their ends."""
        return tuple(self._gaps()) if self.timeframe else ()

    @property
    def open_gaps(self) -> tuple[Gap, ...]:
        """Gaps that the exchange has not confirmed."""

        def confirmed(gap: Gap) -> bool:
            return any(span.start_ms <= gap.start_ms and gap.end_ms <= span.end_ms for span in self.known.confirmed)

        return tuple(gap for gap in self.gaps if not confirmed(gap))

    def between(self, since_ms: int | None = None, until_ms: int | None = None) -> tuple[Part, ...]:
        """Parts that may hold rows of [since, until)."""
        return tuple(
            part
            for part in self.parts
            if (since_ms is None or part.end_ms >= since_ms) and (until_ms is None or part.start_ms < until_ms)
        )

    def to_json(self) -> str:
        """The manifest as its file holds it; totals are written for people, and made again when it is read."""
        totals = {"rows": self.rows, "start_ms": self.start_ms, "end_ms": self.end_ms}
        return json.dumps({**totals, "content_hash": self.content_hash, **asdict(self)}, indent=1)

    @staticmethod
    def from_json(text: str | bytes) -> Manifest:
        """Read `to_json`'s text; raises KeyError, TypeError or ValueError when it is damaged."""
        body: dict[str, Any] = json.loads(text)
        known = {**body["known"], "confirmed": _gaps(body["known"]["confirmed"])}
        parts = tuple(Part(**{**part, "gaps": _gaps(part["gaps"])}) for part in body["parts"])
        found = Manifest(body["timeframe"], parts, Known(**known))
        if found.content_hash != body["content_hash"]:
            raise ValueError("the content hash does not belong to the parts")
        return found

    def _gaps(self) -> Iterator[Gap]:
        step = timeframe_ms(self.timeframe)
        for part in self.parts[:1]:
            yield from part.gaps
        for before, part in pairwise(self.parts):
            start = before.end_ms + step
            if start < part.start_ms:
                yield Gap(start, part.start_ms, (part.start_ms - start) // step)
            yield from part.gaps


def _gaps(rows: list[dict[str, int]]) -> tuple[Gap, ...]:
    return tuple(Gap(**row) for row in rows)
