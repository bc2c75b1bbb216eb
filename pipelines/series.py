"""What a series is: its name, and what the rows of each kind must look like."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from observability.errors import StoreError
from pipelines.candles import CANDLE_SCHEMA, check_schema, validate_candles
from pipelines.enrich import FUNDING_SCHEMA, ONCHAIN_SCHEMA

MARK_SCHEMA: dict[str, pl.DataType] = {k: v for k, v in CANDLE_SCHEMA.items() if k != "volume"}
KINDS = ("ohlcv", "funding", "mark", "onchain")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")


@dataclass(frozen=True, order=True)
class SeriesKey:
    """One series: `pair` is "BTC/USDT", or "BTC" for on-chain; `timeframe` is "" for funding and on-chain."""

    exchange: str
    kind: str
    pair: str
    timeframe: str = ""

    def __post_init__(self) -> None:
        parts = (self.exchange, *re.split("[/:]", self.pair))
        if self.kind not in KINDS or not all(_NAME.fullmatch(part) for part in parts) or len(parts) > 4:
            raise StoreError(f"not a series: {self}", todo=f"kinds: {', '.join(KINDS)}; pairs look like BTC/USDT")
        if bool(self.timeframe) != (self.kind in ("ohlcv", "mark")):
            raise StoreError(f"kind {self.kind} with timeframe {self.timeframe!r}", where=self.pair)

    @property
    def folder(self) -> str:
        """Path below the store's root."""
        return f"{self.exchange}/{self.kind}/{pair_folder(self.pair)}/{self.timeframe or 'all'}"

    @staticmethod
    def of_folder(folder: str) -> SeriesKey:
        """The key whose folder this is."""
        exchange, kind, pair, timeframe = folder.split("/")
        base, _, rest = pair.partition("_")
        pair = f"{base}/{rest.replace('_', ':')}" if rest else base
        return SeriesKey(exchange, kind, pair, "" if timeframe == "all" else timeframe)

    def __str__(self) -> str:
        return " ".join(filter(None, (self.exchange, self.kind, self.pair, self.timeframe)))


def pair_folder(pair: str) -> str:
    """A pair as a file name: BTC/USDT becomes BTC_USDT."""
    return pair.replace("/", "_").replace(":", "_")


def to_parquet(table: pl.DataFrame) -> bytes:
    """A table as zstd Parquet bytes."""
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def content_hash(table: pl.DataFrame) -> str:
    """SHA-256 over names and values, free of file format, row chunks and the columns' order.

    An empty field counts as NaN, and a column without any value as no column: neither tells anything.
    """
    digest = hashlib.sha256()
    for series in sorted(table.rechunk().get_columns(), key=lambda column: column.name):
        if series.null_count() == series.len():
            continue
        digest.update(f"{series.name}:{series.dtype}:{series.len()};".encode())
        values = series.cast(pl.Float64).fill_null(float("nan")) if series.dtype.is_float() else series.to_physical()
        digest.update(values.to_numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class SeriesKind:
    """One kind of series: its columns, what tells two rows apart, and its check (raises a DataError)."""

    schema: dict[str, pl.DataType]
    unique: tuple[str, ...]
    validate: Callable[[pl.DataFrame, SeriesKey], pl.DataFrame]

    def merge(self, old: pl.DataFrame, new: pl.DataFrame, key: SeriesKey) -> pl.DataFrame:
        """Both tables as one valid table; where they name the same row, the new one wins."""
        table = pl.concat([old, new], how="diagonal")
        return self.validate(table.unique(self.unique, keep="last", maintain_order=True).sort(self.unique), key)


def _candles(df: pl.DataFrame, key: SeriesKey) -> pl.DataFrame:
    return validate_candles(df, key.timeframe, str(key)).select(*CANDLE_SCHEMA)


def _mark(df: pl.DataFrame, key: SeriesKey) -> pl.DataFrame:
    return _candles(df.with_columns(volume=pl.lit(0.0)), key).drop("volume")


def _funding(df: pl.DataFrame, key: SeriesKey) -> pl.DataFrame:
    check_schema(df, FUNDING_SCHEMA, str(key))
    table = df.select(*FUNDING_SCHEMA).sort("timestamp")
    return _checked(table, key, ~pl.col("funding_rate").is_finite(), ("timestamp",))


def _onchain(df: pl.DataFrame, key: SeriesKey) -> pl.DataFrame:
    check_schema(df, ONCHAIN_SCHEMA, str(key))
    metrics = [name for name in df.columns if name not in ONCHAIN_SCHEMA]
    table = df.select(*ONCHAIN_SCHEMA, *(pl.col(name).cast(pl.Float64) for name in metrics)).sort(*ONCHAIN_SCHEMA)
    early = pl.col("available_at") < pl.col("timestamp")
    return _checked(table, key, early, tuple(ONCHAIN_SCHEMA))


def _checked(table: pl.DataFrame, key: SeriesKey, bad: pl.Expr, unique: tuple[str, ...]) -> pl.DataFrame:
    nulls = pl.any_horizontal(pl.col(*unique).is_null())
    wrong = table.select((bad.fill_null(True) | nulls).sum()).item()
    if wrong or table.select(unique).is_duplicated().any():
        raise StoreError(
            f"{wrong} row(s) are empty, not finite or available before their time; or a time repeats",
            where=str(key),
            todo="clean the source",
        )
    return table


SERIES_KINDS = {
    "ohlcv": SeriesKind(CANDLE_SCHEMA, ("timestamp",), _candles),
    "mark": SeriesKind(MARK_SCHEMA, ("timestamp",), _mark),
    "funding": SeriesKind(FUNDING_SCHEMA, ("timestamp",), _funding),
    "onchain": SeriesKind(ONCHAIN_SCHEMA, ("timestamp", "available_at"), _onchain),
}
