"""The wire contract: unmodified ccxt, pointed at the sandbox, must find a Binance there."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from typing import Any

import ccxt
import httpx
import pytest

from cluster.settings import Settings
from cluster.stages.exchange import RunningExchange, exchange_status, find_exchange, start_exchange, stop_exchange
from observability.errors import ExchangeError, StartError
from observability.progress import NullProgress
from tests.contract.sandbox_kit import conserved
from trading.adapters.api_key import read_key
from trading.adapters.sandbox.client import SandboxClient, ccxt_urls

CANDLE = 900_000
Trader = Callable[..., Any]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings().changed(workspace={"root": tmp_path_factory.mktemp("exchange")}, market={"history_days": 30.0})


@pytest.fixture(scope="module")
def exchange(settings: Settings) -> Iterator[RunningExchange]:
    running = start_exchange(settings, NullProgress(), accounts=("alice", "bob", "carol"))
    yield running
    running.stop()


@pytest.fixture
def control(exchange: RunningExchange) -> Iterator[SandboxClient]:
    with conserved(exchange) as client:
        yield client


@pytest.fixture
def trader(exchange: RunningExchange, control: SandboxClient) -> Trader:
    def make(name: str = "alice", **changes: Any) -> Any:
        key = read_key(exchange.key_files[name])
        keys = {"apiKey": key.key, "secret": key.secret, **changes}
        api = ccxt.binance({**keys, "enableRateLimit": False, "urls": {"api": ccxt_urls(exchange.url)}})
        assert set(api.urls["api"]) == set(ccxt_urls(exchange.url)), "ccxt knows rooms that we would miss"
        api.load_time_difference()
        api.load_markets()
        return api

    return make


def _advance(control: SandboxClient, api: Any, ms: int) -> None:
    control.advance(control.now_ms() + ms)
    api.load_time_difference()


def test_markets_carry_the_exchange_rules(trader: Trader, exchange: RunningExchange) -> None:
    api = trader(options={"fetchMargins": True})
    assert {pair for pair in api.symbols if ":" not in pair} == set(exchange.pairs)
    assert {pair for pair in api.symbols if ":" in pair} == {f"{pair}:USDT" for pair in exchange.pairs}
    market = api.market("BTC/USDT")
    assert market["active"]
    assert market["limits"]["cost"]["min"] == 5.0
    assert market["precision"]["amount"] == market["limits"]["amount"]["min"] > 0
    assert {"STOP_LOSS_LIMIT", "LIMIT", "MARKET"} <= set(market["info"]["orderTypes"])
    assert "STOP_MARKET" in api.market("BTC/USDT:USDT")["info"]["orderTypes"]
    assert set(api.currencies) >= {"BTC", "USDT", "DOGE"}


def test_candles_come_in_pages_without_holes_and_end_now(
    trader: Trader, exchange: RunningExchange, control: SandboxClient
) -> None:
    api, since, rows = trader(), exchange.first_ms, []
    now = control.now_ms()
    while page := api.fetch_ohlcv("ETH/USDT", "15m", since=since, limit=1000):
        rows += page
        since = page[-1][0] + CANDLE
    assert [row[0] for row in rows] == list(range(exchange.first_ms, now + 1, CANDLE))
    assert all(row[2] >= max(row[1], row[4]) and row[3] <= min(row[1], row[4]) for row in rows)
    hours = api.fetch_ohlcv("ETH/USDT", "1h", since=exchange.first_ms, limit=5)
    assert hours[0][5] == pytest.approx(sum(row[5] for row in rows[:4]))
    mark = api.fetch_ohlcv("ETH/USDT:USDT", "15m", since=exchange.first_ms, limit=5, params={"price": "mark"})
    assert [row[:5] for row in mark] == [row[:5] for row in rows[:5]]
    with pytest.raises(ccxt.BadRequest, match="Invalid interval"):
        api.fetch_ohlcv("ETH/USDT", "5m")
    with pytest.raises(ccxt.BadSymbol):
        api.public_get_klines({"symbol": "NOPE", "interval": "15m"})


def test_funding_stops_at_now(trader: Trader, exchange: RunningExchange, control: SandboxClient) -> None:
    api = trader()
    paid = api.fetch_funding_rate_history("BTC/USDT:USDT", since=exchange.first_ms, limit=1000)
    assert len(paid) >= 89
    assert paid[-1]["timestamp"] <= control.now_ms() < exchange.end_ms
    assert api.fetch_funding_rate("BTC/USDT:USDT")["fundingRate"] == paid[-1]["fundingRate"]


def test_tickers_and_book_agree(trader: Trader) -> None:
    api = trader()
    tickers = api.fetch_tickers()
    for pair in ("BTC/USDT", "DOGE/USDT"):
        book = api.fetch_order_book(pair, 5)
        bid, ask = book["bids"][0][0], book["asks"][0][0]
        assert bid < ask
        assert bid == tickers[pair]["bid"]
        assert bid <= tickers[pair]["last"] <= ask
        assert tickers[pair]["low"] <= tickers[pair]["last"] <= tickers[pair]["high"]
        assert tickers[pair]["quoteVolume"] > 0
    assert api.fetch_bids_asks(["BTC/USDT"])["BTC/USDT"]["bid"] == tickers["BTC/USDT"]["bid"]


def test_an_order_lives_fills_and_is_accounted_for(trader: Trader, control: SandboxClient) -> None:
    api = trader()
    market = api.create_order("BTC/USDT", "market", "buy", 0.01)
    assert (market["status"], market["filled"]) == ("closed", 0.01)
    assert market["fee"]["currency"] == "BTC"
    last = api.fetch_ticker("BTC/USDT")["last"]
    limit = api.create_order("BTC/USDT", "limit", "sell", 0.005, last * 1.001)
    assert limit["status"] == "open"
    assert api.fetch_balance()["BTC"]["used"] == 0.005
    for _ in range(96):
        _advance(control, api, CANDLE)
        if api.fetch_order(limit["id"], "BTC/USDT")["status"] == "closed":
            break
    done = api.fetch_order(limit["id"], "BTC/USDT")
    assert (done["status"], done["average"]) == ("closed", limit["price"])
    trades = api.fetch_my_trades("BTC/USDT")
    assert [trade["order"] for trade in trades] == [market["id"], limit["id"]]
    assert [trade["takerOrMaker"] for trade in trades] == ["taker", "maker"]
    assert trades[1]["fee"]["currency"] == "USDT"
    assert trades[1]["fee"]["cost"] == pytest.approx(done["cost"] / 1000, abs=1e-8)
    held = api.fetch_balance()
    spent = market["cost"] - done["cost"] + trades[1]["fee"]["cost"]
    assert held["USDT"]["total"] == pytest.approx(10_000 - spent, abs=1e-8)
    assert held["BTC"]["total"] == pytest.approx(0.01 - trades[0]["fee"]["cost"] - 0.005, abs=1e-12)
    assert [order["id"] for order in api.fetch_orders("BTC/USDT")] == [market["id"], limit["id"]]
    assert api.fetch_trading_fees()["BTC/USDT"]["taker"] == 0.001


def test_orders_can_be_taken_back_and_stops_wait(trader: Trader) -> None:
    api = trader("bob")
    api.create_order("ETH/USDT", "market", "buy", 0.5)
    last = api.fetch_ticker("ETH/USDT")["last"]
    stop = api.create_order("ETH/USDT", "stop_loss_limit", "sell", 0.4, last * 0.9, {"stopPrice": last * 0.95})
    assert stop["triggerPrice"] == pytest.approx(last * 0.95, rel=1e-4)
    assert [order["id"] for order in api.fetch_open_orders("ETH/USDT")] == [stop["id"]]
    assert api.cancel_order(stop["id"], "ETH/USDT")["status"] == "canceled"
    with pytest.raises(ccxt.OrderNotFound):
        api.cancel_order(stop["id"], "ETH/USDT")
    with pytest.raises(ccxt.OrderNotFound):
        api.fetch_order("999999", "ETH/USDT")
    with pytest.raises(ccxt.OrderImmediatelyFillable):
        api.create_order("ETH/USDT", "stop_loss_limit", "sell", 0.4, last, {"stopPrice": last * 1.05})
    api.create_order("ETH/USDT", "limit", "buy", 0.1, last * 0.9)
    api.create_order("ETH/USDT", "limit", "buy", 0.1, last * 0.8)
    assert len(api.cancel_all_orders("ETH/USDT")) == 2
    assert api.fetch_balance()["USDT"]["used"] == 0


def test_strangers_and_wrong_clocks_are_turned_away(trader: Trader, exchange: RunningExchange) -> None:
    api = trader()
    api.secret = "0" * 64
    with pytest.raises(ccxt.AuthenticationError, match="-1022"):
        api.fetch_balance()
    with pytest.raises(ccxt.AuthenticationError, match="-2015"):
        trader(apiKey="f" * 64)
    api = trader()
    difference = api.options["timeDifference"]
    for shift, words in ((3_600_000, "outside of the recvWindow"), (-86_400_000, "ahead of the server")):
        api.options["timeDifference"] = difference + shift
        with pytest.raises(ccxt.InvalidNonce, match=words):
            api.fetch_balance()
    bare = httpx.get(f"{exchange.url}/api/v3/account")
    assert (bare.status_code, bare.json()["code"]) == (401, -2014)
    signed = httpx.get(f"{exchange.url}/api/v3/account", headers={"X-MBX-APIKEY": api.apiKey})
    assert (signed.status_code, signed.json()["code"]) == (400, -1102)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantity": "0.000000001"}, "LOT_SIZE"),
        ({"quantity": "-1"}, "LOT_SIZE"),
        ({"price": "1.123456789"}, "PRICE_FILTER"),
        ({"price": "0.01"}, "PERCENT_PRICE"),
        ({"quantity": "0.0001", "price": "2000"}, "NOTIONAL"),
        ({"type": "ICEBERG"}, "Invalid orderType"),
        ({"side": "HOLD"}, "Invalid side"),
        ({"timeInForce": ""}, "'timeInForce' was not sent"),
        ({"symbol": "NOPEUSDT"}, "Invalid symbol"),
        ({"newClientOrderId": "so bad!"}, "Illegal characters"),
    ],
)
def test_bad_orders_are_refused_in_words(trader: Trader, change: dict[str, str], words: str) -> None:
    order = {"symbol": "ETHUSDT", "side": "BUY", "type": "LIMIT", "quantity": "0.1", "price": "2000"}
    order |= {"timeInForce": "GTC", "newClientOrderId": "fresh", **change}
    api = trader("bob")
    with pytest.raises(ccxt.BaseError, match=words):
        api.private_post_order(order)
    assert api.fetch_open_orders("ETH/USDT") == []


def test_what_is_not_there_cannot_be_spent_and_one_id_is_one_open_order(trader: Trader) -> None:
    api = trader("bob")
    last = api.fetch_ticker("SOL/USDT")["last"]
    with pytest.raises(ccxt.InsufficientFunds):
        api.create_order("SOL/USDT", "limit", "buy", 11_000 / last, last)
    with pytest.raises(ccxt.InsufficientFunds):
        api.create_order("SOL/USDT", "market", "sell", 1)
    first = api.create_order("SOL/USDT", "limit", "buy", 1, last * 0.9, {"newClientOrderId": "mine"})
    with pytest.raises(ccxt.InvalidOrder, match="Duplicate order sent"):
        api.create_order("SOL/USDT", "limit", "buy", 1, last * 0.9, {"newClientOrderId": "mine"})
    assert api.fetch_order(None, "SOL/USDT", {"origClientOrderId": "mine"})["id"] == first["id"]
    assert trader("alice").fetch_open_orders("SOL/USDT") == []
    api.cancel_order(first["id"], "SOL/USDT")


def test_a_lost_reply_leaves_the_order_executed(trader: Trader, control: SandboxClient) -> None:
    api = trader("carol")
    order = ("XRP/USDT", "market", "buy", 100)
    control.plan_fault(kind="timeout_before", method="POST", path="/api/v3/order", account="carol")
    control.plan_fault(kind="timeout_after", method="POST", path="/api/v3/order", account="carol")
    control.plan_fault(kind="error", method="GET", path="/api/v3/account", status=429, code=-1003, message="Slow down.")
    with pytest.raises(ccxt.NetworkError):
        api.create_order(*order, params={"newClientOrderId": "before"})
    with pytest.raises(ccxt.NetworkError):
        api.create_order(*order, params={"newClientOrderId": "after"})
    with pytest.raises(ccxt.DDoSProtection):
        api.fetch_balance()
    with pytest.raises(ccxt.OrderNotFound):
        api.fetch_order(None, "XRP/USDT", {"origClientOrderId": "before"})
    assert api.fetch_order(None, "XRP/USDT", {"origClientOrderId": "after"})["status"] == "closed"
    assert api.fetch_balance()["XRP"]["total"] == pytest.approx(99.9)


def test_the_ledger_tells_all_and_balances(trader: Trader, control: SandboxClient) -> None:
    trader("carol").create_order("DOGE/USDT", "market", "buy", 1000)
    books = control.ledger()
    assert books["conserved"] is True
    carol = books["accounts"]["carol"]
    assert carol["initial"] == {"USDT": "10000.00000000"}
    spent = sum(float(fill["cost"]) for fill in carol["fills"])
    assert float(carol["balances"]["USDT"]["total"]) == pytest.approx(10_000 - spent, abs=1e-8)
    assert {fill["order_id"] for fill in carol["fills"]} <= {order["order_id"] for order in carol["orders"]}


def test_answers_count_their_weight(exchange: RunningExchange) -> None:
    first, second = (httpx.get(f"{exchange.url}/api/v3/exchangeInfo").headers["x-mbx-used-weight-1m"] for _ in "ab")
    assert int(second) - int(first) == 20


def test_page_by_page_the_whole_history_is_there_once(trader: Trader, exchange: RunningExchange) -> None:
    api = trader()
    for pair in exchange.pairs:
        times: list[int] = []
        while page := api.fetch_ohlcv(pair, "15m", since=exchange.first_ms + len(times) * CANDLE, limit=1000):
            times += [row[0] for row in page]
        assert times == [exchange.first_ms + row * CANDLE for row in range(len(times))]
        assert len(times) > 1000, "more than a page"
        assert 0 <= api.fetch_time() - times[-1] < CANDLE, "up to the candle that runs now"


def test_metrics_are_exported_and_keys_are_closed(settings: Settings, exchange: RunningExchange) -> None:
    target = (settings.workspace.targets / "exchange.json").read_text()
    address = target.split('"targets"')[1].split('"')[1]
    text = httpx.get(f"http://{address}/metrics").text
    assert 'mtst_exchange_requests_total{endpoint="GET /api/v3/exchangeInfo",status="200"}' in text
    for path in exchange.key_files.values():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        key = read_key(path)
        assert key.secret not in repr(key)
        for written in (settings.workspace.logs / "exchange.log", settings.workspace.var / "exchange.json"):
            assert key.key not in written.read_text()
            assert key.secret not in written.read_text()


def test_one_exchange_a_workspace_found_again_and_stopped(settings: Settings, exchange: RunningExchange) -> None:
    with pytest.raises(StartError, match="already running"):
        start_exchange(settings, NullProgress())
    found = find_exchange(settings)
    assert found is not None
    assert (found.url, found.pid, found.pairs) == (exchange.url, exchange.pid, exchange.pairs)
    assert exchange_status(settings).health["market"] == "simulated"
    other = Settings().changed(workspace={"root": settings.workspace.root / "other"})
    assert exchange_status(other).running is False
    assert stop_exchange(other) is False
    with pytest.raises(ExchangeError, match="does not answer"):
        SandboxClient("http://127.0.0.1:9", timeout_s=1).health()
