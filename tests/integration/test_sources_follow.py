"""Following the market: `data follow` and the keeper beside the bots, on the sandbox's virtual clock."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from cluster.keeper import Keeper
from cluster.settings import Settings
from cluster.stages.data import open_store
from cluster.stages.exchange import RunningExchange, start_exchange
from cluster.stages.following import AFTER_CLOSE_MS, Following, WallPace, follow, next_update_ms
from observability.progress import NullProgress
from pipelines.store import SeriesKey

pytestmark = pytest.mark.slow
STEP, HOUR = 900_000, 3_600_000
CANDLES = SeriesKey("sandbox", "ohlcv", "BTC/USDT", "15m")
RATES = SeriesKey("sandbox", "funding", "BTC/USDT")


@pytest.fixture
def settings(tmp_path) -> Settings:
    market = {"pairs": ("BTC/USDT",), "history_days": 5.0, "trading_days": 30.0}
    return Settings().changed(workspace={"root": tmp_path / "w"}, market=market)


@pytest.fixture
def exchange(settings: Settings) -> Iterator[RunningExchange]:
    running = start_exchange(settings, NullProgress())
    yield running
    running.stop()


def test_each_close_brings_one_candle_and_a_failed_update_is_made_up_for(settings, exchange):
    told = []
    with contextlib.closing(exchange.client()) as control:
        control.plan_fault(kind="error", path="/api/v3/klines", status=400, code=-1100, after_ms=3 * STEP, count=1)
        done = follow(settings, Following(updates=8), threading.Event(), base_url=exchange.url, told=told.append)
        assert control.now_ms() > exchange.open_ms + 6 * STEP
    # The first fills the past, the second comes just after T0: a candle that closes there is stored already.
    assert [item.new_rows for item in told[2:]].count(1) + [item.new_rows for item in told[2:]].count(2) >= 5
    assert done.updates + done.failed == 8
    assert done.failed == 1
    assert "1100" in done.last_error
    store = open_store(settings)
    assert store.manifest(CANDLES).gaps == ()
    assert store.manifest(CANDLES).end_ms == exchange.open_ms + 5 * STEP


def test_the_keeper_keeps_funding_fresh_and_leaves_the_clock_when_it_ends(settings, exchange):
    store = open_store(settings)
    with contextlib.closing(exchange.client()) as control:
        control.join("bot")
        keeper = Keeper(settings, exchange.url, virtual=True)
        deadline = time.monotonic() + 60
        while not store.exists(RATES) and time.monotonic() < deadline:
            time.sleep(0.05)
        bed = control.now_ms()
        control.sleep("bot", bed + 30 * HOUR)  # time goes on only as far as both sleep
        assert store.manifest(RATES).end_ms >= bed + 16 * HOUR
        assert keeper.stop()
        risen = control.now_ms()
        control.sleep("bot", risen + 60 * HOUR)  # nobody is waited for any more
        assert control.now_ms() >= risen + 60 * HOUR
    assert open_store(settings).keys() == (RATES,)


def test_ctrl_c_ends_following_at_once_with_a_summary(settings, exchange, repo_root):
    with contextlib.closing(exchange.client()) as control:
        control.join("bot")  # does not sleep: the follower waits for its next candle
        argv = [sys.executable, "-m", "cluster", "--workspace", str(settings.workspace.root), "data", "follow"]
        argv += ["--url", exchange.url, "--pair", "BTC/USDT", "--days", "2"]
        process = subprocess.Popen(
            argv, cwd=repo_root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
        )
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "new" in line, line
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        assert time.monotonic() - began < 10
    assert process.returncode == 0
    assert re.match(r"[1-9][0-9]* updates in", out)
    assert "The store is whole." in out
    stored = open_store(settings).manifest(CANDLES)
    assert stored.gaps == ()
    assert stored.rows >= 2 * 96 - 1


def test_the_next_update_is_a_moment_after_the_next_close(settings):
    at = Following(timeframes=("1h", "15m"))
    for now in (0, 1, STEP - 1):
        assert next_update_ms(STEP + AFTER_CLOSE_MS + now, settings, at) == 2 * STEP + AFTER_CLOSE_MS
    assert next_update_ms(STEP, settings, at) == STEP + AFTER_CLOSE_MS
    assert next_update_ms(5, settings, Following(every_ms=7)) == 12


def test_the_wall_clock_is_corrected_by_the_exchanges_and_stops_at_once():
    stop = threading.Event()
    pace = WallPace(stop)
    pace.skew_ms = 60_000
    assert pace.now_ms() - time.time() * 1000 > 59_000
    began = time.monotonic()
    pace.sleep_until(pace.now_ms() + 50)
    stop.set()
    pace.sleep_until(pace.now_ms() + 60_000)
    assert time.monotonic() - began < 5


def test_ctrl_c_ends_a_backfill_at_once_though_the_exchange_hangs(settings, exchange, repo_root):
    with contextlib.closing(exchange.client()) as control:
        control.plan_fault(kind="timeout_before", path="/api/v3/klines", hold_s=60.0, count=0)
        argv = [sys.executable, "-m", "cluster", "--workspace", str(settings.workspace.root), "data", "backfill"]
        process = subprocess.Popen(
            [*argv, "--url", exchange.url, "--pair", "BTC/USDT"], cwd=repo_root, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        assert "backfill from sandbox" in process.stderr.readline()
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
        assert time.monotonic() - began < 10
    assert process.returncode == 130
    assert "interrupted" in told
