"""Where series lie: `<root>/<exchange>/<kind>/<PAIR>/<timeframe>/`, one Parquet file a calendar month, one manifest.

The manifest names the files, and a file's name holds its hash, so replacing the manifest is the one moment at which a
write becomes visible. A process killed before it leaves the old series and orphans that the next write removes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable
from dataclasses import replace

import polars as pl

from observability.errors import StoreError
from pipelines.blobs import Blobs
from pipelines.candles import find_gaps
from pipelines.manifest import Known, Manifest, Part
from pipelines.series import KINDS, MARK_SCHEMA, SERIES_KINDS, SeriesKey, content_hash, pair_folder, to_parquet

__all__ = [
    "KINDS",
    "MARK_SCHEMA",
    "CandleStore",
    "Known",
    "Manifest",
    "Part",
    "SeriesKey",
    "content_hash",
    "pair_folder",
    "to_parquet",
]
MANIFEST = "manifest.json"
DAMAGED = ".damaged"
_READ_ATTEMPTS = 5
_HASH_CHARS = 16
_REFETCH = "run `data backfill --verify`: it sets the damaged file aside and fetches its month again"


class CandleStore:
    """Series on a disk or an object store.

    Args:
        root: a folder or any fsspec URL.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._blobs = Blobs.at(root)

    def write(self, key: SeriesKey, df: pl.DataFrame) -> Manifest:
        """Merge rows into a series; where times overlap the new rows win. Writing the same again changes nothing.

        Only the months that the rows touch are read and written again.

        Raises:
            CandleError: if the merged series breaks the contract of its kind.
            StoreError: if a touched month is damaged.
        """
        table = SERIES_KINDS[key.kind].validate(df, key)

        def merged(old: Manifest) -> Manifest:
            parts = {part.month: part for part in old.parts}
            for month, rows in _months(table):
                parts[month] = self._merge(key, parts.get(month), month, rows)
            return replace(old, parts=tuple(parts[month] for month in sorted(parts)))

        return self._change(key, merged)

    def note(self, key: SeriesKey, known: Known) -> Manifest:
        """Record what the exchange told about a stored series."""
        return self._change(key, lambda old: replace(old, known=known))

    def read(self, key: SeriesKey, since_ms: int | None = None, until_ms: int | None = None) -> pl.DataFrame:
        """The series, or its rows of [since, until), checked against its manifest.

        Raises:
            StoreError: if it is missing, half-written or changed by other hands.
        """
        for _ in range(_READ_ATTEMPTS):
            try:
                parts = self.manifest(key).between(since_ms, until_ms)
                table = self._joined(key, [self._read_part(key, part) for part in parts])
                return _cut(table, since_ms, until_ms)
            except FileNotFoundError:
                # A writer replaced a part between our two reads: the manifest names the new file by now.
                continue
        raise StoreError(
            "a data file that the manifest names is missing", where=self._blobs.path(key.folder), todo=_REFETCH
        )

    def parts(self, key: SeriesKey) -> tuple[Part, ...]:
        """The series' months, oldest first."""
        return self.manifest(key).parts

    def exists(self, key: SeriesKey) -> bool:
        """Whether the series has been written."""
        return self._blobs.exists(f"{key.folder}/{MANIFEST}")

    def manifest(self, key: SeriesKey) -> Manifest:
        """The series' manifest, without reading its data.

        Raises:
            StoreError: if there is none or it cannot be read.
        """
        where = self._blobs.path(f"{key.folder}/{MANIFEST}")
        try:
            return Manifest.from_json(self._blobs.read(f"{key.folder}/{MANIFEST}"))
        except FileNotFoundError as error:
            raise StoreError(f"no series {key} is stored", where=where, todo="run `data backfill` first") from error
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"the manifest is damaged: {error}", where=where, todo=_REFETCH) from error

    def keys(self, kind: str | None = None) -> tuple[SeriesKey, ...]:
        """All stored series, or those of one kind, sorted."""
        names = self._blobs.names(f"/{MANIFEST}")
        keys = (SeriesKey.of_folder(name.rsplit("/", 1)[0]) for name in names if name.count("/") == 4)
        return tuple(sorted(key for key in keys if kind in (None, key.kind)))

    def mend(self, key: SeriesKey, *, thorough: bool = False) -> tuple[str, ...]:
        """Set damaged files aside, so that their months are missing instead of wrong; says what was done.

        A file is damaged if it is missing or its size, or with `thorough` its bytes, are not those of the manifest. It
        is kept with the ending `.damaged`. A manifest that cannot be read is made again from the files, whose names
        hold their hashes.
        """
        with self._blobs.lock(key.folder):
            try:
                old, done = self.manifest(key) if self.exists(key) else Manifest(key.timeframe), []
            except StoreError as error:
                old = self._rebuilt(key)
                done = [f"{error.where}: {error.what}; made again from {len(old.parts)} file(s)"]
            sound = tuple(part for part in old.parts if self._is_sound(key, part, thorough))
            for part in (part for part in old.parts if part not in sound):
                name = f"{key.folder}/{part.file}"
                self._blobs.rename(name, name + DAMAGED)
                done.append(f"{self._blobs.path(name)}: half-written or changed by other hands; set aside")
            if done:
                self._commit(key, replace(old, parts=sound))
        return tuple(done)

    def _change(self, key: SeriesKey, change: Callable[[Manifest], Manifest]) -> Manifest:
        with self._blobs.lock(key.folder):
            stored = self.exists(key)
            old = self.manifest(key) if stored else Manifest(key.timeframe)
            new = change(old)
            return old if stored and new == old else self._commit(key, new)

    def _commit(self, key: SeriesKey, manifest: Manifest) -> Manifest:
        self._blobs.write(f"{key.folder}/{MANIFEST}", manifest.to_json().encode())
        named = {f"{key.folder}/{part.file}" for part in manifest.parts}
        for name in self._blobs.names(".parquet", key.folder):
            if name not in named:
                self._blobs.remove(name)
        return manifest

    def _merge(self, key: SeriesKey, old: Part | None, month: str, rows: pl.DataFrame) -> Part:
        table = rows
        if old is not None:
            try:
                table = SERIES_KINDS[key.kind].merge(self._read_part(key, old), rows, key)
            except FileNotFoundError as error:
                where = self._blobs.path(f"{key.folder}/{old.file}")
                raise StoreError(
                    "a data file that the manifest names is missing", where=where, todo=_REFETCH
                ) from error
        if old is not None and content_hash(table) == old.content_hash:
            return old
        data = to_parquet(table)
        part = _part(key, month, table, data)
        self._blobs.write(f"{key.folder}/{part.file}", data)
        return part

    def _read_part(self, key: SeriesKey, part: Part) -> pl.DataFrame:
        name = f"{key.folder}/{part.file}"
        data, where = self._blobs.read(name), self._blobs.path(name)
        if hashlib.sha256(data).hexdigest() != part.file_hash:
            raise StoreError(
                f"{len(data)} bytes do not match the manifest's hash: half-written or changed by other hands",
                where=f"{where}, {key}, {part.month}",
                todo=_REFETCH,
            )
        return _decode(data, where)

    def _joined(self, key: SeriesKey, tables: list[pl.DataFrame]) -> pl.DataFrame:
        return pl.concat(tables, how="diagonal") if tables else pl.DataFrame(schema=SERIES_KINDS[key.kind].schema)

    def _is_sound(self, key: SeriesKey, part: Part, thorough: bool) -> bool:
        return self._blobs.holds(f"{key.folder}/{part.file}", part.size, part.file_hash if thorough else "")

    def _rebuilt(self, key: SeriesKey) -> Manifest:
        """A manifest from whole files alone; of two files of one month (one is an orphan) the one with more rows."""
        parts: dict[str, Part] = {}
        for name in self._blobs.names(".parquet", key.folder):
            month, digest, *_ = name.rsplit("/", 1)[-1].split(".")
            data = self._blobs.read(name)
            if hashlib.sha256(data).hexdigest().startswith(digest) and len(digest) == _HASH_CHARS:
                part = _part(key, month, _decode(data, self._blobs.path(name)), data)
                parts[month] = max(part, parts.get(month, part), key=lambda each: each.rows)
        return Manifest(key.timeframe, tuple(parts[month] for month in sorted(parts)))


