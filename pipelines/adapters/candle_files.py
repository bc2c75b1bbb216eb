"""Candles, mark prices and funding rates of one file, whoever wrote it, checked before anything is stored.

Times in descending order and rows that occur twice are put right and counted. Everything else that is wrong (a price
that is no number, two candles of one time, a candle off the grid) is an error that names file, pair and time, unless
the user asks for repair; then such rows are left out and counted. Candles that have not closed are always left out.
"""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from observability.errors import CandleError, SourceError
from pipelines.adapters.table_files import read_table, read_times
from pipelines.candles import CANDLE_SCHEMA, PRICES, Repairs, iso, repair_candles, timeframe_ms, validate_candles
from pipelines.enrich import FUNDING_SCHEMA
from pipelines.store import SeriesKey

_TODO = "clean the file, or leave such rows out with --repair; nothing of it was stored"
CANDLES = tuple(CANDLE_SCHEMA)
FUNDING = tuple(FUNDING_SCHEMA)
# What others call our columns, the surest name first. `open_time` before `date`: some files have both.
_SYNONYMS = {
    "timestamp": ("timestamp", "open_time", "opentime", "date", "datetime", "time", "unix", "ts"),
    "open": ("open", "o", "open_price"),
    "high": ("high", "h", "high_price"),
    "low": ("low", "l", "low_price"),
    "close": ("close", "c", "close_price"),
    "volume": ("volume", "vol", "v", "volume_base", "base_volume"),
    # Freqtrade once kept rates as candles, the rate in `open`.
    "funding_rate": ("funding_rate", "fundingrate", "last_funding_rate", "rate", "open"),
}


@dataclass(frozen=True)
class FileRows:
    """A checked table and what was put right; `unfinished` counts candles that had not closed."""

    table: pl.DataFrame
    repairs: Repairs
    unfinished: int = 0


def read_file(path: Path, key: SeriesKey, *, zone: str = "", repair: bool = False, now_ms: int) -> FileRows:
    """Read a file as the series that `key` names.

    Args:
        path: `.feather`, `.json`, `.json.gz` (Freqtrade's), `.parquet` or `.csv`, with or without names of columns.
        key: kind, pair and timeframe; a file without a timeframe in its name has none here and is refused.
        zone: zone of times that carry none.
        repair: leave bad rows out instead of refusing the file.
        now_ms: what has not closed by then is left out.

    Raises:
        SourceError: the file cannot be read, lacks a column, or has times of an unknown zone.
        CandleError: rows break their contract; names file, pair and time.
    """
    where = f"{path}, {key.pair}"
    wanted = FUNDING if key.kind == "funding" else CANDLES[:5] if key.kind == "mark" else CANDLES
    raw = _named(_load(path, wanted), wanted, key, where)
    if raw.is_empty():
        raise SourceError("the file has no rows", where=where, todo="leave it out")
    times = read_times(raw["timestamp"], zone=zone, where=f"{where}, times")
    table = raw.with_columns(times, *(_number(raw[name], where) for name in wanted[1:])).select(wanted)
    if key.kind == "funding":
        return _funding(table, where, repair=repair)
    return _candles(table, key, where, repair=repair, now_ms=now_ms)


def _load(path: Path, wanted: tuple[str, ...]) -> pl.DataFrame:
    if not path.name.endswith((".json", ".json.gz")):
        table = read_table(path)
        if path.suffix == ".csv" and all(re.fullmatch(r"-?[0-9.eE+]+", name) for name in table.columns):
            # Without a line of names, as Binance publishes its candles: the first columns are the usual ones.
            table = pl.read_csv(path, has_header=False, infer_schema_length=None)
            table = table.rename(dict(zip(table.columns, wanted, strict=False)))
        return table
    try:
        data = path.read_bytes()
        rows: Any = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
        width = len(rows[0]) if rows else len(wanted)
        names = wanted if width == len(wanted) else CANDLES
        return pl.DataFrame(rows, schema=list(names[:width]), orient="row", infer_schema_length=None)
    except (OSError, EOFError, ValueError, TypeError, KeyError, IndexError, pl.exceptions.PolarsError) as error:
        raise SourceError(
            f"cannot read the file: {str(error)[:200]}", where=str(path), todo="fetch it again"
        ) from error


