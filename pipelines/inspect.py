"""What a stored series looks like: span, coverage, gaps, extreme moves, silence, and how late slower series come."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from pipelines.candles import Gap, find_gaps, timeframe_ms
from pipelines.enrich import ASSUMED, metrics_of

# A move of more than this many robust sigmas in one candle is worth a look; crypto's tails reach 15 in honest data.
OUTLIER_SIGMAS = 20.0
_MAD_TO_SIGMA = 1.4826
_HOUR_MS = 3_600_000
_SHOWN = 200


@dataclass(frozen=True)
class Outlier:
    """A move too large for its series: open time in ms, log-return, and its size in robust sigmas."""

    time_ms: int
    log_return: float
    sigmas: float


@dataclass(frozen=True)
class Run:
    """The longest run of candles of one kind; `length` 0 if there is none."""

    length: int = 0
    start_ms: int = 0


@dataclass(frozen=True)
class SeriesReport:
    """Summary of one candle series; times in ms, returns as natural logs, coverage in [0, 1].

    `outliers` are open times of extreme moves, `extremes` the largest of them with their sizes. `idle` is the longest
    run of candles without a trade, `stuck` the longest of candles whose price did not move at all.
    """

    rows: int
    start_ms: int
    end_ms: int
    coverage: float
    missing: int
    gaps: tuple[Gap, ...]
    zero_volume: int
    flat: int
    max_abs_return: float
    outliers: tuple[int, ...]
    extremes: tuple[Outlier, ...] = ()
    idle: Run = Run()
    stuck: Run = Run()


@dataclass(frozen=True)
class SlowReport:
    """Summary of funding or on-chain rows: the usual step between rows in hours, and holes of more than 1.5 of it.

    For on-chain tables: hours from the end of a period to its publication (least, median, most), the share of rows
    whose publication time is assumed, and how many rows are revisions of a period that had a value before.
    """

    rows: int
    start_ms: int
    end_ms: int
    step_hours: float
    holes: int
    delay_hours: tuple[float, float, float] | None = None
    assumed: float = 0.0
    revisions: int = 0
    metrics: tuple[str, ...] = ()


def inspect_series(df: pl.DataFrame, timeframe: str) -> SeriesReport:
    """Summarise a valid table of candles or mark prices; an empty one gives zeros.

    A move counts from one candle to the next: what happened across a gap is a gap's business.
    """
    if df.is_empty():
        return SeriesReport(0, 0, 0, 0.0, 0, (), 0, 0, 0.0, ())
    step = timeframe_ms(timeframe)
    times = df["timestamp"].dt.timestamp("ms")
    start, end = int(times[0]), int(times[-1])
    gaps = find_gaps(df, timeframe)
    moves = df.select(
        times.alias("time"),
        r=pl.when(pl.Series(times.diff() == step)).then((pl.col("close") / pl.col("close").shift(1)).log()),
    ).drop_nulls()
    sizes = moves["r"].abs()
    sigma = _MAD_TO_SIGMA * _number(sizes.median())
    extreme = moves.filter(sizes > OUTLIER_SIGMAS * sigma) if sigma > 0 else moves.clear()
    largest = extreme.sort(pl.col("r").abs(), descending=True).head(_SHOWN).sort("time")
    silent = (df["volume"] == 0) if "volume" in df.columns else pl.Series([False] * df.height)
    unmoved = (df["high"] == df["low"]) & (df["close"] == df["close"].shift(1)).fill_null(True)
    return SeriesReport(
        rows=df.height,
        start_ms=start,
        end_ms=end,
        coverage=df.height / ((end - start) // step + 1),
        missing=sum(gap.missing for gap in gaps),
        gaps=gaps,
        zero_volume=int(silent.sum()),
        flat=int((df["high"] == df["low"]).sum()),
        max_abs_return=_number(sizes.max()),
        outliers=tuple(extreme["time"].to_list()),
        extremes=tuple(Outlier(t, r, abs(r) / sigma) for t, r in largest.iter_rows()),
        idle=_longest(silent, times),
        stuck=_longest(unmoved, times),
    )


def inspect_slow(df: pl.DataFrame) -> SlowReport:
    """Summarise a table of funding rates or on-chain metrics."""
    if df.is_empty():
        return SlowReport(0, 0, 0, 0.0, 0)
    periods = df["timestamp"].unique().sort()
    times = periods.dt.timestamp("ms")
    steps = times.diff().drop_nulls()
    usual = _number(steps.median())
    holes = steps.filter(steps > 1.5 * usual).len()
    facts = (df.height, int(times[0]), int(times[-1]), usual / _HOUR_MS, holes)
    if "available_at" not in df.columns:
        return SlowReport(*facts)
    delays = (df["available_at"] - df["timestamp"]).dt.total_milliseconds() - int(usual)
    least, median, most = (_number(each) / _HOUR_MS for each in (delays.min(), delays.median(), delays.max()))
    assumed = _number(df[ASSUMED].fill_null(0.0).mean()) if ASSUMED in df.columns else 0.0
    metrics = metrics_of(df)
    told = [df.filter(pl.col(name).is_not_null())["timestamp"] for name in metrics]
    revisions = sum(days.len() - days.n_unique() for days in told)
    return SlowReport(*facts, (least, median, most), assumed, revisions, tuple(metrics))


def _longest(flags: pl.Series, times: pl.Series) -> Run:
    runs = pl.DataFrame({"flag": flags, "run": flags.rle_id(), "time": times}).filter("flag")
    if runs.is_empty():
        return Run()
    found = runs.group_by("run", maintain_order=True).agg(pl.len().alias("length"), pl.col("time").first())
    length, start = found.select("length", "time").row(int(found["length"].arg_max() or 0))
    return Run(int(length), int(start))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