def _months(table: pl.DataFrame) -> Iterable[tuple[str, pl.DataFrame]]:
    named = table.with_columns(_month=pl.col("timestamp").dt.strftime("%Y-%m"))
    for rows in named.partition_by("_month", maintain_order=True):
        yield str(rows["_month"][0]), rows.drop("_month")


def _part(key: SeriesKey, month: str, table: pl.DataFrame, data: bytes) -> Part:
    digest, times = hashlib.sha256(data).hexdigest(), table["timestamp"].dt.timestamp("ms")
    return Part(
        month=month,
        file=f"{month}.{digest[:_HASH_CHARS]}.parquet",
        rows=table.height,
        start_ms=int(times[0]),
        end_ms=int(times[-1]),
        content_hash=content_hash(table),
        file_hash=digest,
        size=len(data),
        gaps=find_gaps(table, key.timeframe) if key.timeframe else (),
    )


def _cut(table: pl.DataFrame, since_ms: int | None, until_ms: int | None) -> pl.DataFrame:
    times = pl.col("timestamp").dt.timestamp("ms")
    if since_ms is not None:
        table = table.filter(times >= since_ms)
    return table if until_ms is None else table.filter(times < until_ms)


def _decode(data: bytes, where: str) -> pl.DataFrame:
    try:
        return pl.read_parquet(io.BytesIO(data))
    except pl.exceptions.PolarsError as error:
        raise StoreError(f"not a Parquet file: {error}", where=where, todo=_REFETCH) from error
