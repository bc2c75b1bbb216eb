"""The pieces in which a data set is made: one pair over one period, each from its own reach of candles, and no more.

A feature's bits depend on its warm-up alone, so a piece that is made from the candles of its period, the warm-up before
it and the horizon behind it equals that stretch of the whole, bit for bit. Periods are cut at absolute times, and what
a piece is made from is named by the hashes of the stored months in its reach: new candles change the last piece only,
and the one before it as long as its labels reach into the month that is filling.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise

import polars as pl

from pipelines.blobs import Blobs
from pipelines.candles import timeframe_ms
from pipelines.frames import enrichment_keys, market_keys, read_enrichment, training_frame
from pipelines.manifest import Manifest
from pipelines.series import to_parquet
from pipelines.spec import DatasetSpec
from pipelines.store import CandleStore, SeriesKey, pair_folder

_DAY_MS = 86_400_000
# The shortest of month, year and everything that holds so many candles: smaller pieces cost more to start than to make.
_LEAST_ROWS = 30_000
# Slower series reach back: publications of 10 days, the value of a week before, and versions of both.
_SLOW_REACH_MS = 62 * _DAY_MS

# Between two tasks of a worker lie .15 s, since Ray Data asks ten times a second what has ended: some partitions' time.
_SMALLEST_TASK, _LARGEST_TASK = 16, 100

Read = Callable[[SeriesKey], Manifest]


@dataclass(frozen=True)
class Partition:
    """One pair over the period [start, end) in ms; `period` is its name, for example 2024 or 2024-03."""

    pair: str
    period: str
    start_ms: int
    end_ms: int

    @property
    def name(self) -> str:
        """Path of its files below the data set's folder, without their endings."""
        return f"{pair_folder(self.pair)}/{self.period}"


@dataclass(frozen=True)
class PartFacts:
    """What was made of a partition. `complete` counts rows with every feature and label; `size` is in bytes."""

    pair: str
    period: str
    rows: int
    complete: int
    size: int
    file_hash: str
    inputs: str
    reused: bool = False


def partitions_of(pair: str, timeframe: str, start_ms: int, end_ms: int) -> tuple[Partition, ...]:
    """The periods that hold the candles from `start_ms` to `end_ms`, both open times, oldest first."""
    edges = pairwise(_edges(timeframe, start_ms, end_ms))
    return tuple(Partition(pair, name, start, after) for (name, start), (_, after) in edges)


def task_sizes(parts: int, cores: int) -> list[int]:
    """How many partitions each task makes, in the order of their start; they add up to `parts`.

    Ever smaller, so that no core waits long for another's last task: guided self-scheduling, after Polychronopoulos and
    Kuck (IEEE Transactions on Computers, 1987), between two bounds: what waiting between tasks costs, and what a lost
    node has to do again.
    """
    sizes: list[int] = []
    while (rest := parts - sum(sizes)) > 0:
        share = math.ceil(rest / (1.5 * max(cores, 1)))
        sizes.append(min(max(share, _SMALLEST_TASK), _LARGEST_TASK, math.ceil(parts / max(cores, 1)), rest))
    return sizes


def plan(store: CandleStore, exchange: str, spec: DatasetSpec) -> dict[Partition, str]:
    """Every partition of a data set, and the hash of what it is made from besides the specification.

    Raises:
        StoreError: if a series is missing.
    """
    known: dict[SeriesKey, Manifest] = {}

    def read(key: SeriesKey) -> Manifest:
        if key not in known:
            known[key] = store.manifest(key)
        return known[key]

    planned = {}
    for pair in spec.pairs:
        candles = read(SeriesKey(exchange, "ohlcv", pair, spec.timeframe))
        for part in partitions_of(pair, spec.timeframe, candles.start_ms, candles.end_ms) if candles.rows else ():
            planned[part] = inputs_hash(read, exchange, spec, part)
    return planned


