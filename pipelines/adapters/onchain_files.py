"""On-chain metrics from files in the manner of Coin Metrics: one row a day, one column a metric, Parquet or CSV.

Such files describe days, and a day is published hours or days after it ended. A file may say when (`available_at`); for
one that does not, the user has to declare a delay, and every row then carries the mark that its time is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import polars as pl

from observability.errors import SourceError
from pipelines.adapters.table_files import read_table, read_times
from pipelines.enrich import ASSUMED, merge_onchain, metrics_of
from pipelines.frames import ONCHAIN_EXCHANGE
from pipelines.store import CandleStore, SeriesKey

# Coin Metrics' names (docs.coinmetrics.io/asset-metrics) and ours; anything else in the file is left out.
METRICS = {
    "AdrActCnt": "active_addresses",
    "TxCnt": "tx_count",
    "TxTfrCnt": "transfer_count",
    "HashRate": "hash_rate",
    "CapMVRVCur": "mvrv",
    "FlowInExNtv": "exchange_inflow",
    "FlowOutExNtv": "exchange_outflow",
    "SplyCur": "supply",
    "SplyExNtv": "exchange_supply",
    "FeeTotNtv": "fees",
    "fear_greed_index": "fear_greed",
}
IMPUTED = "available_at_imputed"  # the file's own mark of a time that was filled in
_TIMES = ("timestamp", "available_at")
_PERIOD = timedelta(days=1)


@dataclass(frozen=True)
class OnchainImport:
    """What is stored of one asset; times in ms. `assumed` counts rows whose publication time is a declared delay."""

    asset: str
    metrics: tuple[str, ...]
    rows: int
    start_ms: int
    end_ms: int
    assumed: int = 0
    source: str = "file"
    note: str = ""


def read_onchain(path: Path, *, assumed_delay: timedelta | None = None) -> pl.DataFrame:
    """Read a file into `timestamp`, `available_at`, `available_at_assumed` and our metric names, sorted by time.

    Metrics are Float64; NaN and empty fields are null. Rows that tell nothing are left out, rows that occur twice count
    once.

    Args:
        path: `.parquet` or `.csv` with a `timestamp` (or Coin Metrics' `time`) column of days; days without a zone are
            UTC, as Coin Metrics documents its own.
        assumed_delay: for files without `available_at`: time from the start of a day to its publication.

    Raises:
        SourceError: if the file is missing, unreadable or empty, knows no metric of ours, does not say when rows became
            available, claims that a day was known before its end, or gives a day two values at a time.
    """
    frame = _times(path)
    if "available_at" not in frame.columns:
        if assumed_delay is None:
            raise SourceError(
                "the file does not say when a row became available",
                where=str(path),
                todo="add `available_at`, or give an assumed publication delay",
            )
        frame = frame.with_columns(available_at=pl.col("timestamp") + assumed_delay, **{ASSUMED: pl.lit(1.0)})
    elif IMPUTED in frame.columns:
        frame = frame.with_columns(pl.col(IMPUTED).cast(pl.Float64).fill_null(1.0).alias(ASSUMED))
    else:
        frame = frame.with_columns(pl.lit(0.0).alias(ASSUMED))
    known = {name: ours for name, ours in METRICS.items() if name in frame.columns}
    if not known:
        raise SourceError(
            f"no metric is known of {frame.columns}", where=str(path), todo=f"known: {', '.join(METRICS)}"
        )
    values = [_numbers(frame, name, path).alias(ours) for name, ours in known.items()]
    table = frame.select(*_TIMES, ASSUMED, *values).unique(maintain_order=True).sort(*_TIMES)
    return _checked(table, path)


def import_onchain(
    path: Path, store: CandleStore, asset: str, *, assumed_delay: timedelta | None = None
) -> OnchainImport:
    """Read a file and merge it into the store under the asset's key; other metrics of the asset stay."""
    key = SeriesKey(ONCHAIN_EXCHANGE, "onchain", asset)
    store_onchain(store, key, read_onchain(path, assumed_delay=assumed_delay))
    return summary_of(store, key)


def store_onchain(store: CandleStore, key: SeriesKey, table: pl.DataFrame) -> None:
    """Merge new rows into what is stored of an asset, metric by metric."""
    old = store.read(key) if store.exists(key) else table.clear()
    store.write(key, merge_onchain(old, table))


def summary_of(store: CandleStore, key: SeriesKey, note: str = "") -> OnchainImport:
    """What is stored of an asset."""
    table, manifest = store.read(key), store.manifest(key)
    assumed = int(table[ASSUMED].fill_null(0.0).sum()) if ASSUMED in table.columns else 0
    span = (manifest.rows, manifest.start_ms, manifest.end_ms)
    return OnchainImport(key.pair, tuple(metrics_of(table)), *span, assumed, key.exchange, note)


def _times(path: Path) -> pl.DataFrame:
    """The file's rows with its times in UTC."""
    frame = read_table(path)
    if frame.is_empty():
        raise SourceError("the on-chain file has no rows", where=str(path), todo="fetch it again")
    if "asset" in frame.columns and frame["asset"].n_unique() > 1:
        raise SourceError("the file holds several assets", where=str(path), todo="split it, one file an asset")
    if "time" in frame.columns and "timestamp" not in frame.columns:
        frame = frame.rename({"time": "timestamp"})
    if "timestamp" not in frame.columns:
        raise SourceError("no column `timestamp` or `time`", where=str(path))
    return frame.with_columns(
        read_times(frame[name], zone="UTC", where=f"{path}, {name}") for name in _TIMES if name in frame.columns
    )


def _numbers(frame: pl.DataFrame, name: str, path: Path) -> pl.Expr:
    bad = frame.filter(pl.col(name).is_not_null() & pl.col(name).cast(pl.Float64, strict=False).is_null())
    if bad.height:
        raise SourceError(f"{name} is {bad[name][0]!r}, no number", where=f"{path}, {bad['timestamp'][0]}")
    value = pl.col(name).cast(pl.Float64)
    return pl.when(value.is_finite()).then(value)


def _checked(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    metrics = metrics_of(table)
    table = table.filter(pl.any_horizontal(pl.col(metrics).is_not_null()))
    bad = {
        "has no time, or no time of publication": pl.any_horizontal(pl.col(*_TIMES).is_null()),
        "is marked as known before it ended": pl.col("available_at") < pl.col("timestamp") + _PERIOD,
        "has two values with one time of publication": pl.struct(*_TIMES).is_duplicated(),
        "has a negative value": pl.any_horizontal(pl.col(metrics) < 0).fill_null(False),
    }
    for text, rule in bad.items():
        rows = table.filter(rule)
        if rows.height:
            raise SourceError(
                f"{rows.height} row(s) wrong: the first {text}",
                where=f"{path}, {rows['timestamp'][0]}",
                todo="clean the file; nothing of it was stored",
            )
    return table
