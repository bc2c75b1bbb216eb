"""What a backfill has to ask for, and what an answer changes: pure decisions, no exchange and no disk.

A series is brought up to date in three rounds. The first asks one page a series: the newest stored candles again and
what follows, or the start of a new series. That shows whether it is still the same market, whether recent candles
were revised, and when a new market was listed. The second asks for all that is lacking, in pieces. The third asks
again for what is still missing: what the exchange has not, it has confirmed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import polars as pl

from observability.errors import MtstError, SourceError
from pipelines.candles import Gap, Repairs, iso
from pipelines.manifest import Known, Manifest
from pipelines.series import SeriesKey

PAGE = 1000  # rows a request; what Binance gives, and others cap by themselves
PAGES = 4  # pages a piece of work
FUNDING_STEP_MS = 8 * 3_600_000
Span = tuple[int, int]


@dataclass(frozen=True)
class Want:
    """A series wanted on [since, until): rows that open there are complete. `step_ms` is the usual distance of rows."""

    key: SeriesKey
    symbol: str
    step_ms: int
    since_ms: int
    until_ms: int

    @property
    def has_candles(self) -> bool:
        """Whether rows lie on a grid; funding is settled when the exchange likes."""
        return self.key.kind in ("ohlcv", "mark")

    @property
    def next_ms(self) -> int:
        """Least distance between two rows."""
        return self.step_ms if self.has_candles else 1


@dataclass(frozen=True)
class Job:
    """Pages to ask for: rows of [start, end), at most `pages` pages."""

    want: Want
    start_ms: int
    end_ms: int
    pages: int = 10**9

    @property
    def rows(self) -> int:
        """Rows that it may bring, for the progress."""
        return min(self.pages * PAGE, -(-(self.end_ms - self.start_ms) // self.want.step_ms))


@dataclass(frozen=True)
class Fetched:
    """What a job brought: valid rows, what was dropped, the time up to which it asked; or why it failed."""

    job: Job
    table: pl.DataFrame | None = None
    repairs: Repairs = field(default_factory=Repairs)
    reached_ms: int = 0
    error: MtstError | None = None


@dataclass(frozen=True)
class Change:
    """How an answer differs from what is stored: rows in both, those that differ, and the first of these."""

    both: int
    revised: int
    first_ms: int | None = None
    stored: tuple[float, ...] = ()
    told: tuple[float, ...] = ()


def first_round(want: Want, have: Manifest, reread: int) -> Job:
    """One page: from the last `reread` stored rows on, or from the start of a new series."""
    if not have.rows:
        return Job(want, want.since_ms, want.until_ms, pages=1)
    start = max(have.start_ms, have.end_ms + want.next_ms - reread * want.step_ms)
    return Job(want, start, max(want.until_ms, have.end_ms + want.next_ms), pages=max(1, -(-reread // PAGE)))


def second_round(want: Want, before: Manifest, reached_ms: int) -> list[Job]:
    """What is lacking behind the first round, before the stored rows, and between them; nothing is left out between."""
    spans = [(reached_ms, want.until_ms)]
    if before.rows:
        known = before.known.listed_ms
        if known is None or known > before.start_ms:
            spans.append((want.since_ms, before.start_ms))
        spans += gap_spans(want, before)
    return [job for span in spans for job in pieces(want, span)]


def third_round(want: Want, have: Manifest) -> list[Job]:
    """What is still missing, and the time just before the first row: is it really the first?"""
    if not have.rows:
        return []
    spans = gap_spans(want, have)
    if _may_be_first(want, have):
        spans.append((max(want.since_ms, have.start_ms - PAGE * want.step_ms), have.start_ms))
    return [job for span in spans for job in pieces(want, span)]


def gap_spans(want: Want, have: Manifest) -> list[Span]:
    """Unconfirmed gaps in the wanted time; close ones are asked for together."""
    spans: list[Span] = []
    for gap in (gap for gap in have.open_gaps if gap.end_ms > want.since_ms and gap.start_ms < want.until_ms):
        if spans and gap.end_ms - spans[-1][0] <= PAGE * want.step_ms:
            spans[-1] = (spans[-1][0], gap.end_ms)
        else:
            spans.append((gap.start_ms, gap.end_ms))
    return spans


def pieces(want: Want, span: Span) -> Iterator[Job]:
    """A span as jobs of at most PAGES pages."""
    size = PAGES * PAGE * want.step_ms
    for start in range(span[0], span[1], size):
        yield Job(want, start, min(start + size, span[1]))


def compare(old: pl.DataFrame, new: pl.DataFrame) -> Change:
    """What new rows change of stored ones; both sorted by `timestamp`, columns alike."""
    names = [name for name in old.columns if name != "timestamp"]
    both = old.join(new, on="timestamp", how="inner", suffix="_new", maintain_order="left")
    differs = both.filter(pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_new")) for name in names))
    if differs.is_empty():
        return Change(both.height, 0)
    row = differs.row(0, named=True)
    first = int(differs["timestamp"].dt.timestamp("ms")[0])
    stored, told = tuple(row[name] for name in names), tuple(row[f"{name}_new"] for name in names)
    return Change(both.height, differs.height, first, stored, told)


def refuse_another_market(want: Want, change: Change) -> None:
    """Raise SourceError where not one candle is what is stored: another seed, replay or contract under one name."""
    if want.has_candles and change.both and change.revised == change.both and change.first_ms is not None:
        raise SourceError(
            f"the candle of {iso(change.first_ms)} is {change.stored} in the store and {change.told} at the exchange, "
            f"and so are all {change.both} that were compared",
            where=str(want.key),
            todo=f"delete the stored series of {want.key.exchange}, or use another workspace",
        )


def learned(want: Want, have: Manifest, asked: Iterable[Job], *, active: bool) -> Known:
    """What is known after the third round: gaps that it asked for in vain, the first row, and the last one ever."""
    spans = [(job.start_ms, job.end_ms) for job in asked]

    def vain(gap: Gap) -> bool:
        return any(start <= gap.start_ms and gap.end_ms <= end for start, end in spans) or gap not in have.open_gaps

    listed = have.start_ms if _may_be_first(want, have) else have.known.listed_ms
    confirmed = tuple(gap for gap in have.gaps if vain(gap))
    return replace(
        have.known, confirmed=confirmed, listed_ms=listed, delisted_ms=None if active else have.end_ms or None
    )


def _may_be_first(want: Want, have: Manifest) -> bool:
    return want.since_ms + want.step_ms <= have.start_ms