def inputs_hash(read: Read, exchange: str, spec: DatasetSpec, part: Partition) -> str:
    """Hash of the stored months that a partition's features and labels read."""
    since, until = reach(spec, part)
    keys = [SeriesKey(exchange, "ohlcv", part.pair, spec.timeframe), *market_keys(spec, exchange).values()]
    spans = [(key, since) for key in keys]
    spans += [(key, since - _SLOW_REACH_MS) for key in enrichment_keys(spec, exchange, part.pair).values()]
    text = [f"{key} {p.month} {p.content_hash}" for key, start in spans for p in read(key).between(start, until)]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()


def reach(spec: DatasetSpec, part: Partition) -> tuple[int, int]:
    """[since, until) in ms of the candles that a partition is made from: warm-up before it, horizons behind it."""
    step = timeframe_ms(spec.timeframe)
    back = max((spec.warmup, *(barrier.window for barrier in spec.barriers)))
    ahead = max((*spec.horizons, *(barrier.horizon for barrier in spec.barriers)))
    return part.start_ms - back * step, part.end_ms + ahead * step


def partition_frame(store: CandleStore, exchange: str, spec: DatasetSpec, part: Partition) -> pl.DataFrame:
    """Features and labels of a partition's rows.

    Raises:
        StoreError: if a series is missing or damaged.
        CandleError: if candles break their contract.
    """
    span = reach(spec, part)
    candles = store.read(SeriesKey(exchange, "ohlcv", part.pair, spec.timeframe), *span)
    frame = training_frame(candles, spec, read_enrichment(store, spec, exchange, part.pair, span))
    return frame.filter(pl.col("timestamp").dt.timestamp("ms").is_between(part.start_ms, part.end_ms, closed="left"))


def build_partition(store: CandleStore, exchange: str, spec: DatasetSpec, out: Blobs, part: Partition) -> PartFacts:
    """Read, compute and write one partition, its facts last; safe to run twice.

    Nothing waits for the disk, on which every worker of a machine would wait in turn: what a loss of power leaves of
    a partition does not hash as its facts say, and is made again.
    """
    inputs = inputs_hash(store.manifest, exchange, spec, part)
    frame = partition_frame(store, exchange, spec, part)
    data = to_parquet(frame)
    complete = int(frame.select(pl.all_horizontal(pl.all().is_not_null()).sum()).item())
    digest = hashlib.sha256(data).hexdigest()
    facts = PartFacts(part.pair, part.period, frame.height, complete, len(data), digest, inputs)
    out.write(f"{part.name}.parquet", data, durable=False)
    out.write(f"{part.name}.json", json.dumps(asdict(facts), indent=1).encode(), durable=False)
    return facts


def reusable(out: Blobs, part: Partition, inputs: str) -> PartFacts | None:
    """The facts of a partition that was made from the same inputs and whose file is there as it was written."""
    try:
        facts = PartFacts(**{**json.loads(out.read(f"{part.name}.json")), "reused": True})
        # After a loss of power a local file may hold zeros in its size; an object is whole, and dear to read again.
        whole = out.holds(f"{part.name}.parquet", facts.size, facts.file_hash if out.is_local else "")
    except (FileNotFoundError, TypeError, ValueError):
        return None
    return facts if whole and facts.inputs == inputs else None


def _edges(timeframe: str, start_ms: int, end_ms: int) -> Iterator[tuple[str, int]]:
    """Names and starts of the periods from the one that holds `start_ms` to the one behind `end_ms`."""
    step = timeframe_ms(timeframe)
    months = next((m for m in (1, 12) if m * 30 * _DAY_MS // step >= _LEAST_ROWS), 0)
    if not months:
        yield from (("all", start_ms - start_ms % _DAY_MS), ("", end_ms + step))
        return
    first = datetime.fromtimestamp(start_ms / 1000, UTC)
    month = first.year * 12 + (first.month - 1) // months * months
    while True:
        edge = datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)
        yield edge.strftime("%Y-%m" if months == 1 else "%Y"), round(edge.timestamp() * 1000)
        if edge.timestamp() * 1000 > end_ms:
            return
        month += months
