"""Joining slower series to candles by what was known at each candle's close, and nothing later.

Every slower series says of each row when it could first be used: an on-chain row from its `available_at` on, a funding
rate from its settlement on (and a minute), a mark candle from its close on. The day, period or candle that a row
describes decides nothing.
"""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from observability.errors import CandleError
from pipelines.candles import CANDLE_SCHEMA, TIMESTAMP, check_schema, infer_step_ms, timeframe_ms

SOURCES = ("funding", "mark", "onchain")
FUNDING_SCHEMA: dict[str, pl.DataType] = {"timestamp": TIMESTAMP, "funding_rate": pl.Float64()}
ONCHAIN_SCHEMA: dict[str, pl.DataType] = {"timestamp": TIMESTAMP, "available_at": TIMESTAMP}
# Beside an on-chain row's metrics: 1 where `available_at` is a declared delay, 0 where the source told or we saw it.
ASSUMED = "available_at_assumed"
MARK_CLOSE = "mark_close"
# Exchanges publish a settled rate seconds after the settlement that it is stamped with.
FUNDING_LAG_MS = 60_000
FUNDING_MAX_AGE = timedelta(hours=25)
# The slowest publication in the real table took 7.5 days; older than this is not late, it is missing.
ONCHAIN_MAX_AGE = timedelta(days=10)
_WEEK = timedelta(days=7)


def enrich_funding(
    candles: pl.DataFrame, funding: pl.DataFrame, *, timeframe: str = "", lag_ms: int = FUNDING_LAG_MS
) -> pl.DataFrame:
    """Add `funding_rate`: the last rate settled at least `lag_ms` before the candle's close, null if older than 25 h.

    Args:
        candles: candle table; its timeframe is taken from its smallest step if not given.
        funding: `timestamp` (settlement), `funding_rate` (share of notional a period), any order.
        timeframe: for example "15m".
        lag_ms: time from the settlement to the use.

    Raises:
        CandleError: if a column is missing or of another type.
    """
    check_schema(funding, FUNDING_SCHEMA, "funding")
    known = funding.select(_shifted("timestamp", lag_ms).alias("_known"), "funding_rate").drop_nulls()
    return _join(candles, known.sort("_known"), timeframe, FUNDING_MAX_AGE)


def enrich_mark(
    candles: pl.DataFrame, mark: pl.DataFrame, *, timeframe: str = "", mark_timeframe: str = ""
) -> pl.DataFrame:
    """Add `mark_close`: the close of the last mark candle that had closed by the candle's close.

    Null if that close is older than one mark candle, so a hole in the mark prices is a hole and no old price.

    Args:
        candles: candle table; its timeframe is taken from its smallest step if not given.
        mark: open time `timestamp` and `close` of the perpetual's mark price, any order.
        timeframe: of the candles.
        mark_timeframe: of the mark candles; taken from their smallest step if not given.

    Raises:
        CandleError: if a column is missing or of another type, or a timeframe is neither given nor visible.
    """
    check_schema(mark, {name: CANDLE_SCHEMA[name] for name in ("timestamp", "close")}, "mark")
    rows = mark.sort("timestamp")
    step = timeframe_ms(mark_timeframe) if mark_timeframe else infer_step_ms(rows, "mark")
    known = rows.select(_shifted("timestamp", step).alias("_known"), pl.col("close").alias(MARK_CLOSE)).drop_nulls()
    return _join(candles, known, timeframe, timedelta(milliseconds=step))


