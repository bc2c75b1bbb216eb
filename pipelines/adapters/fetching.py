"""Pieces of a backfill fetched side by side: threads hide the exchange's latency, and one budget holds them back.

Threads, not processes: a page of a thousand candles costs about 15 ms of Python, and the fastest of the large exchanges
grants one every 20 ms. Limits count by address, so more workers behind one address would only wait for each other.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TypeVar

import polars as pl

from observability.errors import MtstError, SourceError, UnreachableError
from observability.logging import get_logger
from pipelines.adapters.ccxt_source import ExchangeSource
from pipelines.backfill import Fetched, Job
from pipelines.candles import CANDLE_SCHEMA, Repairs, iso, repair_candles
from pipelines.enrich import FUNDING_SCHEMA

WORKERS = 8
_BEAT_S = 0.5
_SURELY_WRONG = 10  # so many rows and not one good: the exchange means something else than we
_log = get_logger(__name__)
T = TypeVar("T")


def fetch_all(source: ExchangeSource, jobs: Sequence[Job], workers: int = WORKERS) -> Iterator[Sequence[Fetched]]:
    """Yield what the jobs brought, all that is there at a time; one that fails yields its error, and the others go on.

    Raises:
        UnreachableError: the exchange is away; the jobs that are left are given up.
    """
    todo: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[Fetched | BaseException] = queue.SimpleQueue()

    def work() -> None:
        while (job := todo.get()) is not None:
            try:
                done.put(fetch(source, job))
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
                done.put(error)

    for job in (*jobs, *[None] * workers):
        todo.put(job)
    # Daemons: one that hangs in a request must not keep a stopped command alive.
    threads = [threading.Thread(target=work, name=f"fetch-{n}", daemon=True) for n in range(min(workers, len(jobs)))]
    for thread in threads:
        thread.start()
    try:
        left = len(jobs)
        while left:
            batch = _waited(done)
            left -= len(batch)
            for error in (each if isinstance(each, BaseException) else each.error for each in batch):
                if isinstance(error, UnreachableError) or not isinstance(error, MtstError | None):
                    raise error
            yield [each for each in batch if isinstance(each, Fetched)]
    finally:
        with suppress(queue.Empty):
            while True:  # stopped early: no worker begins anything new
                todo.get_nowait()
        for _ in threads:
            todo.put(None)


def _waited(results: queue.SimpleQueue[T]) -> list[T]:
    """What is there, at least one. In beats: a library's own handler of Ctrl-C lets waits without an end go on."""
    batch: list[T] = []
    while not batch:
        with suppress(queue.Empty):
            batch.append(results.get(timeout=_BEAT_S))
            while True:
                batch.append(results.get_nowait())
    return batch


def fetch(source: ExchangeSource, job: Job) -> Fetched:
    """One job, page after page."""
    want, rows, cursor, pages = job.want, [], job.start_ms, 0
    try:
        while cursor < job.end_ms and pages < job.pages:
            page = source.page(want.key.kind, want.symbol, want.key.timeframe, cursor)
            rows += [row for row in page if cursor <= row[0] < job.end_ms]
            last = max((int(row[0]) for row in page), default=-1)
            # Some exchanges answer a window without trades with nothing: go on behind it.
            beyond = cursor + source.reach(want.key.kind, want.symbol) * want.step_ms
            cursor = last + want.next_ms if last >= cursor else beyond
            pages += 1
        table, repairs = _table(rows, job)
    except MtstError as error:
        return Fetched(job, error=error)
    return Fetched(job, table, repairs, min(cursor, job.end_ms))


def _table(rows: list[list[float]], job: Job) -> tuple[pl.DataFrame, Repairs]:
    want = job.want
    schema = CANDLE_SCHEMA if want.has_candles else FUNDING_SCHEMA
    raw = {name: pl.Float64() if name != "timestamp" else pl.Int64() for name in schema}
    table = pl.DataFrame(rows, schema=raw, orient="row", strict=False).with_columns(
        pl.from_epoch("timestamp", "ms").dt.cast_time_unit("ms").dt.replace_time_zone("UTC")
    )
    if not want.has_candles:
        good = table.filter(pl.col("funding_rate").is_finite()).unique("timestamp", keep="last").sort("timestamp")
        return good, Repairs(not_finite=table.height - good.height)
    fixed, repairs = repair_candles(table, want.key.timeframe, str(want.key))
    if fixed.is_empty() and len(rows) >= _SURELY_WRONG:
        raise SourceError(
            f"all {len(rows)} candles from {iso(int(rows[0][0]))} on are wrong: {repairs}",
            where=str(want.key),
            todo="see whether the exchange has trouble or counts days in another time zone; nothing was stored",
        )
    if repairs.dropped:
        _log.warning("dropped bad candles", series=str(want.key), start=iso(job.start_ms), **asdict(repairs))
    return fixed if want.key.kind == "ohlcv" else fixed.drop("volume"), repairs
