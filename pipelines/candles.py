"""The candle table: what a valid one is, how a bad one is refused, and which damage may be mended.

A candle table has the columns of `CANDLE_SCHEMA`; `timestamp` is the open time. Rows are strictly increasing and lie on
the timeframe's grid; prices are finite and positive with `low <= open, close <= high`; volume is finite and not
negative. Gaps are allowed and reported, never filled: an invented price would teach the model something untrue.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from observability.errors import CandleError

TIMESTAMP = pl.Datetime("ms", "UTC")
CANDLE_SCHEMA: dict[str, pl.DataType] = {
    "timestamp": TIMESTAMP,
    "open": pl.Float64(),
    "high": pl.Float64(),
    "low": pl.Float64(),
    "close": pl.Float64(),
    "volume": pl.Float64(),
}
PAIR = "pair"
PRICES = ("open", "high", "low", "close")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
# The epoch was a Thursday, but weekly candles open on Mondays.
_WEEK_OFFSET_MS = 4 * _UNIT_MS["d"]


@dataclass(frozen=True)
class Gap:
    """A run of `missing` absent candles: `start_ms` is the first absent open time, `end_ms` the next present one."""

    start_ms: int
    end_ms: int
    missing: int


@dataclass(frozen=True)
class Repairs:
    """How many rows a repair touched, by reason."""

    reordered: int = 0
    duplicates: int = 0
    off_grid: int = 0
    not_finite: int = 0
    not_positive: int = 0
    inconsistent: int = 0

    @property
    def dropped(self) -> int:
        """Rows removed (reordering removes none)."""
        return self.duplicates + self.off_grid + self.not_finite + self.not_positive + self.inconsistent

    def __add__(self, other: Repairs) -> Repairs:
        return Repairs(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in asdict(self).items() if count)


def timeframe_ms(tf: str) -> int:
    """Milliseconds of a timeframe such as "15m", "1h" or "1d"; months have no fixed length and are refused.

    Raises:
        CandleError: if `tf` is not a number and one of s, m, h, d, w.
    """
    match = re.fullmatch(r"([1-9][0-9]{0,3})([smhdw])", tf)
    if match is None:
        raise CandleError(f"unknown timeframe {tf!r}", todo="use a number and one of s m h d w, for example 15m")
    return int(match[1]) * _UNIT_MS[match[2]]


def iso(ms: int) -> str:
    """A time in ms as people write it, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def validate_candles(df: pl.DataFrame, timeframe: str, where: str) -> pl.DataFrame:
    """Return `df` unchanged if it is a candle table; extra columns are allowed.

    Args:
        df: the table; of several pairs, pair after pair, if it has a column `pair`.
        timeframe: its grid, for example "15m".
        where: what the table is, for the message.

    Raises:
        CandleError: naming `where`, the broken rule and the first bad time.
    """
    check_schema(df, CANDLE_SCHEMA, where)
    grid = _off_grid(timeframe)
    step = pl.col("timestamp").dt.timestamp("ms").diff()
    if PAIR in df.columns:
        step = pl.when(pl.col(PAIR) == pl.col(PAIR).shift(1)).then(step)
    not_finite = ~pl.all_horizontal(pl.col(*PRICES, "volume").is_finite())
    rules = {
        "has an empty field": pl.any_horizontal(pl.col(*CANDLE_SCHEMA).is_null()),
        "repeats a time": step == 0,
        "goes back in time": step < 0,
        f"is off the {timeframe} grid": grid,
        "has a value that is not finite": not_finite,
        "has a price that is not positive, or a negative volume": _not_positive(),
        "has high or low inside its own body": _inconsistent(),
    }
    # One pass over all rules; the per-rule search runs only on the bad path.
    bad = df.select(pl.any_horizontal(rule.fill_null(False) for rule in rules.values()).alias("bad"))["bad"]
    if not bad.any():
        return df
    for text, rule in rules.items():
        hits = df.filter(rule.fill_null(False))
        if hits.height:
            first = hits["timestamp"].dt.timestamp("ms")[0]
            where = f"{where} {hits[PAIR][0]}" if PAIR in df.columns else where
            raise CandleError(
                f"{hits.height} candle(s) wrong: the first {text}",
                where=f"{where}, {iso(first) if first is not None else 'no time'}",
                todo="repair_candles drops such rows; then fetch the gap again",
            )
    raise CandleError("a candle breaks a rule", where=where)  # pragma: no cover - the loop finds what `bad` found


