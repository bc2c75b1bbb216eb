"""WebSockets as unmodified ccxt.pro uses them: candles and an account's orders arrive without being asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import ccxt
import ccxt.pro
import pytest

from cluster.stages.exchange import RunningExchange
from tests.contract.sandbox_kit import CANDLE, conserved, exchange_in
from trading.adapters.api_key import read_key
from trading.adapters.sandbox.client import SandboxClient, ccxt_streams, ccxt_urls

WAIT_S = 20.0
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    with exchange_in(tmp_path_factory.mktemp("streams"), "alice", basis=0.01, trading_days=5.0) as running:
        yield running


@pytest.fixture
def control(exchange: RunningExchange) -> Iterator[SandboxClient]:
    with conserved(exchange) as client:
        yield client


def _pro(exchange: RunningExchange) -> Any:
    key = read_key(exchange.key_files["alice"])
    urls = {**ccxt_urls(exchange.url), "ws": ccxt_streams(exchange.url)}
    return ccxt.pro.binance({"apiKey": key.key, "secret": key.secret, "enableRateLimit": False, "urls": {"api": urls}})


def _ran(exchange: RunningExchange, play: Any) -> None:
    async def run() -> None:
        api = _pro(exchange)
        try:
            await api.load_time_difference()
            await asyncio.wait_for(play(api), WAIT_S)
        finally:
            await api.close()

    asyncio.run(run())


async def _endless(api: Any) -> None:
    while True:
        await api.watch_ohlcv("BTC/USDT", "15m")


@pytest.mark.parametrize("pair", ["BTC/USDT", ETH])
def test_candles_form_close_and_begin_anew(exchange: RunningExchange, control: SandboxClient, pair: str) -> None:
    async def play(api: Any) -> None:
        first = (await api.watch_ohlcv(pair, "15m"))[-1]
        control.advance(control.now_ms() + CANDLE)
        seen = {first[0]: first}
        while max(seen) < first[0] + CANDLE:
            seen |= {row[0]: row for row in await api.watch_ohlcv(pair, "15m")}
        asked = {row[0]: row for row in await api.fetch_ohlcv(pair, "15m", limit=5)}
        closed = api.ohlcvs[pair]["15m"][-2]
        assert list(closed) == asked[first[0]], "the closed candle is the one that REST tells"
        (other,) = await api.fetch_ohlcv({"BTC/USDT": BTC, ETH: "ETH/USDT"}[pair], "15m", since=first[0], limit=1)
        assert other[1:5] != list(closed)[1:5], "spot and perpetual are two prices"

    _ran(exchange, play)


def test_an_order_is_told_when_it_is_made_filled_and_cancelled(
    exchange: RunningExchange, control: SandboxClient
) -> None:
    async def play(api: Any) -> None:
        watching = asyncio.create_task(api.watch_orders("ETH/USDT"))
        await asyncio.sleep(1.0)
        bought = await api.create_order("ETH/USDT", "market", "buy", 0.1)
        told = (await watching)[-1]
        assert (told["id"], told["status"], told["filled"]) == (bought["id"], "closed", 0.1)
        resting = await api.create_order("ETH/USDT", "limit", "buy", 0.1, bought["average"] * 0.9)
        told = (await api.watch_orders("ETH/USDT"))[-1]
        assert (told["id"], told["status"]) == (resting["id"], "open")
        await api.cancel_order(resting["id"], "ETH/USDT")
        assert (await api.watch_orders("ETH/USDT"))[-1]["status"] == "canceled"

    _ran(exchange, play)


def test_a_disconnection_cuts_the_stream(exchange: RunningExchange, control: SandboxClient) -> None:
    async def play(api: Any) -> None:
        await api.watch_ohlcv("BTC/USDT", "15m")
        control.plan_fault(kind="disconnect", count=0)
        with pytest.raises(ccxt.NetworkError):
            await _endless(api)
        control.clear_faults()

    _ran(exchange, play)


def test_an_unknown_stream_and_a_wrong_signature_are_refused(exchange: RunningExchange, control: SandboxClient) -> None:
    async def play(api: Any) -> None:
        api.secret = "0" * 64
        with pytest.raises(ccxt.BaseError, match="Signature"):
            await api.watch_orders("ETH/USDT")

    _ran(exchange, play)
