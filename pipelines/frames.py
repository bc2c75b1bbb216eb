"""From stored series to feature rows: the one path that batch and live share."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from observability.errors import SpecError, StoreError
from pipelines.blobs import Blobs
from pipelines.candles import CANDLE_SCHEMA, PAIR, pair_column, timeframe_ms, validate_candles
from pipelines.enrich import enrich_funding, enrich_mark, enrich_onchain
from pipelines.features import make_features
from pipelines.features.market import close_column
from pipelines.labels import forward_returns, next_open, triple_barrier
from pipelines.spec import DatasetSpec
from pipelines.store import CandleStore, SeriesKey, pair_folder

ONCHAIN_EXCHANGE = "file"
SPEC_FILE = "spec.json"


@dataclass(frozen=True)
class Enrichment:
    """The other series that one pair's features read; None where the spec needs none.

    `market` holds the closes of all pairs of the spec: `timestamp` and a column a pair (see `market_closes`).
    """

    funding: pl.DataFrame | None = None
    mark: pl.DataFrame | None = None
    onchain: pl.DataFrame | None = None
    market: pl.DataFrame | None = None


def enrichment_keys(spec: DatasetSpec, exchange: str, pair: str) -> dict[str, SeriesKey]:
    """Which stored series feed one pair's features: some of "funding", "mark", "onchain"."""
    keys = {
        "funding": SeriesKey(exchange, "funding", pair),
        "mark": SeriesKey(exchange, "mark", pair, spec.timeframe),
        "onchain": onchain_key(spec.onchain_asset, pair),
    }
    return {source: key for source, key in keys.items() if source in spec.sources}


def onchain_key(asset: str, pair: str) -> SeriesKey:
    """Where on-chain metrics lie: `asset` is "BTC", "base" for the pair's own, or either with a source before it."""
    source, _, name = asset.rpartition(":")
    return SeriesKey(source or ONCHAIN_EXCHANGE, "onchain", pair.split("/", 1)[0] if name == "base" else name)


def market_keys(spec: DatasetSpec, exchange: str) -> dict[str, SeriesKey]:
    """The candles whose closes feed every pair's features, by pair; empty if the spec reads no market."""
    pairs = spec.pairs if "market" in spec.sources else ()
    return {pair: SeriesKey(exchange, "ohlcv", pair, spec.timeframe) for pair in pairs}


