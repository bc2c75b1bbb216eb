"""Which series somebody asks for, in the exchange's own names and time."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from observability.errors import SourceError
from pipelines.adapters.ccxt_source import SANDBOX, ExchangeSource
from pipelines.backfill import FUNDING_STEP_MS, Want
from pipelines.backfill_summary import SeriesBackfill
from pipelines.candles import timeframe_ms
from pipelines.store import CandleStore, SeriesKey


@dataclass(frozen=True)
class Asked:
    """What somebody wants of an exchange, on [since, until)."""

    pairs: tuple[str, ...]
    timeframes: tuple[str, ...]
    kinds: tuple[str, ...]
    since_ms: int
    until_ms: int


def wanted_series(source: ExchangeSource, store: CandleStore, asked: Asked) -> tuple[list[Want], list[SeriesBackfill]]:
    """The series to fetch, and a note for each that the exchange does not offer.

    Raises:
        SourceError: a pair or timeframe that the exchange does not know and of which nothing is stored.
    """
    markets, wanted, notes = source.markets(), [], []
    unknown = [pair for pair in asked.pairs if pair not in markets and not _stored(source, store, pair, asked)]
    if unknown:
        raise SourceError(f"the exchange offers no {', '.join(unknown)}", where=source.name, todo="check the pairs")
    offered = source.client.timeframes or {}
    strange = [each for each in asked.timeframes if offered and each not in offered]
    if strange:
        todo = f"it offers {', '.join(offered)}"
        raise SourceError(f"the exchange offers no candles of {', '.join(strange)}", where=source.name, todo=todo)
    for pair in asked.pairs:
        for kind in asked.kinds:
            symbol = pair if kind == "ohlcv" or ":" in pair else f"{pair}:{pair.split('/')[1]}"
            supported = kind != "funding" or source.client.has.get("fetchFundingRateHistory")
            for timeframe in asked.timeframes if kind in ("ohlcv", "mark") else ("",):
                key = SeriesKey(source.name, kind, pair, timeframe)
                if symbol in markets and supported:
                    wanted.append(_want(key, symbol, asked))
                else:
                    gone = store.exists(key)
                    note = f"{source.name} {'no longer offers' if gone else 'offers no'} {kind} of"
                    notes.append(replace(told(store, key), note=note) if gone else nothing(key, note))
    return wanted, notes


def present(source: ExchangeSource) -> tuple[int, int | None]:
    """The present, and by how much the exchange's clock is ahead of ours; the sandbox's is virtual, ahead of nothing.

    Where the two differ the earlier one counts: a candle is closed only when nobody doubts it.
    """
    asked = time.time()
    now_ms = source.now_ms()
    if source.name == SANDBOX:
        return now_ms, None
    ours = round((asked + time.time()) / 2 * 1000)
    return min(now_ms, ours), now_ms - ours


def _want(key: SeriesKey, symbol: str, asked: Asked) -> Want:
    if key.kind == "funding":
        return Want(key, symbol, FUNDING_STEP_MS, asked.since_ms, asked.until_ms)
    step = timeframe_ms(key.timeframe)
    # A candle that opens later than this is not closed yet.
    return Want(key, symbol, step, asked.since_ms, asked.until_ms - step + 1)


def _stored(source: ExchangeSource, store: CandleStore, pair: str, asked: Asked) -> bool:
    return any(store.exists(SeriesKey(source.name, "ohlcv", pair, each)) for each in asked.timeframes)


def nothing(key: SeriesKey, note: str) -> SeriesBackfill:
    """A series of which nothing is stored, and why."""
    return SeriesBackfill(key.kind, key.pair, note=note, timeframe=key.timeframe)


def told(store: CandleStore, key: SeriesKey) -> SeriesBackfill:
    """A stored series as it is now."""
    now = store.manifest(key)
    missing = sum(gap.missing for gap in now.gaps)
    return SeriesBackfill(
        key.kind,
        key.pair,
        now.rows,
        0,
        now.start_ms,
        now.end_ms,
        missing,
        timeframe=key.timeframe,
        confirmed=missing - sum(gap.missing for gap in now.open_gaps),
        listed_ms=now.known.listed_ms,
        delisted_ms=now.known.delisted_ms,
        content_hash=now.content_hash,
    )
