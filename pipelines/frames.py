"""From stored series to feature rows: the one path that batch and live share."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from observability.errors import SpecError, StoreError
from pipelines.blobs import Blobs
from pipelines.candles import validate_candles
from pipelines.enrich import enrich_funding, enrich_onchain
from pipelines.features import make_features
from pipelines.labels import forward_returns, next_open
from pipelines.spec import DatasetSpec
from pipelines.store import CandleStore, SeriesKey

ONCHAIN_EXCHANGE = "file"
SPEC_FILE = "spec.json"


@dataclass(frozen=True)
class Enrichment:
    """The slower series that one pair's features read; None where the spec needs none."""

    funding: pl.DataFrame | None = None
    onchain: pl.DataFrame | None = None


def enrichment_keys(spec: DatasetSpec, exchange: str, pair: str) -> dict[str, SeriesKey]:
    """Which stored series feed a pair's features: some of "funding", "onchain"."""
    keys = {
        "funding": SeriesKey(exchange, "funding", pair),
        "onchain": onchain_key(spec.onchain_asset, pair),
    }
    return {source: key for source, key in keys.items() if source in spec.sources}


def onchain_key(asset: str, pair: str) -> SeriesKey:
    """Where on-chain metrics lie: `asset` is "BTC", "base" for the pair's own, or either with a source before it."""
    source, _, name = asset.rpartition(":")
    return SeriesKey(source or ONCHAIN_EXCHANGE, "onchain", pair.split("/", 1)[0] if name == "base" else name)


def read_enrichment(store: CandleStore, spec: DatasetSpec, exchange: str, pair: str) -> Enrichment:
    """Read what the spec needs for a pair.

    Raises:
        StoreError: if a series that it needs is not stored.
    """
    return Enrichment(**{source: store.read(key) for source, key in enrichment_keys(spec, exchange, pair).items()})


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
    """Candles with the enrichment columns that the spec needs.

    Raises:
        SpecError: if the spec needs a series that is not given.
    """
    for source in spec.sources:
        table = getattr(enrichment, source)
        if table is None:
            raise SpecError(
                f"the features need {source} data", where="feature_frame", todo="backfill it, or leave it out"
            )
        join = enrich_funding if source == "funding" else enrich_onchain
        candles = join(candles, table, timeframe=spec.timeframe)
    return candles


def feature_frame(
    candles: pl.DataFrame,
    spec: DatasetSpec,
    funding: pl.DataFrame | None = None,
    onchain: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Features of ONE pair from raw candles: validate, enrich, compute. Batch and live both call this.

    Args:
        candles: candle table on the spec's grid; a live caller gives at least `spec.history` rows.
        spec: the data set.
        funding: the pair's funding table, if the spec reads it.
        onchain: the asset's on-chain table, if the spec reads it.

    Returns:
        As many rows as `candles`: `timestamp`, `close`, `spec.columns`; null where history or enrichment is missing.

    Raises:
        CandleError: if the candles break their contract.
        SpecError: if enrichment is missing.
    """
    checked = validate_candles(candles, spec.timeframe, "feature_frame")
    return make_features(enrich(checked, spec, Enrichment(funding, onchain)), spec)


def training_frame(candles: pl.DataFrame, spec: DatasetSpec, enrichment: Enrichment) -> pl.DataFrame:
    """`feature_frame`, and beside it the labels `fwd_{h}` and the `next_open` at which an order would be filled."""
    features = feature_frame(candles, spec, enrichment.funding, enrichment.onchain)
    labels = forward_returns(features, spec.horizons, timeframe=spec.timeframe)
    return features.hstack([*labels, next_open(candles, timeframe=spec.timeframe)])
