"""Candles, funding and mark prices from any exchange into the store.

Only closed candles are stored, by the exchange's own clock: the sandbox's virtual time is not the machine's. Answers
are written as they come, so a killed backfill has lost nothing but what was on its way, and the next one goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import polars as pl

from observability.errors import MtstError, SourceError
from observability.progress import Progress, ProgressTask
from pipelines import backfill as plan
from pipelines.adapters.ccxt_source import SANDBOX, ExchangeSource, assert_only, binance_urls, open_exchange
from pipelines.adapters.fetching import fetch_all
from pipelines.adapters.node_fetching import NodeFetchers
from pipelines.adapters.wanted import Asked, nothing, present, told, wanted_series
from pipelines.backfill import Fetched, Job, Want
from pipelines.backfill_summary import BackfillSummary, SeriesBackfill
from pipelines.candles import Repairs, iso
from pipelines.manifest import Manifest
from pipelines.store import CandleStore, SeriesKey

__all__ = [
    "REREAD",
    "SANDBOX",
    "BackfillSummary",
    "ExchangeSource",
    "NodeFetchers",
    "SeriesBackfill",
    "assert_only",
    "backfill",
    "binance_urls",
    "open_exchange",
]
REREAD = 100
"""Newest stored rows that are asked for again: exchanges mend the candles of the last hours."""


@dataclass
class _Tally:
    """One series while it is brought up to date."""

    want: Want
    before: Manifest
    active: bool
    reached_ms: int = 0
    revised: int = 0
    revised_from_ms: int | None = None
    repaired: int = 0
    repairs: Repairs = field(default_factory=Repairs)
    asked: list[Job] = field(default_factory=list)
    error: MtstError | None = None


def backfill(
    source: ExchangeSource,
    store: CandleStore,
    pairs: Sequence[str],
    timeframe: str | Sequence[str],
    *,
    since_ms: int,
    until_ms: int,
    progress: Progress,
    kinds: Sequence[str] = ("ohlcv", "funding"),
    reread: int = REREAD,
    verify: bool = False,
    fetchers: NodeFetchers | None = None,
) -> BackfillSummary:
    """Fetch what the store lacks of [since, until), only closed candles, and merge it in.

    Resumes where an earlier run stopped. Funding and mark prices are those of the pair's linear perpetual; a source
    without it leaves a note and is no error. `reread` newest rows are asked for again; `verify` reads every stored file
    of the series and sets damaged ones aside first. `fetchers` do the asking on other nodes; default: threads here.

    Raises:
        UnreachableError: the exchange does not answer; what came before is stored.
        SourceError: the exchange does not know a pair, or shows another past than is stored, or answers garbage for a
            series: then the others are complete.
    """
    asked_before = source.requests
    started, frames = time.monotonic(), (timeframe,) if isinstance(timeframe, str) else tuple(timeframe)
    now_ms, skew = present(source)
    latest_ms = now_ms + abs(skew or 0)
    until_ms = min(until_ms, now_ms)
    if since_ms >= until_ms:
        raise SourceError(f"nothing to fetch from {iso(since_ms)} to {iso(until_ms)}", where=source.name)
    wanted, notes = wanted_series(source, store, Asked(tuple(pairs), frames, tuple(kinds), since_ms, until_ms))
    mended = tuple(text for want in wanted for text in store.mend(want.key, thorough=verify))
    markets = source.markets()
    tallies = {
        want.key: _Tally(want, _manifest(store, want, latest_ms), markets[want.symbol].get("active") is not False)
        for want in wanted
    }
    run = _Run(store, tallies, fetchers or partial(fetch_all, source))
    run.expect(reread)
    with progress.task(f"backfill from {source.name}", total=run.total) as task:
        run.rounds(task, reread)
    done = [_summed(store, tally) for tally in tallies.values()]
    _raise_failures(source, tallies.values())
    return BackfillSummary(
        source.name,
        frames[0],
        since_ms,
        until_ms,
        source.requests - asked_before + (fetchers.requests if fetchers else 0),
        (*done, *notes),
        frames,
        time.monotonic() - started,
        skew,
        mended,
    )


class _Run:
    """The three rounds of one backfill."""

    def __init__(
        self,
        store: CandleStore,
        tallies: dict[SeriesKey, _Tally],
        fetch: Callable[[Sequence[Job]], Iterator[Sequence[Fetched]]],
    ) -> None:
        self._fetch, self._store, self._tallies = fetch, store, tallies
        self._started, self._rows, self._stored, self.total = time.monotonic(), 0, 0, 0

    def expect(self, reread: int) -> None:
        """Count the rows that the first two rounds may bring."""
        for tally in self._tallies.values():
            first = plan.first_round(tally.want, tally.before, reread)
            reached = min(first.end_ms, first.start_ms + first.rows * tally.want.step_ms)
            self.total += first.rows + sum(job.rows for job in plan.second_round(tally.want, tally.before, reached))

    def rounds(self, task: ProgressTask, reread: int) -> None:
        """Ask, store, ask again."""
        self._round(task, lambda tally: [plan.first_round(tally.want, tally.before, reread)])
        self._round(task, lambda tally: plan.second_round(tally.want, tally.before, tally.reached_ms))
        # Again while it helps: behind rows that were missing there may be more.
        while self._round(task, lambda tally: plan.third_round(tally.want, self._now(tally)), last=True):
            pass
        for tally in self._tallies.values():
            now = self._now(tally)
            if tally.error is None and now.rows:
                self._store.note(tally.want.key, plan.learned(tally.want, now, tally.asked, active=tally.active))

    def _round(self, task: ProgressTask, jobs_of: Callable[[_Tally], Iterable[Job]], *, last: bool = False) -> int:
        """Ask for the jobs of all series, store what comes; the number of rows that were not stored before."""
        before = self._stored
        jobs = [job for tally in self._tallies.values() if tally.error is None for job in jobs_of(tally)]
        for batch in self._fetch(jobs):
            for key in {fetched.job.want.key for fetched in batch}:
                self._take(self._tallies[key], [each for each in batch if each.job.want.key == key], in_gap=last)
            for job in (fetched.job for fetched in batch if not last):
                self._rows += job.rows
                task.advance(job.rows, self._note(job))
        return self._stored - before

    def _take(self, tally: _Tally, batch: Sequence[Fetched], *, in_gap: bool) -> None:
        """Compare each answer of one series with what is stored, and write all of them at once."""
        tables = []
        try:
            for fetched in batch:
                tally.reached_ms = max(tally.reached_ms, fetched.reached_ms)
                tally.repairs += fetched.repairs
                if in_gap:
                    tally.asked.append(fetched.job)
                if fetched.error is not None:
                    raise fetched.error
                if fetched.table is not None and not fetched.table.is_empty():
                    self._compare(tally, fetched.table, in_gap=in_gap)
                    tables.append(fetched.table)
        except MtstError as error:
            tally.error = tally.error or error
        if tables:
            self._store.write(tally.want.key, pl.concat(tables).sort("timestamp"))

    def _compare(self, tally: _Tally, table: pl.DataFrame, *, in_gap: bool) -> None:
        times, have, both = table["timestamp"].dt.timestamp("ms"), tally.before, 0
        span = int(times[0]), int(times[-1]) + 1
        if self._store.exists(tally.want.key):
            change = plan.compare(self._store.read(tally.want.key, *span), table)
            plan.refuse_another_market(tally.want, change)
            both = change.both
            tally.revised += change.revised
            if change.first_ms is not None:
                tally.revised_from_ms = min(tally.revised_from_ms or change.first_ms, change.first_ms)
        inside = in_gap or (have.rows > 0 and have.start_ms < span[0] and span[1] <= have.end_ms)
        tally.repaired += table.height - both if inside else 0
        self._stored += table.height - both

    def _now(self, tally: _Tally) -> Manifest:
        key = tally.want.key
        return self._store.manifest(key) if self._store.exists(key) else Manifest(key.timeframe)

    def _note(self, job: Job) -> str:
        rate = self._rows / max(1e-3, time.monotonic() - self._started)
        key, left = job.want.key, max(0, self.total - self._rows) / max(1.0, rate)
        return f"{key.pair} {key.timeframe or key.kind}, {rate:,.0f} rows/s, about {left:.0f} s left"


def _manifest(store: CandleStore, want: Want, now_ms: int) -> Manifest:
    if not store.exists(want.key):
        return Manifest(want.key.timeframe)
    have = store.manifest(want.key)
    if have.end_ms > now_ms:
        raise SourceError(
            f"stored rows of {want.key} reach {iso(have.end_ms)}, after the exchange's present ({iso(now_ms)})",
            todo=f"delete the stored series of {want.key.exchange}, or use another workspace",
        )
    return have


def _summed(store: CandleStore, tally: _Tally) -> SeriesBackfill:
    key = tally.want.key
    if not store.exists(key):
        return nothing(key, f"{key.exchange} has no rows then of")
    now = told(store, key)
    return replace(
        now,
        new_rows=now.rows - tally.before.rows,
        revised=tally.revised,
        revised_from_ms=tally.revised_from_ms,
        repaired=tally.repaired,
        repairs=tally.repairs,
    )


def _raise_failures(source: ExchangeSource, tallies: Iterable[_Tally]) -> None:
    every = list(tallies)
    failed = [tally.error for tally in every if tally.error is not None]
    if failed:
        first, others = failed[0], len(every) - len(failed)
        raise type(first)(
            f"{len(failed)} of {len(every)} series failed, {others} are complete; the first: {first.what}",
            where=first.where or source.name,
            todo=first.todo,
        )
