"""On-chain metrics from Glassnode into the store, each value with the time from which on it could be known.

Glassnode revises: today's answer about a past day is not what it answered then. So a value's `available_at` is

- the time at which Glassnode computed it, from the metric's point-in-time variant, where there is one for the key;
- else the time at which we fetched it, for a value that is new, late or revised since we last asked;
- else, for history that nobody watched, the end of its interval and a declared delay. Such rows are marked, and their
  values may hold revisions made later: a backtest on them is flattered by as much as Glassnode revised.

A version of a value is never overwritten; a revision is one more row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from observability.errors import SourceError
from observability.progress import Progress
from pipelines.adapters.glassnode_client import RESOLUTIONS_MS, Glassnode, Point, UnknownMetricError
from pipelines.adapters.onchain_files import OnchainImport, store_onchain, summary_of
from pipelines.blobs import Blobs
from pipelines.candles import TIMESTAMP
from pipelines.enrich import ASSUMED, ONCHAIN_SCHEMA
from pipelines.store import CandleStore, SeriesKey

GLASSNODE = "glassnode"
# Our names, as the file adapter gives them too, and Glassnode's paths.
PATHS = {
    "active_addresses": "addresses/active_count",
    "tx_count": "transactions/count",
    "transfer_count": "transactions/transfers_count",
    "hash_rate": "mining/hash_rate_mean",
    "mvrv": "market/mvrv",
    "exchange_inflow": "transactions/transfers_volume_to_exchanges_sum",
    "exchange_outflow": "transactions/transfers_volume_from_exchanges_sum",
    "supply": "supply/current",
    "exchange_supply": "distribution/balance_exchanges",
    "fees": "fees/volume_sum",
}
# How far back a metric without point-in-time values is read again for revisions.
_REVISED_MS = 14 * 86_400_000
_PIT = "_pit"


@dataclass(frozen=True)
class GlassnodeWish:
    """What to fetch: `metrics` are our names or Glassnode's paths; `delay` is declared for unwatched history."""

    asset: str
    metrics: tuple[str, ...]
    since_ms: int
    resolution: str = "24h"
    delay: timedelta = timedelta(hours=24)
    point_in_time: bool = True


@dataclass(frozen=True)
class _Asked:
    """What earlier runs learned of a metric: the path that serves it, from when on it was asked for."""

    path: str
    since_ms: int
    resolution: str


@dataclass(frozen=True)
class _Metric:
    """One metric: its stored versions (`timestamp`, `available_at`, `value`) and what is known of it."""

    name: str
    column: str
    stored: pl.DataFrame
    asked: _Asked | None

    @property
    def newest_ms(self) -> int | None:
        newest = self.stored["timestamp"].dt.timestamp("ms").max()
        return newest if isinstance(newest, int) else None


def update_onchain(
    client: Glassnode, store: CandleStore, wish: GlassnodeWish, now_ms: int, progress: Progress
) -> OnchainImport:
    """Fetch what the store lacks of each metric and merge it in; what is stored and complete is not asked for again.

    Raises:
        SourceError: the key is refused, a metric is unknown, the API fails, or what is stored has another resolution.
    """
    key = SeriesKey(GLASSNODE, "onchain", wish.asset)
    memory = _Memory(store, wish.asset)
    notes: list[str] = []
    with progress.task(f"Glassnode {wish.asset}", total=len(wish.metrics)) as task:
        for name in wish.metrics:
            column = name.replace("/", "_")
            metric = _Metric(name, column, _stored(store, key, column), memory.of(column))
            asked, points = _fetch(client, metric, wish, now_ms)
            rows = _rows(points, metric, wish, now_ms)
            if rows.height:  # metric by metric, so that a limit that is hit loses nothing
                store_onchain(store, key, rows)
            memory.keep(column, asked)
            kind = "point in time" if asked.path.endswith(_PIT) else "declared delay"
            found = f"{rows.height} new" if rows.height or metric.stored.height else "no data"
            notes.append(f"{column}: {kind}, {found}")
            task.advance(1, notes[-1])
    if not store.exists(key):
        raise SourceError("Glassnode has no value of any metric", where=wish.asset, todo="check asset and metrics")
    return summary_of(store, key, "; ".join(notes))


