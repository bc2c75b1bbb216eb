"""Between Freqtrade's data folder (or plain files) and the store, in both directions, without a loss.

What is read here is what `freqtrade download-data` writes, and what is written here is what `freqtrade list-data`,
`backtesting` and `hyperopt` read. Neither needs Freqtrade itself: Feather and JSON are enough.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from observability.errors import SourceError
from observability.files import write_whole
from observability.progress import Progress
from pipelines.adapters.candle_files import FileRows, read_file, row_text
from pipelines.adapters.freqtrade_files import FORMATS, CandleFile, find_files, freqtrade_name
from pipelines.candles import iso, timeframe_ms
from pipelines.store import CandleStore, SeriesKey

MARK_TIMEFRAME = "1h"  # of the mark prices by which Freqtrade reckons funding fees
_HOUR_MS = 3_600_000


@dataclass(frozen=True)
class ImportedFile:
    """What became of a file; times in ms. `new` rows were not stored before; `dropped`, `unfinished` were left out."""

    file: str
    series: str
    rows: int
    new: int
    start_ms: int
    end_ms: int
    reordered: int
    duplicates: int
    dropped: int
    unfinished: int


@dataclass(frozen=True)
class ImportSummary:
    """Files read, and why each other one was not."""

    files: tuple[ImportedFile, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class ExportedFile:
    """A file that Freqtrade can read; times in ms."""

    file: str
    series: str
    rows: int
    start_ms: int
    end_ms: int


@dataclass(frozen=True)
class Rules:
    """How to read: zone of times without one, repair bad rows, replace stored rows that differ, and the time now."""

    now_ms: int
    zone: str = ""
    repair: bool = False
    replace: bool = False


def import_folder(place: Path, store: CandleStore, exchange: str, rules: Rules, progress: Progress) -> ImportSummary:
    """Read every candle file of a folder, or one file, into the store under an exchange's name.

    A file is stored whole or not at all, and what was stored before stays: rows of one time that differ are an error,
    unless `rules.replace`.

    Raises:
        SourceError: nothing is there, a file cannot be read, or contradicts what is stored.
        CandleError: a file's rows break their contract.
    """
    found = find_files(place, exchange)
    if not found:
        raise SourceError(
            "no candle files are here", where=str(place), todo="name Freqtrade's data folder, or one file"
        )
    wanted = [file for file in found if file.key is not None]
    done = []
    with progress.task("import", total=len(wanted)) as task:
        for file in wanted:
            done.append(_import(file, store, rules))
            task.advance(1, f"{file.path.name}: {done[-1].new} new")
    skipped = tuple(f"{file.path.name}: {file.why}" for file in found if file.key is None)
    if not done:
        raise SourceError(f"no file can be used: {skipped[0]}", where=str(place))
    return ImportSummary(tuple(done), skipped)


def export_folder(
    store: CandleStore, keys: Iterable[SeriesKey], folder: Path, fmt: str, progress: Progress
) -> tuple[ExportedFile, ...]:
    """Write series as Freqtrade's data folder; a file that is there is replaced as a whole.

    Mark prices finer than an hour are written by the hour too, because Freqtrade wants them so.

    Raises:
        SourceError: there is no series, or no such format.
    """
    chosen = [key for key in keys if key.kind != "onchain"]
    if fmt not in FORMATS:
        raise SourceError(f"there is no format {fmt!r}", where="export", todo=f"use {' or '.join(FORMATS)}")
    if not chosen:
        raise SourceError("nothing of that is stored", where=store.root, todo="see `data inspect`")
    done = []
    with progress.task("export", total=len(chosen)) as task:
        for key in chosen:
            table = store.read(key)
            done.append(_write(folder, key, table, fmt))
            if key.kind == "mark" and timeframe_ms(key.timeframe) < _HOUR_MS:
                hourly = SeriesKey(key.exchange, key.kind, key.pair, MARK_TIMEFRAME)
                if not store.exists(hourly):
                    done.append(_write(folder, hourly, _by_the_hour(table, timeframe_ms(key.timeframe)), fmt))
            task.advance(1, str(key))
    return tuple(done)


def _import(file: CandleFile, store: CandleStore, rules: Rules) -> ImportedFile:
    assert file.key is not None
    rows = read_file(file.path, file.key, zone=rules.zone, repair=rules.repair, now_ms=rules.now_ms)
    before = 0
    if store.exists(file.key):
        before = store.manifest(file.key).rows
        if not rules.replace:
            _refuse_contradiction(store, file.key, rows, file.path)
    after = store.write(file.key, rows.table)
    times = rows.table["timestamp"].dt.timestamp("ms")
    fixed = rows.repairs
    return ImportedFile(
        file.path.name,
        str(file.key),
        rows.table.height,
        after.rows - before,
        int(times[0]) if times.len() else 0,
        int(times[-1]) if times.len() else 0,
        fixed.reordered,
        fixed.duplicates,
        fixed.dropped - fixed.duplicates,
        rows.unfinished,
    )


def _refuse_contradiction(store: CandleStore, key: SeriesKey, rows: FileRows, path: Path) -> None:
    if rows.table.is_empty():
        return
    times = rows.table["timestamp"].dt.timestamp("ms")
    stored = store.read(key, int(times[0]), int(times[-1]) + 1)
    both = rows.table.join(stored, on="timestamp", suffix="_stored")
    values = rows.table.columns[1:]
    other = both.filter(pl.any_horizontal(pl.col(name) != pl.col(f"{name}_stored") for name in values))
    if other.height:
        row = other.row(0, named=True)
        there = {name: row[f"{name}_stored"] for name in values}
        raise SourceError(
            f"{other.height} rows differ from what is stored: {row_text(row)} here, {row_text(there)} there",
            where=f"{path}, {key.pair}, {iso(int(row['timestamp'].timestamp() * 1000))}",
            todo="import under another --exchange name, or with --replace",
        )


def _write(folder: Path, key: SeriesKey, table: pl.DataFrame, fmt: str) -> ExportedFile:
    dated = table.rename({"timestamp": "date"})
    if key.kind == "mark":
        dated = dated.with_columns(volume=pl.lit(0.0))
    name = freqtrade_name(key, fmt)
    write_whole(folder / name, _feather(dated) if fmt == "feather" else _json(dated))
    times: Sequence[int] = table["timestamp"].dt.timestamp("ms").to_list() or [0]
    return ExportedFile(name, str(key), table.height, times[0], times[-1])


def _feather(table: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.write_ipc(buffer, compression="lz4", compat_level=pl.CompatLevel.oldest())
    return buffer.getvalue()


def _json(table: pl.DataFrame) -> bytes:
    rows = table.with_columns(pl.col("date").dt.timestamp("ms")).rows()
    return json.dumps(rows, separators=(",", ":")).encode()


def _by_the_hour(mark: pl.DataFrame, step_ms: int) -> pl.DataFrame:
    """Whole hours only: an hour with a hole would have a wrong high or low."""
    hours = mark.group_by_dynamic("timestamp", every="1h").agg(
        pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(), rows=pl.len()
    )
    return hours.filter(pl.col("rows") == _HOUR_MS // step_ms).drop("rows")