def pair_column(pairs: Sequence[str], heights: Sequence[int]) -> pl.Series:
    """The column `pair` of a table of several pairs, pair after pair, each of so many rows."""
    numbers = np.repeat(np.arange(len(pairs), dtype=np.uint32), heights)
    return pl.Series(PAIR, list(pairs), dtype=pl.Enum(list(pairs))).gather(pl.Series(numbers))


def check_schema(df: pl.DataFrame, schema: dict[str, pl.DataType], where: str) -> None:
    """Raise CandleError unless every column of `schema` is there with its exact type."""
    for name, dtype in schema.items():
        if name not in df.columns:
            raise CandleError(f"column {name!r} is missing", where=where, todo=f"give {', '.join(schema)}")
        if df.schema[name] != dtype:
            raise CandleError(
                f"column {name!r} is {df.schema[name]}, expected {dtype}",
                where=where,
                todo="repair_candles converts aware times and numbers",
            )


def repair_candles(df: pl.DataFrame, timeframe: str, where: str) -> tuple[pl.DataFrame, Repairs]:
    """Sort, convert and drop bad rows until the table is valid; of rows with one time the last is kept.

    Prices are never invented or changed. Times with a zone are converted to UTC; times without one are refused, because
    nobody can know what they mean.

    Raises:
        CandleError: if a column is missing or cannot be converted.
    """
    table = _convert(df, where)
    reordered = int((table["timestamp"].dt.timestamp("ms").diff() < 0).sum())
    table, not_finite = _drop(
        table,
        pl.any_horizontal(pl.col(*CANDLE_SCHEMA).is_null())
        | ~pl.all_horizontal(pl.col(*PRICES, "volume").is_finite()).fill_null(False),
    )
    table, off_grid = _drop(table, _off_grid(timeframe))
    table, not_positive = _drop(table, _not_positive())
    table, inconsistent = _drop(table, _inconsistent())
    unique = table.unique("timestamp", keep="last", maintain_order=True).sort("timestamp")
    repairs = Repairs(reordered, table.height - unique.height, off_grid, not_finite, not_positive, inconsistent)
    return validate_candles(unique, timeframe, where), repairs


def find_gaps(df: pl.DataFrame, timeframe: str) -> tuple[Gap, ...]:
    """The runs of absent candles between the first and the last row of a table sorted by time."""
    step = timeframe_ms(timeframe)
    times = df.select(pl.col("timestamp").dt.timestamp("ms").alias("end"))
    rows = times.with_columns(start=pl.col("end").shift(1) + step).filter(pl.col("end") > pl.col("start"))
    return tuple(Gap(start, end, (end - start) // step) for end, start in rows.iter_rows())


def infer_step_ms(df: pl.DataFrame, where: str) -> int:
    """The timeframe of a sorted table in ms: its smallest step.

    Raises:
        CandleError: if there are fewer than two rows.
    """
    if df.height < 2:
        raise CandleError("one candle does not tell its timeframe", where=where, todo="pass timeframe=")
    return int(df.select(pl.col("timestamp").dt.timestamp("ms").diff().min()).item())


def _convert(df: pl.DataFrame, where: str) -> pl.DataFrame:
    missing = [name for name in CANDLE_SCHEMA if name not in df.columns]
    if missing:
        raise CandleError(f"columns {missing} are missing", where=where, todo=f"give {', '.join(CANDLE_SCHEMA)}")
    times = df.schema["timestamp"]
    if not isinstance(times, pl.Datetime) or times.time_zone is None:
        raise CandleError(f"times are {times}, without a time zone", where=where, todo="give times in UTC")
    try:
        return df.select(
            pl.col("timestamp").dt.convert_time_zone("UTC").dt.cast_time_unit("ms"),
            *(pl.col(name).cast(pl.Float64) for name in (*PRICES, "volume")),
        )
    except pl.exceptions.PolarsError as error:
        raise CandleError(f"a column holds no numbers: {error}", where=where) from error


def _drop(df: pl.DataFrame, bad: pl.Expr) -> tuple[pl.DataFrame, int]:
    kept = df.filter(~bad)
    return kept, df.height - kept.height


def _off_grid(timeframe: str) -> pl.Expr:
    offset = _WEEK_OFFSET_MS if timeframe.endswith("w") else 0
    return (pl.col("timestamp").dt.timestamp("ms") - offset) % timeframe_ms(timeframe) != 0


def _not_positive() -> pl.Expr:
    return pl.any_horizontal(pl.col(*PRICES) <= 0) | (pl.col("volume") < 0)


def _inconsistent() -> pl.Expr:
    high = pl.col("high") < pl.max_horizontal("open", "low", "close")
    return high | (pl.col("low") > pl.min_horizontal("open", "close"))
