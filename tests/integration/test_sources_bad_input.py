"""Everything that an exchange or a disk can do to a backfill: it ends in a reported repair or in one clear error.

Unmodified ccxt against a real sandbox process that misbehaves on order, once on a simulated market and once on real
candles. After each, a run in peace ends with the content of a run that was never disturbed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.settings import Settings
from cluster.stages.exchange import RunningExchange, start_exchange
from observability.errors import SourceError, UnreachableError
from observability.progress import NullProgress
from pipelines.adapters.exchange import backfill, open_exchange
from pipelines.backfill_summary import BackfillSummary, explain
from pipelines.candles import iso
from pipelines.store import CandleStore, SeriesKey
from trading.adapters.sandbox.client import SandboxClient

pytestmark = pytest.mark.slow

STEP, DAY = 900_000, 86_400_000
DAYS = 35  # two pieces of work and two calendar months
PAIRS = ("BTC/USDT", "ETH/USDT")
BTC, ETH = (SeriesKey("sandbox", "ohlcv", pair, "15m") for pair in PAIRS)
KLINES = "/api/v3/klines"


@dataclass(frozen=True)
class World:
    """A running exchange, its control, and what an undisturbed backfill of it holds."""

    running: RunningExchange
    control: SandboxClient
    truth: dict[SeriesKey, str]

    def fill(self, store: CandleStore, *, days: float = DAYS, **more: Any) -> BackfillSummary:
        options = {name: more.pop(name) for name in ("wait_s", "attempts", "timeout_s") if name in more}
        source = open_exchange("sandbox", self.running.url, **{"wait_s": 0.01, **options})
        now = self.control.now_ms()
        span = {"since_ms": now - int(days * DAY), "until_ms": now}
        return backfill(source, store, PAIRS, "15m", progress=NullProgress(), kinds=("ohlcv",), **span, **more)

    def assert_complete(self, store: CandleStore) -> BackfillSummary:
        """Peace returns: one more run, and the store is what it would have been; every byte of it is checked."""
        self.control.clear_faults()
        summary = self.fill(store)
        assert contents(store) == self.truth
        assert [store.mend(key, thorough=True) for key in (BTC, ETH)] == [(), ()]
        return summary


@pytest.fixture(scope="module", params=["simulated", pytest.param("real", marks=pytest.mark.realdata)])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    market: dict[str, Any] = {"pairs": PAIRS, "history_days": 40.0, "trading_days": 10.0}
    if request.param == "real":
        market["replay"] = request.getfixturevalue("shared_data") / "market" / "binance"
    settings = Settings().changed(workspace={"root": tmp_path_factory.mktemp("exchange")}, market=market)
    running = start_exchange(settings, NullProgress())
    try:
        with contextlib.closing(running.client()) as control:
            store = CandleStore(str(tmp_path_factory.mktemp("truth")))
            World(running, control, {}).fill(store)
            yield World(running, control, contents(store))
    finally:
        running.stop()


@pytest.fixture
def store(world: World, tmp_path: Path) -> Iterator[CandleStore]:
    yield CandleStore(str(tmp_path / "store"))
    world.control.clear_faults()


def contents(store: CandleStore) -> dict[SeriesKey, str]:
    return {key: store.manifest(key).content_hash for key in (BTC, ETH) if store.exists(key)}


def said(summary: BackfillSummary) -> str:
    return " ".join(explain(summary))


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "error", "status": 429, "code": -1003, "retry_after_s": 1, "count": 2},
        {"kind": "error", "status": 418, "code": -1003, "retry_after_s": 1, "count": 1},
        {"kind": "error", "status": 503, "count": 3},
        {"kind": "error", "status": 500, "count": 3},
        {"kind": "timeout_before", "hold_s": 0.05, "count": 2},
        {"kind": "timeout_before", "hold_s": 1.5, "count": 1},
        {"kind": "drop_before", "count": 3},
        {"kind": "garble", "count": 3},
    ],
    ids=lambda fault: f"{fault['kind']}-{fault.get('status', fault.get('hold_s', ''))}",
)
def test_passing_trouble_costs_time_and_nothing_else(world, store, fault):
    world.control.plan_fault(**fault, path=KLINES)
    summary = world.fill(store, timeout_s=1.0)
    assert contents(store) == world.truth
    assert "missing" not in said(summary)
    if "retry_after_s" in fault:
        assert summary.seconds >= 1.0, "Retry-After was not honoured"
    world.assert_complete(store)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "garble"}, r"answered garbage 3 times.*sandbox (BTC|ETH)/USDT 15m 20..-"),
        ({"kind": "error", "status": 503}, r"binance.*sandbox (BTC|ETH)/USDT 15m 20..-"),
        ({"kind": "error", "status": 429, "retry_after_s": 3600}, "banned this address for 3600 s"),
        ({"kind": "drop_before"}, "cannot be reached.*sandbox (BTC|ETH)/USDT 15m 20..-"),
    ],
    ids=["garbage", "5xx", "banned", "cut"],
)
def test_lasting_trouble_is_one_clear_error_and_nothing_stored_is_lost(world, store, fault, words):
    world.fill(store, days=10)
    before = contents(store)
    world.control.plan_fault(**fault, path=KLINES, count=0)
    with pytest.raises(SourceError, match=words):
        world.fill(store, attempts=3)
    assert contents(store) == before
    world.assert_complete(store)


def test_a_pair_in_trouble_does_not_hold_up_the_others(world, store):
    world.control.plan_fault(kind="garble", path=KLINES, count=0, params={"symbol": "BTC"})
    with pytest.raises(SourceError, match="1 of 2 series failed, 1 are complete; the first: the exchange answered"):
        world.fill(store, attempts=2)
    assert store.manifest(ETH).content_hash == world.truth[ETH]
    world.assert_complete(store)


def test_an_exchange_that_is_away_is_told_at_once_and_what_came_before_stays(world, store):
    world.fill(store, days=5)
    with pytest.raises(UnreachableError, match="cannot be reached"):
        backfill(
            open_exchange("sandbox", "http://127.0.0.1:9", wait_s=0.01, attempts=2),
            store, PAIRS, "15m", since_ms=0, until_ms=1, progress=NullProgress(),
        )  # fmt: skip
    world.assert_complete(store)


GARBAGE = ("missing", "duplicate", "disorder", "nan", "zero", "negative", "crossed", "spike", "future")


@pytest.mark.parametrize(("how", "row"), [*((how, -2) for how in GARBAGE), ("nan", 3), ("missing", 0)])
def test_impossible_candles_are_dropped_told_and_asked_for_again(world, store, how, row):
    world.control.plan_fault(kind="garbage_candles", how=how, row=row, pairs=["BTC/USDT"], count=1)
    summary = world.fill(store)
    assert contents(store) == world.truth
    (btc,) = (item for item in summary.series if item.pair == "BTC/USDT")
    # What is out of order ccxt sorts by itself.
    reason = {"duplicate": "duplicates", "nan": "not finite", "zero": "not positive"}
    reason |= {"negative": "not positive", "crossed": "inconsistent", "spike": "inconsistent"}
    if how in reason:
        assert f"BTC/USDT 15m: the exchange's answers had rows that were wrong (1 {reason[how]})" in said(summary)
    if how not in ("duplicate", "disorder"):
        assert btc.repaired or how == "future"
    assert btc.missing == 0


def test_a_candle_that_stays_impossible_becomes_a_confirmed_gap_until_it_is_mended(world, store):
    world.control.plan_fault(kind="garbage_candles", how="nan", row=0, pairs=["BTC/USDT"], count=0)
    world.fill(store)
    assert store.manifest(BTC).open_gaps == ()
    assert world.truth[ETH] == store.manifest(ETH).content_hash
    world.control.clear_faults()
    summary = world.fill(store, reread=DAYS * 96)  # confirmed gaps are not asked for again, unless all is
    assert contents(store) == world.truth
    assert sum(item.repaired for item in summary.series) + sum(item.new_rows for item in summary.series) > 0


def test_a_stale_feed_is_told_and_caught_up_with(world, store):
    world.control.plan_fault(kind="stale_candles", lag_ms=6 * 3_600_000, count=0)
    assert "the newest candle closed 345 minutes ago" in said(world.fill(store))
    caught_up = world.assert_complete(store)
    # The feed's newest candle was still forming where it stood still: it has been replaced, and that is told.
    assert [(item.new_rows, item.revised) for item in caught_up.series] == [(23, 1), (23, 1)]


def test_recent_candles_that_are_revised_are_replaced_and_told(world, store):
    world.control.plan_fault(kind="revised_candles", lag_ms=3 * 3_600_000, count=0)
    world.fill(store)
    summary = world.assert_complete(store)
    assert all(0 < item.revised <= 12 for item in summary.series)
    first = summary.series[0]
    assert f"revised {first.revised} stored rows from {iso(first.revised_from_ms)}" in said(summary)


def test_another_history_under_the_same_name_is_refused(world, store):
    world.fill(store, days=20)
    before = contents(store)
    world.control.plan_fault(kind="revised_candles", lag_ms=400 * DAY, count=0)
    with pytest.raises(SourceError, match=r"in the store and .* at the exchange, and so are all"):
        world.fill(store)
    assert contents(store) == before
    world.assert_complete(store)


def test_a_clock_behind_is_told_where_rows_lie_in_its_future(world, store):
    world.fill(store)
    world.control.plan_fault(kind="clock_skew", skew_ms=-3 * 3_600_000, count=0)
    with pytest.raises(SourceError, match="after the exchange's present"):
        world.fill(store)
    world.assert_complete(store)


def test_a_clock_ahead_lets_one_unfinished_candle_in_until_the_next_run_replaces_it(world, store):
    """The sandbox's clock has no second witness; at a real exchange the machine's own clock is one."""
    world.control.plan_fault(kind="clock_skew", skew_ms=3 * 3_600_000, count=0)
    world.control.advance(world.control.now_ms() + STEP // 3)
    source = open_exchange("sandbox", world.running.url)
    span = {"since_ms": world.control.now_ms() - DAYS * DAY, "until_ms": 2**50}
    backfill(source, store, PAIRS, "15m", progress=NullProgress(), kinds=("ohlcv",), **span)
    unfinished = store.manifest(BTC).end_ms
    world.control.clear_faults()
    world.control.advance(unfinished + STEP)
    span["until_ms"] = world.control.now_ms()
    summary = backfill(source, store, PAIRS, "15m", progress=NullProgress(), kinds=("ohlcv",), **span)
    assert [item.revised for item in summary.series] == [1, 1]
    world.truth.clear()  # time went on: the truth is another one now
    calm = CandleStore(store.root + "-calm")
    backfill(source, calm, PAIRS, "15m", progress=NullProgress(), kinds=("ohlcv",), **span)
    world.truth.update(contents(calm))
    assert contents(store) == world.truth


def test_delisted_and_listed_markets_are_known(world, store):
    world.control.plan_fault(kind="delisting", pairs=["BTC/USDT"])
    summary = world.fill(store, days=400)
    btc, eth = summary.series
    assert btc.delisted_ms == btc.end_ms
    assert eth.delisted_ms is None
    assert btc.listed_ms == eth.listed_ms == world.running.first_ms == btc.start_ms
    assert f"BTC/USDT 15m: no longer traded; its last row is of {iso(btc.end_ms)}" in said(summary)
    assert f"listed at {iso(world.running.first_ms)}" in said(summary)
    world.control.clear_faults()
    again = world.fill(store, days=400)
    assert [item.delisted_ms for item in again.series] == [None, None]
    assert again.requests <= 9  # markets, clock, and one page a series: what was before the listing is not asked again


@pytest.mark.parametrize("damage", ["half", "bit", "gone", "manifest"])
def test_damage_on_the_disk_is_mended_and_told(world, store, damage):
    world.fill(store)
    folder = Path(store.root) / BTC.folder
    path = folder / ("manifest.json" if damage == "manifest" else store.parts(BTC)[0].file)
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] + b"\x00" if damage == "bit" else data[: len(data) // 2])
    summary = world.fill(store, verify=damage == "bit")
    assert f"Damage was found and mended: {path}" in said(summary)
    if damage in ("half", "bit"):
        assert path.with_name(path.name + ".damaged").exists()
    world.assert_complete(store)
