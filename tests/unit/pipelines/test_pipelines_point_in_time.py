"""Nothing of a slower series is visible before it could be known: by property, on drawn and on real tables.

The property is one function, `sees_the_future`: change everything that became known after a candle's close, and nothing
up to that candle may change. Joins that somebody could write by mistake are planted, and it has to catch each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.adapters.onchain_files import read_onchain
from pipelines.enrich import (
    FUNDING_LAG_MS,
    enrich_funding,
    enrich_mark,
    enrich_onchain,
    merge_onchain,
    metrics_of,
)
from pipelines.frames import feature_frame, read_enrichment
from pipelines.spec import DatasetSpec, FeatureRef
from pipelines.store import CandleStore, SeriesKey
from tests.unit.pipelines.pipelines_makers import START, STEP, Walk, candles, onchain, when

HOUR = 3_600_000
DAYS = 12
WALK = candles(Walk(seed=1, rows=96 * DAYS))
Join = Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
Known = pl.Expr


def sees_the_future(join: Join, slow: pl.DataFrame, known_at: pl.Expr, row: int) -> bool:
    """Whether rows up to `row` tell anything that became known after that candle's close."""
    close = WALK["timestamp"][row] + timedelta(milliseconds=STEP)
    later = known_at > close
    numbers = [name for name, kind in slow.schema.items() if kind == pl.Float64]
    whole = join(WALK, slow)[: row + 1]
    scrambled = slow.with_columns(
        pl.when(later).then(pl.col(name) * -7 - 1e6).otherwise(name).alias(name) for name in numbers
    )
    variants = [scrambled, slow.filter(~later)]
    return any(not whole.equals(join(WALK, changed)[: row + 1].select(whole.columns)) for changed in variants)


@st.composite
def onchain_tables(draw: st.DrawFn) -> pl.DataFrame:
    """Days in several versions, late, revised, with metrics in rows of their own."""
    rows = draw(st.lists(st.tuples(st.integers(-8, DAYS), st.integers(24, 200)), min_size=1, max_size=30, unique=True))
    table = onchain([(day, hours, float(day * 1000 + hours)) for day, hours in rows])
    holes = draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    others = draw(st.lists(st.one_of(st.none(), st.floats(1, 9)), min_size=len(rows), max_size=len(rows)))
    return table.with_columns(
        pl.when(pl.Series(holes)).then(None).otherwise("tx_count").alias("tx_count"),
        pl.Series("mvrv", others, pl.Float64),
    )


def slow_series(name: str, times: list[int], values: list[float]) -> pl.DataFrame:
    return pl.DataFrame({"timestamp": times, name: values}, schema_overrides={name: pl.Float64}).with_columns(
        pl.col("timestamp").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    )


times = st.lists(st.integers(-HOUR * 30, HOUR * 24 * DAYS), min_size=1, max_size=40, unique=True).map(sorted)
rows = st.integers(0, WALK.height - 1)


@settings(max_examples=150, deadline=None)
@given(onchain_tables(), rows)
def test_onchain_rows_are_not_seen_before_they_were_available(table, row):
    assert not sees_the_future(enrich_onchain, table, pl.col("available_at"), row)


@settings(max_examples=100, deadline=None)
@given(onchain_tables(), rows)
def test_each_value_is_the_newest_day_known_by_the_close(table, row):
    """Against the definition, row by row, in plain Python."""
    close = WALK["timestamp"][row] + timedelta(milliseconds=STEP)
    seen = enrich_onchain(WALK[row : row + 1], table, timeframe="15m").to_dicts()[0]
    for metric in metrics_of(table):
        known = [
            (day["timestamp"], day["available_at"], day[metric])
            for day in table.to_dicts()
            if day["available_at"] <= close and day[metric] is not None
        ]
        newest = max(known, default=None)
        fresh = newest is not None and close - newest[1] <= timedelta(days=10)
        assert seen[metric] == (newest[2] if fresh and newest is not None else None)


@settings(max_examples=100, deadline=None)
@given(onchain_tables(), rows, st.integers(1, 50))
def test_a_live_service_with_few_candles_sees_what_the_batch_saw(table, row, count):
    some = WALK[max(0, row - count) : row + 1]
    whole = enrich_onchain(WALK, table, timeframe="15m")
    assert enrich_onchain(some, table, timeframe="15m").equals(whole[max(0, row - count) : row + 1])