def enrich_onchain(candles: pl.DataFrame, onchain: pl.DataFrame, *, timeframe: str = "") -> pl.DataFrame:
    """Add every metric as it was known at the candle's close, and `<metric>_7d_ago`, its value of seven days earlier.

    A row counts from its `available_at` on. Of the values of a metric known by then the one of the latest day is taken,
    and of several versions of that day the latest version: a revision published later is never seen earlier. Null if
    that value was published more than ten days ago. Metrics may come in rows of their own; an empty field of a row says
    nothing about its metric.

    Args:
        candles: candle table; its timeframe is taken from its smallest step if not given.
        onchain: `timestamp` (start of the day or hour described), `available_at`, numeric metrics; a day may occur in
            several versions.
        timeframe: for example "15m".

    Raises:
        CandleError: if a column is missing, of another type or named like a candle column.
    """
    check_schema(onchain, ONCHAIN_SCHEMA, "on-chain")
    metrics = metrics_of(onchain)
    clash = sorted(set(metrics) & set(candles.columns))
    if clash:
        raise CandleError(f"metrics {clash} are named like candle columns", where="on-chain", todo="rename them")
    within_reach = _within_reach(onchain.drop_nulls(list(ONCHAIN_SCHEMA)), candles["timestamp"])
    joined = _join(candles, _knowledge(within_reach, metrics), timeframe, ONCHAIN_MAX_AGE, keep_close=True)
    alive = {name: pl.col("_close") - pl.col(f"_at_{name}") <= ONCHAIN_MAX_AGE for name in metrics}
    columns = [(column, fresh) for name, fresh in alive.items() for column in (name, _week_ago(name))]
    return joined.with_columns(pl.when(fresh).then(pl.col(column)).alias(column) for column, fresh in columns).drop(
        "_close", *(f"_at_{name}" for name in metrics)
    )


def metrics_of(onchain: pl.DataFrame) -> list[str]:
    """The metrics of an on-chain table: every column that is not about time."""
    return [name for name in onchain.columns if name not in ONCHAIN_SCHEMA and name != ASSUMED]


def merge_onchain(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Rows of both; where a day and its publication meet, a field that the new row leaves empty keeps the old value."""
    rows = pl.concat([old, new], how="diagonal")
    return rows.group_by(*ONCHAIN_SCHEMA).agg(pl.all().drop_nulls().last()).sort(*ONCHAIN_SCHEMA)


def _within_reach(onchain: pl.DataFrame, opens: pl.Series) -> pl.DataFrame:
    """Days that may still count at these candles and the week before them; a live update needs few of many years."""
    first = opens.min()
    alive = onchain if first is None else onchain.filter(pl.col("available_at") >= pl.lit(first) - ONCHAIN_MAX_AGE)
    # Older days cannot be newer than one that counts, so leaving them out changes nothing.
    return onchain.filter(pl.col("timestamp") >= pl.lit(alive["timestamp"].min()) - _WEEK) if alive.height else alive


def _knowledge(onchain: pl.DataFrame, metrics: list[str]) -> pl.DataFrame:
    """Step functions of time: from `_known` on each metric has this value, published at `_at_<metric>`."""
    rows = onchain.sort("available_at", "timestamp")
    # What is known of a day at each of its versions: a version that leaves a field empty does not take it back.
    days = rows.with_columns(pl.col(metrics).forward_fill().over("timestamp"))
    past = days.select(
        (pl.col("timestamp") + _WEEK).alias("timestamp"),
        "available_at",
        *(pl.col(name).alias(_week_ago(name)) for name in metrics),
    )
    rows = rows.join_asof(past, on="available_at", by="timestamp", check_sortedness=False)
    steps = []
    for name in metrics:
        day = pl.when(pl.col(name).is_not_null()).then(pl.col("timestamp"))
        newest = day == day.cum_max()  # an older day that is published late changes nothing
        for column, value in (
            (name, pl.col(name)),
            (_week_ago(name), pl.col(_week_ago(name))),
            (f"_at_{name}", pl.col("available_at")),
        ):
            # Filled by the rows of this metric alone: a week-ago value that is missing stays missing.
            row = pl.when(newest).then(pl.int_range(pl.len())).forward_fill()
            steps.append(value.gather(row).alias(column))
    return rows.select(pl.col("available_at").alias("_known"), *steps)


def _week_ago(metric: str) -> str:
    return f"{metric}_7d_ago"


def _shifted(column: str, by_ms: int) -> pl.Expr:
    return pl.col(column) + pl.duration(milliseconds=by_ms)


def _join(
    candles: pl.DataFrame, known: pl.DataFrame, timeframe: str, max_age: timedelta, *, keep_close: bool = False
) -> pl.DataFrame:
    check_schema(candles, {"timestamp": CANDLE_SCHEMA["timestamp"]}, "candles")
    step = timeframe_ms(timeframe) if timeframe else infer_step_ms(candles, "enrichment")
    joined = candles.with_columns(_close=_shifted("timestamp", step)).join_asof(
        known, left_on="_close", right_on="_known", strategy="backward", tolerance=max_age, check_sortedness=False
    )
    return joined.drop("_known" if keep_close else ("_close", "_known"), strict=False)
