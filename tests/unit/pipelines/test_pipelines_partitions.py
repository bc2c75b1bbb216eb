"""Partitions: cut at absolute times, equal to their stretch of the whole in every bit, made again only when needed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.errors import SpecError
from pipelines.blobs import Blobs
from pipelines.frames import Enrichment, feature_frame, market_closes, read_features, training_frame
from pipelines.labels import Barrier, triple_barrier
from pipelines.partitions import build_partition, partition_frame, partitions_of, plan, reusable, task_sizes
from pipelines.spec import DatasetSpec, FeatureRef, default_spec
from pipelines.store import CandleStore, SeriesKey
from tests.unit.pipelines.feature_checks import assert_same_bits
from tests.unit.pipelines.pipelines_makers import PAIRS, START, STEP, Walk, candles

EXTRA = (
    FeatureRef("ta_adx", {"n": 14}),
    FeatureRef("market_beta", {"n": 96}),
    FeatureRef("return_rank", {"n": 16}),
)
SPEC = replace(
    default_spec(PAIRS, "15m"),
    features=(*default_spec(PAIRS, "15m").features, *EXTRA),
    barriers=(Barrier(8, 1.5, 1.0, 32),),
)


def filled(root: str, rows: int = 3_000) -> tuple[CandleStore, dict[str, pl.DataFrame]]:
    """A store whose candles begin before and end after New Year, with a gap in one pair."""
    store, tables = CandleStore(root), {}
    for number, pair in enumerate(PAIRS):
        table = candles(Walk(seed=number, rows=rows, sigma=0.003))
        shifted = table.with_columns(pl.col("timestamp") - pl.duration(milliseconds=1_500 * STEP))
        tables[pair] = shifted if number else pl.concat([shifted[:1_450], shifted[1_460:]])
        store.write(SeriesKey("x", "ohlcv", pair, "15m"), tables[pair])
    return store, tables


def test_pieces_equal_the_whole_bit_for_bit(tmp_path):
    store, tables = filled(str(tmp_path))
    planned = plan(store, "x", SPEC)
    assert [(part.pair, part.period) for part in planned] == [(p, y) for p in PAIRS for y in ("2023", "2024")]
    for pair in PAIRS:
        whole = training_frame(tables[pair], SPEC, Enrichment(market=market_closes(tables)))
        pieces = [partition_frame(store, "x", SPEC, part) for part in planned if part.pair == pair]
        assert [piece.height > 1_400 for piece in pieces] == [True, True]
        columns = ("close", *SPEC.columns, *SPEC.labels, "next_open")
        assert_same_bits(pl.concat(pieces), whole, columns, "differs at a seam")


def test_what_is_made_is_kept_until_its_inputs_change(tmp_path):
    store, tables = filled(str(tmp_path / "raw"))
    spec = default_spec(PAIRS, "15m")
    out, planned = Blobs.at(str(tmp_path / spec.hash)), plan(store, "x", spec)
    made = {part: build_partition(store, "x", spec, out, part) for part in planned}
    assert {part: facts.inputs for part, facts in made.items()} == planned
    assert read_features(str(tmp_path / spec.hash), "ETH/USDT").height == 3_000
    assert all(replace(made[part], reused=True) == reusable(out, part, inputs) for part, inputs in planned.items())
    later = tables["ETH/USDT"].with_columns(pl.col("timestamp") + pl.duration(milliseconds=3_000 * STEP))
    for rows, stale in ((later[:100], ["2023", "2024"]), (later[2_000:], ["2024"])):
        store.write(SeriesKey("x", "ohlcv", "ETH/USDT", "15m"), rows)
        # In January the labels of December are not final yet; from February on they are.
        again = [part for part, inputs in plan(store, "x", spec).items() if reusable(out, part, inputs) is None]
        assert [(part.pair, part.period) for part in again] == [("ETH/USDT", period) for period in stale]
        for part in again:
            build_partition(store, "x", spec, out, part)
    name = f"{next(iter(planned)).name}.parquet"
    whole = out.read(name)
    # What a loss of power may leave: a part of it, or its size in zeros.
    for left in (whole[:100], bytes(len(whole))):
        out.write(name, left)
        assert reusable(out, next(iter(planned)), planned[next(iter(planned))]) is None


def test_periods_have_absolute_edges():
    day = 86_400_000
    months = partitions_of("A/B", "1m", START + 40 * day, START + 70 * day)
    assert [part.period for part in months] == ["2024-02", "2024-03"]
    assert (months[0].start_ms, months[0].end_ms) == (START + 31 * day, months[1].start_ms)
    assert [part.period for part in partitions_of("A/B", "5m", START - day, START)] == ["2023", "2024"]
    (whole,) = partitions_of("A/B", "1d", START, START + 900 * day)
    assert (whole.period, whole.start_ms, whole.end_ms) == ("all", START, START + 901 * day)
    assert [part.period for part in partitions_of("A/B", "15m", START, START)] == ["2024"]


def test_triple_barriers_by_brute_force():
    table = candles(Walk(seed=7, rows=400, sigma=0.01, flat=0.1))
    table = pl.concat([table[:200], table[203:]])
    barrier = Barrier(12, 1.2, 0.8, 20)
    label = triple_barrier(table, barrier, timeframe="15m").to_list()
    high, low, close = (np.log(table[name].to_numpy()) for name in ("high", "low", "close"))
    times = table["timestamp"].dt.timestamp("ms").to_numpy()
    seen = set()
    for row in range(table.height):
        first, last = row - 20, row + 12
        if first < 0 or last >= table.height or times[last] - times[first] != 32 * STEP:
            assert label[row] is None
            continue
        width = math.sqrt((np.diff(close[first : row + 1]) ** 2).mean() * 12)
        expected = 0.0
        for ahead in range(row + 1, last + 1):
            if low[ahead] <= close[row] - 0.8 * width:
                expected = -1.0
                break
            if high[ahead] >= close[row] + 1.2 * width:
                expected = 1.0
                break
        assert label[row] == expected
        seen.add(expected)
    assert seen == {-1.0, 0.0, 1.0}
    assert (label[199], label[-1]) == (None, None)


def test_barriers_belong_to_the_specification():
    assert SPEC.labels == ("fwd_1", "fwd_4", "fwd_16", "barrier_8_1.5_1")
    assert DatasetSpec.from_json(SPEC.to_json()) == SPEC
    assert replace(SPEC, barriers=()).hash != SPEC.hash
    with pytest.raises(SpecError, match=r"label 'barrier_8_1\.5_1' is named twice"):
        replace(SPEC, barriers=SPEC.barriers * 2)
    with pytest.raises(SpecError, match="widths above 0"):
        Barrier(8, up=0)
    assert feature_frame(candles(Walk(seed=1)), default_spec(PAIRS, "15m")).columns[2:] == list(
        default_spec(PAIRS, "15m").columns
    )


@given(st.integers(0, 5000), st.integers(0, 64))
def test_tasks_take_every_partition_once_and_leave_no_core_without(parts: int, cores: int) -> None:
    sizes = task_sizes(parts, cores)
    assert sum(sizes) == parts
    assert all(0 < size <= 100 for size in sizes)  # what a lost node has to do again
    assert sizes == sorted(sizes, reverse=True)  # so that no core waits long for another's last
    assert all(size <= math.ceil(parts / max(cores, 1)) for size in sizes)  # no core's share is another's