def _named(raw: pl.DataFrame, wanted: tuple[str, ...], key: SeriesKey, where: str) -> pl.DataFrame:
    """The wanted columns under our names; others are left out."""
    seen: dict[str, str] = {}
    for name in raw.columns:
        seen.setdefault(re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_"), name)
    base = key.pair.split("/", 1)[0].lower()
    found = {}
    for ours in wanted:
        extra = (f"volume_{base}",) if ours == "volume" else ()
        theirs = next((seen[name] for name in (*_SYNONYMS[ours], *extra) if name in seen), None)
        if theirs is None:
            raise SourceError(f"no column is the {ours}, of {raw.columns}", where=where, todo=f"name them {wanted}")
        found[ours] = raw[theirs].alias(ours)
    return pl.DataFrame(list(found.values()))


def _number(values: pl.Series, where: str) -> pl.Series:
    numbers = values.cast(pl.Float64, strict=False)
    bad = values.filter(numbers.is_null() & values.is_not_null())
    if bad.len():
        raise SourceError(f"{values.name} is {bad[0]!r}, no number", where=where, todo=_TODO)
    return numbers


def _candles(table: pl.DataFrame, key: SeriesKey, where: str, *, repair: bool, now_ms: int) -> FileRows:
    if not key.timeframe:
        raise SourceError("the file's name tells no timeframe", where=where, todo="name it as BTC_USDT-15m.csv")
    if key.kind == "mark":
        table = table.with_columns(volume=pl.lit(0.0))
    closed = table.filter(pl.col("timestamp").dt.timestamp("ms") + timeframe_ms(key.timeframe) <= now_ms)
    unfinished = table["timestamp"].drop_nulls().len() - closed.height
    known = closed if repair else pl.concat([closed, table.filter(pl.col("timestamp").is_null())])
    if repair:
        fixed, repairs = repair_candles(known, key.timeframe, where)
    else:
        fixed, repairs = _in_order(known)
        try:
            validate_candles(fixed, key.timeframe, where)
        except CandleError as error:
            raise CandleError(error.what, where=error.where, todo=_TODO) from error
    return FileRows(fixed.drop("volume") if key.kind == "mark" else fixed, repairs, unfinished)


def _funding(table: pl.DataFrame, where: str, *, repair: bool) -> FileRows:
    good = table.filter(pl.col("timestamp").is_not_null() & pl.col("funding_rate").is_finite())
    if good.height < table.height and not repair:
        first = table.filter(~pl.col("funding_rate").is_finite().fill_null(False))["timestamp"].to_list()
        time = first[0] if first and first[0] is not None else "no time"
        raise CandleError(f"{table.height - good.height} rate(s) are no numbers", where=f"{where}, {time}", todo=_TODO)
    fixed, repairs = _in_order(good)
    if repair:
        once = fixed.unique("timestamp", keep="last", maintain_order=True)
        repairs, fixed = replace(repairs, duplicates=repairs.duplicates + fixed.height - once.height), once
    twice = fixed.filter(pl.col("timestamp").is_duplicated())
    if twice.height:
        time = iso(int(twice["timestamp"].dt.timestamp("ms")[0]))
        raise CandleError("a settlement has two rates", where=f"{where}, {time}", todo=_TODO)
    return FileRows(fixed, replace(repairs, not_finite=table.height - good.height))


def _in_order(table: pl.DataFrame) -> tuple[pl.DataFrame, Repairs]:
    """Sorted, every row once; two different rows of one time stay, for others to refuse."""
    reordered = int((table["timestamp"].dt.timestamp("ms").diff() < 0).sum())
    once = table.unique(maintain_order=True).sort("timestamp", maintain_order=True)
    return once, Repairs(reordered=reordered, duplicates=table.height - once.height)


def row_text(row: dict[str, Any]) -> str:
    """Prices of a row, for messages."""
    return " ".join(f"{row[name]:g}" for name in (*PRICES, "funding_rate") if name in row)