def market_closes(candles: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Closes of several pairs side by side: `timestamp` and a column a pair, null where a pair has no candle."""
    table = pl.DataFrame(schema={"timestamp": CANDLE_SCHEMA["timestamp"]})
    for pair, rows in candles.items():
        closes = rows.select("timestamp", pl.col("close").alias(close_column(pair)))
        table = table.join(closes, on="timestamp", how="full", coalesce=True)
    return table.sort("timestamp")


def read_enrichment(
    store: CandleStore,
    spec: DatasetSpec,
    exchange: str,
    pair: str,
    span: tuple[int | None, int | None] = (None, None),
) -> Enrichment:
    """Read what the spec needs for a pair.

    Args:
        store: where the series lie.
        spec: which series.
        exchange: whose candles, funding and mark prices.
        pair: the pair.
        span: [since, until) in ms of the candles that are to be enriched; slower series are read as a whole.

    Raises:
        StoreError: if a series that it needs is not stored.
    """
    # Mark prices are as many as candles; the others are few, and reach back further than the candles.
    slow = {
        source: store.read(key, *_mark_span(span, spec.timeframe)) if source == "mark" else store.read(key)
        for source, key in enrichment_keys(spec, exchange, pair).items()
    }
    closes = {other: store.read(key, *span) for other, key in market_keys(spec, exchange).items()}
    return Enrichment(**slow, market=market_closes(closes) if closes else None)


def _mark_span(span: tuple[int | None, int | None], timeframe: str) -> tuple[int | None, int | None]:
    """The mark candle before the first candle may be the last known one."""
    since, until = span
    return (None if since is None else since - 2 * timeframe_ms(timeframe), until)


def read_features(folder: str, pair: str) -> pl.DataFrame:
    """All periods of one pair's features below a data set's folder, oldest first; no rows if there are none."""
    blobs = Blobs.at(folder)
    names = blobs.names(".parquet", pair_folder(pair))
    parts = [pl.read_parquet(io.BytesIO(blobs.read(name))) for name in names]
    return pl.concat(parts).sort("timestamp") if parts else pl.DataFrame()


def read_spec(folder: str) -> DatasetSpec:
    """The specification that lies beside a data set's feature files.

    Raises:
        StoreError: if there is none.
        SpecError: if this code cannot compute it any more.
    """
    blobs = Blobs.at(folder)
    try:
        return DatasetSpec.from_json(blobs.read(SPEC_FILE).decode())
    except FileNotFoundError as error:
        raise StoreError("no data set lies here", where=blobs.root, todo="run `data features` first") from error


def enrich(candles: pl.DataFrame, spec: DatasetSpec, enrichment: Enrichment) -> pl.DataFrame:
    """One pair's candles with the enrichment columns that the spec needs.

    Raises:
        SpecError: if the spec needs a series that is not given.
    """
    for source in sorted(spec.sources):
        table = getattr(enrichment, source)
        if table is None:
            raise SpecError(
                f"the features need {source} data", where="feature_frame", todo="backfill it, or leave it out"
            )
        candles = _join(source, candles, table, spec.timeframe)
    return candles


def _join(source: str, candles: pl.DataFrame, table: pl.DataFrame, timeframe: str) -> pl.DataFrame:
    if source == "funding":
        return enrich_funding(candles, table, timeframe=timeframe)
    if source == "mark":
        return enrich_mark(candles, table, timeframe=timeframe, mark_timeframe=timeframe)
    if source == "onchain":
        return enrich_onchain(candles, table, timeframe=timeframe)
    return candles.join(table, on="timestamp", how="left", maintain_order="left")


def feature_frame(candles: pl.DataFrame, spec: DatasetSpec, enrichment: Enrichment | None = None) -> pl.DataFrame:
    """Features of one pair from raw candles: validate, enrich, compute.

    Args:
        candles: candle table on the spec's grid; a live caller gives at least `spec.history` rows.
        spec: the data set.
        enrichment: the other series that the spec reads.

    Returns:
        As many rows as `candles`: `timestamp`, `close`, `spec.columns`; null where history or enrichment is missing.

    Raises:
        CandleError: if the candles break their contract.
        SpecError: if enrichment is missing.
    """
    checked = validate_candles(candles, spec.timeframe, "feature_frame")
    return make_features(enrich(checked, spec, enrichment or Enrichment()), spec)


def feature_frames(
    candles: Mapping[str, pl.DataFrame], spec: DatasetSpec, enrichment: Mapping[str, Enrichment] | None = None
) -> dict[str, pl.DataFrame]:
    """`feature_frame` of many pairs in one go: what a hundred pairs cost live is mostly the number of calls.

    The market's closes are taken from the candles themselves, so a spec that reads the market needs all of its pairs.

    Raises:
        CandleError: if candles break their contract.
        SpecError: if enrichment or a pair of the market is missing.
    """
    if not candles:
        return {}
    heights = [table.height for table in candles.values()]
    table = validate_candles(_one_table(candles, heights), spec.timeframe, "feature_frames")
    if "market" in spec.sources:
        absent = sorted(set(spec.pairs) - set(candles))
        if absent:
            raise SpecError(f"the features read the whole market, but {absent} are missing", where="feature_frames")
        table = _join("market", table, market_closes({pair: candles[pair] for pair in spec.pairs}), spec.timeframe)
    for source in sorted(spec.sources - {"market"}):
        table = _join_each(source, table, candles, (heights, spec.timeframe, enrichment or {}))
    features = make_features(table, spec).drop(PAIR)
    starts = np.cumsum([0, *heights])
    return {pair: features.slice(int(start), size) for pair, start, size in zip(candles, starts, heights, strict=False)}


def _one_table(candles: Mapping[str, pl.DataFrame], heights: list[int]) -> pl.DataFrame:
    table = pl.concat([table.select(*CANDLE_SCHEMA) for table in candles.values()], rechunk=True)
    return table.with_columns(pair_column(list(candles), heights))


def _join_each(
    source: str,
    table: pl.DataFrame,
    candles: Mapping[str, pl.DataFrame],
    how: tuple[list[int], str, Mapping[str, Enrichment]],
) -> pl.DataFrame:
    """Join each pair's own series, and one that all pairs share only once."""
    heights, timeframe, enrichment = how
    given = (getattr(enrichment.get(pair), source, None) for pair in candles)
    series: list[pl.DataFrame] = [one for one in given if one is not None]
    if len(series) < len(candles):
        raise SpecError(f"the features need {source} data", where="feature_frames", todo="backfill it, or leave it out")
    if all(one is series[0] for one in series):
        times = table.select("timestamp").unique().sort("timestamp")
        return table.join(_join(source, times, series[0], timeframe), on="timestamp", how="left", maintain_order="left")
    starts = np.cumsum([0, *heights])
    parts = (table.slice(int(start), size) for start, size in zip(starts, heights, strict=False))
    return pl.concat([_join(source, part, one, timeframe) for part, one in zip(parts, series, strict=True)])


def training_frame(candles: pl.DataFrame, spec: DatasetSpec, enrichment: Enrichment) -> pl.DataFrame:
    """`feature_frame`, and beside it the labels: `fwd_{h}`, the spec's barriers, and the `next_open` at which an order
    would be filled."""
    features = feature_frame(candles, spec, enrichment)
    labels = forward_returns(features, spec.horizons, timeframe=spec.timeframe)
    barriers = [triple_barrier(candles, barrier, timeframe=spec.timeframe) for barrier in spec.barriers]
    return features.hstack([*labels, *barriers, next_open(candles, timeframe=spec.timeframe)])
