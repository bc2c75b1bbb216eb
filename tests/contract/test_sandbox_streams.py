"""WebSockets as unmodified ccxt.pro uses them: candles and an account's orders arrive without being asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
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


def _pro(exchange: RunningExchange, kind: type[Any]) -> Any:
    key = read_key(exchange.key_files["alice"])
    urls = {**ccxt_urls(exchange.url), "ws": ccxt_streams(exchange.url)}
    return kind({"apiKey": key.key, "secret": key.secret, "enableRateLimit": False, "urls": {"api": urls}})


def _ran(exchange: RunningExchange, play: Any, kind: type[Any] = ccxt.pro.binance) -> None:
    async def run() -> None:
        api = _pro(exchange, kind)
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


PERPETUAL = "ETH/USDT:USDT"


async def _heard(watch: Any, wanted: Any, *args: Any) -> Any:
    """The first thing that is told and wanted."""
    while True:
        for told in reversed(await watch(*args)):
            if wanted(told):
                return told


def _wallet(control: SandboxClient) -> float:
    return float(control.ledger()["futures"]["alice"]["balances"]["USDT"]["total"])


async def _leap(control: SandboxClient, api: Any, candles: int) -> None:
    control.advance(control.now_ms() + candles * CANDLE)
    await api.load_time_difference()


def test_a_perpetual_is_told_from_the_order_to_the_wallet(exchange: RunningExchange, control: SandboxClient) -> None:
    async def play(api: Any) -> None:
        trades = asyncio.create_task(api.watch_my_trades(PERPETUAL))
        wallet = asyncio.create_task(api.watch_balance({"type": "future"}))
        held = asyncio.create_task(_heard(api.watch_positions, lambda told: told["contracts"] == 0.5, [PERPETUAL]))
        await asyncio.sleep(1.0)
        opened = await api.create_order(PERPETUAL, "market", "sell", 0.5)
        trade = (await trades)[-1]
        assert (trade["order"], trade["side"], trade["amount"]) == (opened["id"], "sell", 0.5)
        assert trade["price"] == opened["average"]
        position = await held
        assert (position["side"], position["contracts"], position["entryPrice"]) == ("short", 0.5, opened["average"])
        told = (await wallet)["USDT"]["total"]
        assert told == _wallet(control) == pytest.approx(10_000 - trade["fee"]["cost"], abs=1e-8)
        await api.create_order(PERPETUAL, "market", "buy", 0.5, None, {"reduceOnly": True})
        await _heard(api.watch_positions, lambda told: told["contracts"] == 0, [PERPETUAL])

    _ran(exchange, play, ccxt.pro.binanceusdm)


def test_a_stop_is_told_when_it_is_placed_met_and_filled(exchange: RunningExchange, control: SandboxClient) -> None:
    seen: list[tuple[str, str]] = []

    async def play(api: Any) -> None:
        opened = await api.create_order(PERPETUAL, "market", "buy", 0.5)
        watching = asyncio.create_task(api.watch_orders(PERPETUAL))
        await asyncio.sleep(1.0)
        handle = api.handle_order
        api.handle_order = lambda client, told: (
            seen.append((told.get("at", "ORDER"), told["X"])),
            handle(client, told),
        )
        params = {"stopPrice": opened["average"] * 0.9998, "reduceOnly": True}
        stop = await api.create_order(PERPETUAL, "market", "sell", 0.5, None, params)
        placed = (await watching)[-1]
        assert (placed["id"], placed["status"], placed["triggerPrice"]) == (stop["id"], "open", stop["triggerPrice"])
        filled = asyncio.create_task(_heard(api.watch_orders, lambda told: told["filled"] == 0.5, PERPETUAL))
        while not filled.done():
            await _leap(control, api, 4)
            await asyncio.sleep(0.3)
        assert (await filled)["average"] <= opened["average"] * 0.9998

    _ran(exchange, play, ccxt.pro.binanceusdm)
    rest = ["CONDITIONAL TRIGGERED", "ORDER NEW", "ORDER FILLED", "CONDITIONAL FINISHED"]
    assert [" ".join(each) for each in seen][:5] == ["CONDITIONAL NEW", *rest]


def test_funding_is_told_when_it_is_paid(exchange: RunningExchange, control: SandboxClient) -> None:
    async def play(api: Any) -> None:
        await api.create_order(PERPETUAL, "market", "buy", 1.0)
        before = _wallet(control)
        watching = asyncio.create_task(api.watch_balance({"type": "future"}))
        await asyncio.sleep(1.0)
        await _leap(control, api, 33)
        told = await watching
        assert told["info"]["a"]["m"] == "FUNDING_FEE"
        paid = float(told["info"]["a"]["B"][0]["bc"])
        assert paid != 0
        assert told["USDT"]["total"] == _wallet(control) == pytest.approx(before + paid, abs=1e-8)
        await api.create_order(PERPETUAL, "market", "sell", 1.0, None, {"reduceOnly": True})

    _ran(exchange, play, ccxt.pro.binanceusdm)


def test_a_listen_key_lives_until_it_is_closed(exchange: RunningExchange, control: SandboxClient) -> None:
    async def play(api: Any) -> None:
        key = (await api.fapiPrivatePostListenKey())["listenKey"]
        assert (await api.fapiPrivatePutListenKey())["listenKey"] == key, "renewed, not changed"
        url = f"{api.get_ws_url('linear', 'private')}?listenKey={key}"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            await api.fapiPrivateDeleteListenKey()
            told = await socket.receive_json()
        assert (told["e"], told["listenKey"]) == ("listenKeyExpired", key)
        with pytest.raises(ccxt.BaseError, match="-1125"):
            await api.fapiPrivatePutListenKey()
        assert (await api.fapiPrivatePostListenKey())["listenKey"] != key
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(url)

    _ran(exchange, play, ccxt.pro.binanceusdm)