@settings(max_examples=100, deadline=None)
@given(times, rows)
def test_funding_is_not_seen_before_its_settlement(at, row):
    table = slow_series("funding_rate", [START + t for t in at], [i * 1e-4 for i in range(len(at))])
    known = pl.col("timestamp") + pl.duration(milliseconds=FUNDING_LAG_MS)
    assert not sees_the_future(enrich_funding, table, known, row)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([("15m", STEP), ("1h", HOUR), ("8h", 8 * HOUR)]), st.integers(2, 60), rows)
def test_mark_prices_are_not_seen_before_their_candle_closed(frame, count, row):
    name, step = frame
    table = slow_series("close", [START + i * step for i in range(count)], [100.0 + i for i in range(count)])
    known = pl.col("timestamp") + pl.duration(milliseconds=step)
    join = lambda walk, mark: enrich_mark(walk, mark, mark_timeframe=name)  # noqa: E731
    assert not sees_the_future(join, table, known, row)


def by_the_day_described(walk: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    return walk.join_asof(table.sort("timestamp").drop("available_at"), on="timestamp")


def by_the_nearest(walk: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    return walk.join_asof(
        table.sort("available_at").drop("timestamp"), left_on="timestamp", right_on="available_at", strategy="nearest"
    )


def by_the_final_version(walk: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    """The newest value of each day under the time at which the day was first published."""
    final = (
        table.sort("available_at")
        .group_by("timestamp", maintain_order=True)
        .agg(pl.col("available_at").first(), pl.col("tx_count").drop_nulls().last())
    )
    return enrich_onchain(walk, final)


def filled_backwards(walk: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    return enrich_onchain(walk, table).with_columns(pl.col("tx_count").backward_fill())


@pytest.mark.parametrize("planted", [by_the_day_described, by_the_nearest, by_the_final_version, filled_backwards])
def test_a_planted_look_into_the_future_is_caught(planted):
    table = onchain([*((day, 30, float(day)) for day in range(9)), (3, 24 * 4, 333.0)])
    assert any(sees_the_future(planted, table, pl.col("available_at"), row) for row in range(0, WALK.height, 7))
    assert not any(
        sees_the_future(enrich_onchain, table, pl.col("available_at"), row) for row in range(0, WALK.height, 7)
    )


def test_a_candle_late_or_a_lag_forgotten_is_caught():
    settled = slow_series("funding_rate", [START + 8 * HOUR * i for i in range(9)], [1e-4 * i for i in range(9)])
    known = pl.col("timestamp") + pl.duration(milliseconds=FUNDING_LAG_MS)
    early = lambda walk, table: enrich_funding(walk, table, lag_ms=0)  # noqa: E731
    assert any(sees_the_future(early, settled, known, row) for row in range(100))
    mark = slow_series("close", [START + HOUR * i for i in range(200)], [100.0 + i for i in range(200)])
    closed = pl.col("timestamp") + pl.duration(hours=1)
    at_open = lambda walk, table: walk.drop("close").join_asof(table, on="timestamp")  # noqa: E731
    assert any(sees_the_future(at_open, mark, closed, row) for row in range(100))


def test_a_field_that_a_later_row_leaves_empty_stays():
    first, second = onchain([(0, 30, 5.0)]), onchain([(0, 30, 1.0)]).rename({"tx_count": "mvrv"})
    both = merge_onchain(first, second)
    assert both.drop("timestamp", "available_at").to_dicts() == [{"tx_count": 5.0, "mvrv": 1.0}]
    again = merge_onchain(both, onchain([(0, 30, 6.0)]))
    assert again.select("tx_count", "mvrv").to_dicts() == [{"tx_count": 6.0, "mvrv": 1.0}]
    seen = enrich_onchain(WALK, both)
    assert (seen["tx_count"][119], seen["mvrv"][119]) == (5.0, 1.0)


ONCHAIN_SPEC = DatasetSpec(
    ("BTC/USDT",),
    "15m",
    (
        FeatureRef("log_return", {"n": 1}),
        FeatureRef("funding"),
        FeatureRef("onchain_change", {"metric": "tx_count"}),
        FeatureRef("onchain_log", {"metric": "mvrv"}),
    ),
    (1,),
    8,
)


def through_the_store(root: str, walk: pl.DataFrame, table: pl.DataFrame, rates: pl.DataFrame) -> pl.DataFrame:
    """The whole path: written, read back, joined, made into features."""
    store = CandleStore(root)
    store.write(SeriesKey("x", "ohlcv", "BTC/USDT", "15m"), walk)
    store.write(SeriesKey("x", "funding", "BTC/USDT"), rates)
    store.write(SeriesKey("file", "onchain", "BTC"), table)
    extra = read_enrichment(store, ONCHAIN_SPEC, "x", "BTC/USDT")
    read = store.read(SeriesKey("x", "ohlcv", "BTC/USDT", "15m"))
    return feature_frame(read, ONCHAIN_SPEC, extra)


@settings(max_examples=15, deadline=None)
@given(onchain_tables(), times, rows)
def test_features_through_the_store_know_no_later_row(tmp_path_factory, table, at, row):
    rates = slow_series("funding_rate", [START + t for t in at], [i * 1e-4 for i in range(len(at))])
    close = WALK["timestamp"][row] + timedelta(milliseconds=STEP)
    lag = pl.duration(milliseconds=FUNDING_LAG_MS)
    known = pl.col("available_at") <= close
    later = (
        table.with_columns(
            pl.when(known).then(name).otherwise(pl.col(name) * 3 + 1).alias(name) for name in metrics_of(table)
        ),
        rates.with_columns(
            pl.when(pl.col("timestamp") + lag <= close).then("funding_rate").otherwise(9e-3).alias("funding_rate")
        ),
    )
    whole = through_the_store(str(tmp_path_factory.mktemp("a")), WALK, table, rates)
    changed = through_the_store(str(tmp_path_factory.mktemp("b")), WALK, *later)
    assert whole[: row + 1].equals(changed[: row + 1])


@pytest.mark.realdata
def test_real_rows_through_the_store_to_the_features_are_never_early(shared_data, tmp_path):
    """At every publication of 2024: spoil it and everything after it; features up to the close before it stay."""
    walk = pl.read_parquet(shared_data / "market" / "binance" / "BTC_USDT-15m.parquet")
    table = read_onchain(shared_data / "onchain" / "BTC.parquet").filter(
        pl.col("timestamp") >= when(walk_start(walk) - 30 * 24 * HOUR)
    )
    delays = (table["available_at"] - table["timestamp"]).dt.total_seconds() / 3600 - 24
    assert delays.max() > 118  # hours after the end of the day
    rates = slow_series("funding_rate", [walk_start(walk) + 8 * HOUR * i for i in range(700)], [1e-4] * 700)
    whole = through_the_store(str(tmp_path / "whole"), walk, table, rates)
    assert whole["onchain_change_tx_count"].null_count() < 10
    inside = table.filter(pl.col("available_at").is_between(walk["timestamp"][0], walk["timestamp"][-1]))
    for number, published in enumerate(inside["available_at"].gather_every(24)):
        later = pl.col("available_at") >= published
        spoiled = table.with_columns(
            pl.when(later).then(pl.col(name) * 2).otherwise(name).alias(name) for name in metrics_of(table)
        )
        frame = through_the_store(str(tmp_path / str(number)), walk, spoiled, rates)
        before = walk["timestamp"] + timedelta(milliseconds=STEP) < published
        assert whole.filter(before).equals(frame.filter(before))
        assert not whole.equals(frame), "what was spoiled has to matter afterwards"


def walk_start(walk: pl.DataFrame) -> int:
    return int(walk["timestamp"].dt.timestamp("ms")[0])


@pytest.mark.realdata
def test_real_funding_and_mark_prices_are_joined_when_they_were_known(shared_data):
    folder = shared_data / "market" / "binanceusdm"
    walk, funding, mark = (
        pl.read_parquet(folder / f"BTC_USDT-{kind}.parquet") for kind in ("15m", "funding", "mark-8h")
    )
    seen = enrich_mark(enrich_funding(walk, funding), mark, mark_timeframe="8h")
    close = seen["timestamp"] + timedelta(minutes=15)
    rates = dict(zip(funding["timestamp"], funding["funding_rate"], strict=True))
    marks = dict(zip(mark["timestamp"], mark["close"], strict=True))
    for i in range(0, seen.height, 11):
        settled = max((t for t in rates if t + timedelta(minutes=1) <= close[i]), default=None)
        assert seen["funding_rate"][i] == (rates[settled] if settled else None)
        closed = max((t for t in marks if t + timedelta(hours=8) <= close[i]), default=None)
        assert seen["mark_close"][i] == (marks[closed] if closed else None)
    assert seen["mark_close"].null_count() < 64