def _fetch(client: Glassnode, metric: _Metric, wish: GlassnodeWish, now_ms: int) -> tuple[_Asked, Sequence[Point]]:
    """What is to be remembered of the metric, and the points that may be new."""
    asked, newest = metric.asked, metric.newest_ms
    plain = PATHS.get(metric.name, metric.name)
    path, since, first = (plain + _PIT if wish.point_in_time else plain), wish.since_ms, wish.since_ms
    if asked is not None:
        if asked.resolution != wish.resolution:
            raise SourceError(
                f"{metric.name} is stored at {asked.resolution}, not {wish.resolution}",
                where=f"{GLASSNODE} {wish.asset}",
                todo="delete the stored series, or keep its resolution",
            )
        path, first = asked.path, min(wish.since_ms, asked.since_ms)
        if newest is not None and asked.since_ms <= wish.since_ms:
            if newest + 2 * RESOLUTIONS_MS[wish.resolution] > now_ms:
                return asked, ()  # the interval after the newest one has not ended yet
            since = newest + 1 if path.endswith(_PIT) else max(wish.since_ms, newest - _REVISED_MS)
    try:
        points = client.metric(path, wish.asset, wish.resolution, since, now_ms)
    except UnknownMetricError:
        if path == plain:
            raise
        path = plain
        points = client.metric(path, wish.asset, wish.resolution, since, now_ms)
    return _Asked(path, first, wish.resolution), points


def _rows(points: Sequence[Point], metric: _Metric, wish: GlassnodeWish, now_ms: int) -> pl.DataFrame:
    """New rows: a value that is stored already is left out, every other gets the time from which on it was known."""
    last = metric.stored.sort(*ONCHAIN_SCHEMA).group_by("timestamp").agg(pl.col("value").last())
    known = dict(zip(last["timestamp"].dt.timestamp("ms"), last["value"], strict=True))
    watched = (min(known), max(known)) if known else (0, -1)
    step, delay_ms = RESOLUTIONS_MS[wish.resolution], int(wish.delay.total_seconds() * 1000)
    rows = []
    for point in points:
        if known.get(point.start_ms) == point.value:
            continue
        if point.computed_ms is not None:
            rows.append((point.start_ms, point.computed_ms, 0.0, point.value))
        else:
            declared = point.start_ms + step + delay_ms
            seen_now = watched[0] <= point.start_ms <= watched[1] or declared >= now_ms
            rows.append((point.start_ms, now_ms if seen_now else declared, float(not seen_now), point.value))
    table = pl.DataFrame(rows, schema=["timestamp", "available_at", ASSUMED, metric.column], orient="row")
    return table.with_columns(
        pl.col(*ONCHAIN_SCHEMA).cast(pl.Int64).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC").cast(TIMESTAMP),
        pl.col(ASSUMED, metric.column).cast(pl.Float64),
    )


def _stored(store: CandleStore, key: SeriesKey, column: str) -> pl.DataFrame:
    """Versions of one metric: `timestamp`, `available_at`, `value`."""
    table = store.read(key) if store.exists(key) else None
    if table is None or column not in table.columns:
        return pl.DataFrame(schema={**ONCHAIN_SCHEMA, "value": pl.Float64()})
    return table.select(*ONCHAIN_SCHEMA, pl.col(column).alias("value")).drop_nulls("value")


class _Memory:
    """A small file beside the series: without it every run would ask again for variants that do not exist."""

    def __init__(self, store: CandleStore, asset: str) -> None:
        self._blobs, self._name = Blobs.at(store.root), f"{GLASSNODE}/asked/{asset}.json"

    def of(self, column: str) -> _Asked | None:
        """What is known of a metric; a damaged file is nothing known, and is written anew."""
        found = self._read().get(column)
        return None if found is None else _Asked(**found)

    def keep(self, column: str, asked: _Asked) -> None:
        """Remember."""
        self._blobs.write(self._name, json.dumps({**self._read(), column: asked.__dict__}, indent=1).encode())

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._blobs.read(self._name)))
        except (FileNotFoundError, ValueError):
            return {}
