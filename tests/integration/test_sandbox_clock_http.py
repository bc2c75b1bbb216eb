"""The clock over HTTP: several clients in lock-step, one that hangs, and two runs that are the same."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ccxt
import httpx
import pytest

from cluster.settings import Settings
from cluster.stages.exchange import RunningExchange, start_exchange
from observability.progress import NullProgress
from trading.adapters.api_key import read_key
from trading.adapters.sandbox.client import SandboxClient, ccxt_urls

HOUR = 3_600_000


@contextlib.contextmanager
def _exchange(folder: Path, seed: int = 7) -> Iterator[RunningExchange]:
    settings = Settings().changed(
        workspace={"root": folder},
        market={"pairs": ("BTC/USDT", "SOL/USDT"), "history_days": 2.0, "trading_days": 3.0, "seed": seed},
    )
    running = start_exchange(settings, NullProgress())
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    with _exchange(tmp_path_factory.mktemp("clock")) as running:
        yield running


def test_nobody_wakes_late_or_early_and_time_waits_for_the_slow(exchange: RunningExchange) -> None:
    names, wakes, lock = ("a", "b", "c"), [], threading.Lock()

    def live(name: str, draw: random.Random) -> None:
        with contextlib.closing(exchange.client()) as client:
            now = client.now_ms()
            end = now + 6 * HOUR
            while now < end:
                until = min(end, now + draw.randrange(1, 40) * 60_000)
                now = client.sleep(name, until)
                busy = draw.random() * 0.01
                with lock:
                    wakes.append((name, until, now))
                time.sleep(busy)
                assert client.now_ms() == now, "time passed while a participant was busy"
            client.leave(name)

    with contextlib.closing(exchange.client()) as client:
        for name in names:
            client.join(name)
        begin = client.now_ms()
        threads = [threading.Thread(target=live, args=(name, random.Random(name))) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert client.now_ms() == begin + 6 * HOUR, "six hours of virtual time want no real ones"
        assert client.health()["participants"] == {}
    assert {name for name, *_ in wakes} == set(names)
    assert all(now == until for _, until, now in wakes)


def test_a_hung_client_meets_a_moving_market_and_lockstep_resumes(exchange: RunningExchange) -> None:
    with contextlib.closing(exchange.client()) as client:
        begin = client.join("hung")
        time.sleep(4.5)
        moved = client.now_ms() - begin
        assert 500 < moved < 4_500
        assert client.health()["running"]
        assert client.sleep("hung", begin + HOUR) == begin + HOUR
        frozen = client.now_ms()
        time.sleep(0.3)
        assert client.now_ms() == frozen
        client.leave("hung")


def test_a_sleeper_that_is_killed_is_waited_for_and_then_forgotten(exchange: RunningExchange) -> None:
    with contextlib.closing(exchange.client()) as client:
        until = client.now_ms() + HOUR
        with contextlib.suppress(httpx.ReadTimeout):
            client.join("alive")
            httpx.post(
                f"{exchange.url}/sandbox/clock/sleep", json={"participant": "killed", "until_ms": until}, timeout=0.3
            )
        assert client.sleep("alive", until) == until
        assert client.health()["participants"]["killed"] is None
        client.leave("killed")
        assert client.sleep("alive", until + HOUR) == until + HOUR
        client.leave("alive")


@pytest.mark.parametrize(
    ("path", "body"),
    [("clock/sleep", {"participant": "x"}), ("clock/leave", {"participant": ""}), ("faults", {"kind": "meteor"})],
)
def test_malformed_control_requests_are_refused(exchange: RunningExchange, path: str, body: dict[str, Any]) -> None:
    answer = httpx.post(f"{exchange.url}/sandbox/{path}", json=body)
    assert answer.status_code == 422
    assert "wrong" in answer.json()["error"]


def _session(exchange: RunningExchange, seed: int) -> str:
    """A scripted trader of two days; returns the digest of everything that happened."""
    key, draw = read_key(exchange.key_files["trader"]), random.Random(seed)
    keys = {"apiKey": key.key, "secret": key.secret}
    api = ccxt.binance({**keys, "enableRateLimit": False, "urls": {"api": ccxt_urls(exchange.url)}})
    with contextlib.closing(SandboxClient(exchange.url)) as client:
        now = client.join("trader")
        api.load_time_difference()
        api.load_markets()
        for _ in range(40):
            pair, side = draw.choice(exchange.pairs), draw.choice(["buy", "sell"])
            price = api.fetch_ticker(pair)["last"] * draw.uniform(0.99, 1.01)
            with contextlib.suppress(ccxt.InvalidOrder, ccxt.InsufficientFunds):
                api.create_order(pair, draw.choice(["limit", "limit", "market"]), side, 300 / price, price)
            now = client.sleep("trader", now + draw.randrange(1, 70) * 60_000)
            api.load_time_difference()
        books = client.ledger()
        client.leave("trader")
    assert len(books["accounts"]["trader"]["fills"]) >= 10
    return str(books["digest"])


def test_the_same_seed_and_the_same_orders_give_the_same_history(tmp_path: Path) -> None:
    digests = []
    for folder, seed in (("one", 7), ("two", 7), ("three", 8)):
        with _exchange(tmp_path / folder, seed) as running:
            digests.append(_session(running, 5))
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]
