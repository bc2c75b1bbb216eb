"""Tables from files of other programs, and the one rule for their times: a time whose zone nobody knows is refused.

Whole numbers are times since 1970 in UTC, in seconds, milli-, micro- or nanoseconds by their size. Times with a zone or
an offset are converted. Times without one are read in the zone that the user names, else refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from observability.errors import SourceError
from pipelines.candles import TIMESTAMP

TODO_ZONE = "say in which zone they are, for example --zone UTC"
# From which size on a whole number counts which part of a second: 1e11 s would be the year 5138, 1e11 ms is 1973.
_UNITS = ((10**17, 10**6), (10**14, 10**3), (10**11, 1))
_EARLIEST_MS = 946_684_800_000  # 2000-01-01: a number that reads as a time before it means something else
_ISO = r"^\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}.*)?$"
_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": lambda path: pl.read_parquet(path, glob=False, hive_partitioning=False),
    ".feather": pl.read_ipc,
    ".csv": lambda path: pl.read_csv(
        path, glob=False, infer_schema_length=None, null_values=["", "NaN", "nan", "null"]
    ),
}


def read_table(path: Path) -> pl.DataFrame:
    """A `.parquet`, `.feather` or `.csv` file as it is; times of a CSV stay text.

    Raises:
        SourceError: if it is missing, half-written, of another kind, or cannot be read.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise SourceError(
            f"cannot read {path.suffix or 'a file without ending'}", where=str(path), todo=", ".join(_READERS)
        )
    try:
        return reader(path)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise SourceError(
            f"cannot read the file: {_first_line(error)}", where=str(path), todo="fetch it again"
        ) from error


def read_times(values: pl.Series, *, zone: str = "", where: str) -> pl.Series:
    """Times of any kind as Datetime(ms, UTC).

    Args:
        values: whole numbers, texts (ISO 8601), dates or datetimes.
        zone: zone of times that carry none; empty refuses them.
        where: what they are, for messages.

    Raises:
        SourceError: naming the first value that is no time, or that its zone is unknown, skipped or told twice.
    """
    kind = values.dtype
    if kind.is_integer() or kind.is_float():
        return _from_numbers(values, where)
    if kind == pl.String:
        values = _from_text(values, where)
    elif kind == pl.Date:
        values = values.cast(pl.Datetime("ms"))
    elif not isinstance(kind, pl.Datetime):
        raise SourceError(f"{kind} is no time", where=where, todo="give ISO 8601 times or milliseconds since 1970")
    return _in_utc(values, zone, where)


def _from_numbers(values: pl.Series, where: str) -> pl.Series:
    largest: Any = values.abs().max()
    if values.dtype.is_float() and not values.drop_nulls().is_finite().all():
        raise SourceError("a time is not finite", where=where)
    per_ms = next((unit for least, unit in _UNITS if largest is not None and largest >= least), 0)
    whole = values.cast(pl.Int64)
    in_ms = whole // per_ms if per_ms else whole * 1000
    if (in_ms < _EARLIEST_MS).any():
        raise SourceError(f"{values[0]} is no time since 1970", where=where, todo="give ISO 8601 times")
    return in_ms.cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")


def _from_text(values: pl.Series, where: str) -> pl.Series:
    if values.drop_nulls().str.contains(r"^-?[0-9]+$").all():
        return _from_numbers(values.cast(pl.Int64), where)
    _all_times(values, values.str.contains(_ISO), where)  # 01/02/2024 is January here and February there
    with_offset = values.str.contains(r"(?i)(z|[+-][0-9]{2}:?[0-9]{2})$")
    if with_offset.any() and not with_offset.fill_null(True).all():
        raise SourceError("some times have an offset and some have none", where=where, todo=TODO_ZONE)
    zoned = bool(with_offset.any())
    text = values.str.replace(r"^(.{10})$", "${1}T00:00").str.replace(" ", "T", literal=True)
    text = text.str.replace("(?i)z$", "+00:00").str.replace(r"(T\d{2}:\d{2})($|[+-])", "${1}:00${2}")
    form = "%Y-%m-%dT%H:%M:%S%.f" + ("%#z" if zoned else "")
    found = text.str.to_datetime(form, time_unit="ms", strict=False, time_zone="UTC" if zoned else None)
    _all_times(values, found.is_not_null(), where)
    return found


def _all_times(values: pl.Series, good: pl.Series, where: str) -> None:
    bad = values.filter(values.is_not_null() & ~good.fill_null(False))
    if bad.len():
        raise SourceError(
            f"{bad[0]!r} is no time", where=where, todo="give ISO 8601 times, such as 2024-01-31T12:00:00Z"
        )


def _in_utc(values: pl.Series, zone: str, where: str) -> pl.Series:
    kind = values.dtype
    assert isinstance(kind, pl.Datetime)
    if kind.time_zone is None:
        if not zone:
            raise SourceError("the times have no zone", where=where, todo=TODO_ZONE)
        try:
            values = values.dt.replace_time_zone(zone)
        except (pl.exceptions.PolarsError, ValueError) as error:
            raise SourceError(
                f"times cannot be read in zone {zone!r}: {_first_line(error)}", where=where, todo="give them in UTC"
            ) from error
    return values.dt.convert_time_zone("UTC").cast(TIMESTAMP)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
