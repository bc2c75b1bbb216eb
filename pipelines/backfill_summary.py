"""What a backfill did, as values and in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pipelines.candles import Repairs, iso, timeframe_ms

MINUTE_MS = 60_000
CLOCK_TOLERANCE_MS = 1_000


@dataclass(frozen=True)
class SeriesBackfill:
    """What a backfill did to one series.

    `rows`, `start_ms`, `end_ms`: the series now. `new_rows` more than before; `revised` ones were replaced because the
    exchange tells them otherwise now; `repaired` were fetched into gaps; `repairs` counts what was wrong with its
    answers. `missing` candles are absent, of which the exchange has `confirmed` so many. `note` says why nothing was
    fetched, if so.
    """

    kind: str
    pair: str
    rows: int = 0
    new_rows: int = 0
    start_ms: int = 0
    end_ms: int = 0
    missing: int = 0
    note: str = ""
    timeframe: str = ""
    revised: int = 0
    revised_from_ms: int | None = None
    repaired: int = 0
    repairs: Repairs = field(default_factory=Repairs)
    confirmed: int = 0
    listed_ms: int | None = None
    delisted_ms: int | None = None
    content_hash: str = ""

    @property
    def name(self) -> str:
        """For a table or a sentence."""
        return " ".join(filter(None, (self.pair, self.timeframe or self.kind)))


@dataclass(frozen=True)
class BackfillSummary:
    """What a backfill did; `clock_skew_ms` is the exchange's clock minus ours (None where its time is virtual)."""

    exchange: str
    timeframe: str
    since_ms: int
    until_ms: int
    requests: int
    series: tuple[SeriesBackfill, ...]
    timeframes: tuple[str, ...] = ()
    seconds: float = 0.0
    clock_skew_ms: int | None = None
    mended: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Candles stored in all pairs."""
        return sum(item.rows for item in self.series if item.kind == "ohlcv")

    @property
    def new_rows(self) -> int:
        """Rows that were not there before, of every kind."""
        return sum(item.new_rows for item in self.series)


def explain(summary: BackfillSummary) -> tuple[str, ...]:
    """What happened, what it means and what to do next, a sentence each."""
    return tuple(_sentences(summary))


def _sentences(summary: BackfillSummary) -> Iterator[str]:
    stored = [item for item in summary.series if item.rows]
    rate = summary.new_rows / summary.seconds if summary.seconds else 0.0
    yield (
        f"{summary.new_rows:,} new rows in {len(stored)} series of {summary.exchange}, by {summary.requests} requests "
        f"in {summary.seconds:.1f} s ({rate:,.0f} rows/s)."
    )
    for note in sorted({item.note for item in summary.series if item.note}):
        yield f"{note} {', '.join(item.name for item in summary.series if item.note == note)}."
    yield from (f"Damage was found and mended: {text}." for text in summary.mended)
    for item in summary.series:
        yield from _about(item, summary.until_ms)
    skew = summary.clock_skew_ms
    if skew is not None and abs(skew) > CLOCK_TOLERANCE_MS:
        yield (
            f"This machine's clock is {abs(skew) / 1000:.1f} s {'behind' if skew > 0 else 'ahead of'} the exchange's. "
            "Only candles that are closed by both were stored; set this clock (NTP) before you trade."
        )
    open_gaps = sum(item.missing - item.confirmed for item in stored)
    if open_gaps:
        yield f"{open_gaps} candles are missing and not confirmed to be: run data backfill again."
    yield "Next: data inspect, then data features." if stored else "Nothing is stored: check the pairs and the time."


def _about(item: SeriesBackfill, until_ms: int) -> Iterator[str]:
    if item.repaired:
        yield f"{item.name}: {item.repaired} candles that were missing are there now."
    if item.revised and item.revised_from_ms is not None:
        yield (
            f"{item.name}: the exchange revised {item.revised} stored rows from {iso(item.revised_from_ms)} on; they "
            "were replaced. Features made of them are made again by data features."
        )
    if str(item.repairs):
        yield f"{item.name}: the exchange's answers had rows that were wrong ({item.repairs}); it was asked again."
    if item.confirmed:
        yield (
            f"{item.name}: {item.confirmed} candles are missing at the exchange as well, asked twice. They stay gaps: "
            "nothing is invented, and windows across them are not learned from."
        )
    if item.listed_ms is not None:
        yield f"{item.name}: listed at {iso(item.listed_ms)}; the exchange has nothing before."
    if item.delisted_ms is not None:
        yield f"{item.name}: no longer traded; its last row is of {iso(item.delisted_ms)}."
    elif item.rows and item.timeframe:
        age = until_ms - item.end_ms - timeframe_ms(item.timeframe)
        if age > timeframe_ms(item.timeframe) + MINUTE_MS:
            yield f"{item.name}: the newest candle closed {age // MINUTE_MS} minutes ago; there is no newer one."
