"""Perpetuals over the wire: unmodified ccxt opens, protects, funds, liquidates and closes positions there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ccxt
import pytest

from cluster.stages.exchange import RunningExchange
from tests.contract.sandbox_kit import CANDLE, conserved, exchange_in, leap, trader_of
from trading.adapters.sandbox.client import SandboxClient

BTC, ETH, SOL, XRP = (f"{base}/USDT:USDT" for base in ("BTC", "ETH", "SOL", "XRP"))


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    names = ("alice", "bob", "carol", "dave")
    with exchange_in(tmp_path_factory.mktemp("futures"), *names, trading_days=20.0) as running:
        yield running


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    """An exchange whose perpetuals have prices of their own."""
    with exchange_in(tmp_path_factory.mktemp("apart"), "erin", basis=0.01, trading_days=5.0) as running:
        yield running


@pytest.fixture
def control(exchange: RunningExchange) -> Iterator[SandboxClient]:
    with conserved(exchange) as client:
        yield client


def _trader(exchange: RunningExchange, name: str) -> Any:
    return trader_of(exchange, name, ccxt.binanceusdm)


def _wallet(control: SandboxClient, name: str) -> float:
    return float(control.ledger()["futures"][name]["balances"]["USDT"]["total"])


def test_what_a_bot_asks_before_it_trades(exchange: RunningExchange, control: SandboxClient) -> None:
    api = _trader(exchange, "alice")
    assert "STOP_MARKET" in api.market(BTC)["info"]["orderTypes"]
    tiers = api.fetch_leverage_tiers([BTC])[BTC]
    assert (tiers[0]["maxLeverage"], tiers[0]["maintenanceMarginRate"]) == (125, 0.004)
    assert [tier["minNotional"] for tier in tiers[1:]] == [tier["maxNotional"] for tier in tiers[:-1]]
    assert api.fapiPrivateGetPositionSideDual() == {"dualSidePosition": False}
    assert api.fapiPrivateGetMultiAssetsMargin() == {"multiAssetsMargin": False}
    assert api.fetch_trading_fees()[BTC]["taker"] > 0
    assert api.fetch_balance()["USDT"] == {"free": 10_000.0, "used": 0.0, "total": 10_000.0}
    assert api.fetch_positions() == []
    api.set_margin_mode("isolated", BTC)
    with pytest.raises(ccxt.MarginModeAlreadySet):
        api.set_margin_mode("isolated", BTC)
    assert api.set_leverage(5, BTC)["leverage"] == 5
    assert api.fetch_leverage(BTC)["longLeverage"] == 5
    with pytest.raises(ccxt.BaseError, match="not valid"):
        api.fapiPrivatePostLeverage({"symbol": "BTCUSDT", "leverage": 126})
    assert api.fetch_funding_rate(BTC)["markPrice"] == api.fetch_ticker(BTC)["last"]


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_a_position_is_opened_protected_reduced_and_closed(
    exchange: RunningExchange, control: SandboxClient, side: str
) -> None:
    api, other = _trader(exchange, "alice"), "sell" if side == "buy" else "buy"
    before = _wallet(control, "alice")
    opened = api.create_order(BTC, "market", side, 0.1)
    assert (opened["status"], opened["filled"]) == ("closed", 0.1)
    position = api.fetch_positions([BTC])[0]
    assert (position["side"], position["contracts"]) == ("long" if side == "buy" else "short", 0.1)
    assert position["marginMode"] == "isolated"
    assert position["initialMargin"] == pytest.approx(opened["cost"] / 5, rel=1e-3)
    sign = 1 if side == "buy" else -1
    assert position["liquidationPrice"] * sign < opened["average"] * sign
    worse = opened["average"] * (1 - sign * 0.05)
    stop = api.create_order(BTC, "market", other, 0.1, None, {"stopPrice": worse, "reduceOnly": True})
    assert (stop["status"], stop["type"]) == ("open", "market")
    assert [item["id"] for item in api.fetch_open_orders(BTC, params={"stop": True})] == [stop["id"]]
    assert api.fetch_open_orders(BTC) == []
    assert api.cancel_order(stop["id"], BTC, {"stop": True})["id"] == stop["id"]
    assert api.fetch_order(stop["id"], BTC, {"stop": True})["status"] == "canceled"
    half = api.create_order(BTC, "market", other, 0.05, None, {"reduceOnly": True})
    assert api.fetch_positions([BTC])[0]["contracts"] == 0.05
    rest = api.create_order(BTC, "market", other, 0.2, None, {"reduceOnly": True})
    assert rest["filled"] == 0.05, "what only reduces never turns a position"
    assert api.fetch_positions([BTC]) == []
    with pytest.raises(ccxt.BaseError, match="ReduceOnly"):
        api.create_order(BTC, "market", other, 0.05, None, {"reduceOnly": True})
    trades = [item for item in api.fetch_my_trades(BTC) if item["order"] in (opened["id"], half["id"], rest["id"])]
    earned = sum(float(item["info"]["realizedPnl"]) - item["fee"]["cost"] for item in trades)
    assert _wallet(control, "alice") - before == pytest.approx(earned, abs=1e-8)
    assert api.fetch_balance()["USDT"]["used"] == 0


def test_a_stop_that_is_met_becomes_a_market_order(exchange: RunningExchange, control: SandboxClient) -> None:
    api = _trader(exchange, "bob")
    api.set_margin_mode("isolated", SOL)
    opened = api.create_order(SOL, "market", "buy", 10)
    with pytest.raises(ccxt.OrderImmediatelyFillable):
        api.create_order(SOL, "market", "sell", 10, None, {"stopPrice": opened["average"] * 1.1, "reduceOnly": True})
    params = {"stopPrice": opened["average"] * 0.998, "reduceOnly": True, "clientOrderId": "guard"}
    stop = api.create_order(SOL, "market", "sell", 10, None, params)
    for _ in range(100):
        leap(control, api, 4 * CANDLE)
        found = api.fetch_order(stop["id"], SOL, {"stop": True})
        if found["status"] != "open":
            break
    assert found["status"] == "closed"
    actual = api.fetch_order(found["info"]["actualOrderId"], SOL)
    assert (actual["status"], actual["filled"], actual["reduceOnly"]) == ("closed", 10.0, True)
    assert actual["average"] <= opened["average"] * 0.998
    assert api.fetch_positions([SOL]) == []


def test_orders_rest_are_amended_and_refused_in_words(exchange: RunningExchange, control: SandboxClient) -> None:
    api = _trader(exchange, "bob")
    last = api.fetch_ticker(ETH)["last"]
    order = api.create_order(ETH, "limit", "buy", 1, last * 0.9, {"clientOrderId": "mine"})
    assert api.fetch_balance()["USDT"]["used"] == pytest.approx(last * 0.9 / 20, rel=1e-3)
    assert api.fetch_order(None, ETH, {"origClientOrderId": "mine"})["id"] == order["id"]
    with pytest.raises(ccxt.BaseError, match="duplicated"):
        api.create_order(ETH, "limit", "buy", 1, last * 0.9, {"clientOrderId": "mine"})
    moved = api.edit_order(order["id"], ETH, "limit", "buy", 0.5, last * 0.8)
    assert (moved["amount"], moved["status"]) == (0.5, "open")
    assert api.fetch_order(order["id"], ETH)["status"] == "canceled"
    api.cancel_all_orders(ETH)
    assert api.fetch_balance()["USDT"]["used"] == 0
    with pytest.raises(ccxt.InsufficientFunds):
        api.create_order(ETH, "limit", "buy", 1_000, last * 0.9)
    with pytest.raises(ccxt.BaseError, match="-5022"):
        api.create_order(ETH, "limit", "buy", 1, last * 1.01, {"postOnly": True})
    with pytest.raises(ccxt.BaseError, match="notional"):
        api.create_order(ETH, "limit", "buy", 0.001, last * 0.9)
    stop = {"symbol": "ETHUSDT", "side": "SELL", "type": "STOP_MARKET", "quantity": "1", "stopPrice": "1"}
    with pytest.raises(ccxt.InvalidOrder, match="Algo Order API"):
        api.fapiPrivatePostOrder(stop)
    assert api.fetch_open_orders(ETH) == []


def test_funding_is_paid_at_its_hours_and_accounted_for(exchange: RunningExchange, control: SandboxClient) -> None:
    long, short = _trader(exchange, "bob"), _trader(exchange, "carol")
    long.create_order(XRP, "market", "buy", 5_000)
    short.create_order(XRP, "market", "sell", 5_000)
    began = control.now_ms()
    leap(control, long, 96 * CANDLE)
    short.load_time_difference()
    rates = [item for item in long.fetch_funding_rate_history(XRP, since=began + 1) if item["timestamp"] > began]
    assert len(rates) == 3
    paid, received = (api.fetch_funding_history(XRP, since=began) for api in (long, short))
    assert [item["timestamp"] for item in paid] == [item["timestamp"] for item in rates]
    for rate, mine, theirs in zip(rates, paid, received, strict=True):
        mark = float(rate["info"]["markPrice"])
        assert mine["amount"] == pytest.approx(-5_000 * mark * rate["fundingRate"], abs=2e-8)
        assert mine["amount"] == pytest.approx(-theirs["amount"], abs=2e-8)
    for api, side in ((long, "sell"), (short, "buy")):
        api.create_order(XRP, "market", side, 5_000, None, {"reduceOnly": True})


@pytest.mark.parametrize("mode", ["isolated", "cross"])
def test_who_cannot_carry_his_position_is_liquidated(
    exchange: RunningExchange, control: SandboxClient, mode: str
) -> None:
    api = _trader(exchange, "dave")
    pair = {"isolated": BTC, "cross": SOL}[mode]
    if mode == "isolated":
        api.set_margin_mode("isolated", pair)
    api.set_leverage(100 if mode == "isolated" else 50, pair)
    last, free = api.fetch_ticker(pair)["last"], api.fetch_balance()["USDT"]["free"]
    stake = 0.05 * free * 100 if mode == "isolated" else 0.95 * free * 50
    opened = api.create_order(pair, "market", "sell", stake / last)
    level = api.fetch_positions([pair])[0]["liquidationPrice"]
    assert level > opened["average"]
    resting = api.create_order(pair, "limit", "buy", 1, last * 0.7) if mode == "isolated" else None
    for _ in range(150):
        leap(control, api, 8 * CANDLE)
        if not api.fetch_positions([pair]):
            break
    else:
        pytest.fail("never liquidated")
    closed = api.fetch_orders(pair)[-1]
    assert closed["clientOrderId"].startswith("autoclose-")
    assert closed["average"] >= level * 0.999
    if resting:
        assert api.fetch_order(resting["id"], pair)["status"] == "expired"
    left = api.fetch_balance()["USDT"]
    assert left["used"] == 0
    assert left["total"] == pytest.approx(_wallet(control, "dave"), abs=1e-8)
    if mode == "isolated":
        assert left["total"] >= 0.94 * free, "only the margin of this position is lost"


def test_spot_and_perpetual_have_each_their_own_price_wherever_they_are_asked_for(apart: RunningExchange) -> None:
    spot, perpetual = trader_of(apart, "erin"), _trader(apart, "erin")
    with conserved(apart) as control:
        leap(control, spot, 3 * CANDLE + 200_000)
        perpetual.load_time_difference()
        prices = []
        for api, pair in ((spot, "BTC/USDT"), (perpetual, BTC)):
            last = api.fetch_ticker(pair)["last"]
            book = api.fetch_order_book(pair)
            assert book["bids"][0][0] < last < book["asks"][0][0]
            assert api.fetch_bids_asks([pair])[pair]["ask"] == book["asks"][0][0]
            assert api.fetch_ohlcv(pair, "15m", limit=1)[0][4] == last
            paid = api.create_order(pair, "market", "buy", 0.01)["average"]
            assert paid == book["asks"][0][0]
            prices.append(last)
        assert 1e-4 < abs(prices[1] / prices[0] - 1) < 0.05
        rate = perpetual.fetch_funding_rate(BTC)
        assert [rate["indexPrice"], rate["markPrice"]] == prices
        (position,) = perpetual.fetch_positions([BTC])
        assert (position["markPrice"], position["entryPrice"]) == (prices[1], paid)
        newest = [perpetual.fetch_ohlcv(BTC, "15m", limit=9, params={"price": kind}) for kind in ("index", "mark")]
        for rows, (api, pair) in zip(newest, ((spot, "BTC/USDT"), (perpetual, BTC)), strict=True):
            assert [row[:5] for row in rows] == [row[:5] for row in api.fetch_ohlcv(pair, "15m", limit=9)]
        control.plan_fault(kind="frozen_feed", pairs=["BTC/USDT"])
        leap(control, spot, 4 * CANDLE)
        perpetual.load_time_difference()
        shown = [api.fetch_ticker(pair)["last"] for api, pair in ((spot, "BTC/USDT"), (perpetual, BTC))]
        assert shown == prices, "a feed that is frozen shows an old price on both sides"
        paid = perpetual.create_order(BTC, "market", "sell", 0.01, None, {"reduceOnly": True})["average"]
        control.clear_faults()
        assert paid == perpetual.fetch_order_book(BTC)["bids"][0][0]
        control.plan_fault(kind="frozen_feed", pairs=[BTC])
        before = [api.fetch_ticker(pair)["last"] for api, pair in ((spot, "BTC/USDT"), (perpetual, BTC))]
        leap(control, spot, 4 * CANDLE)
        shown = [api.fetch_ticker(pair)["last"] for api, pair in ((spot, "BTC/USDT"), (perpetual, BTC))]
        assert [old == new for old, new in zip(before, shown, strict=True)] == [False, True], "the perpetual's alone"


def test_funding_is_paid_on_the_perpetuals_price_at_a_rate_that_follows_its_premium(apart: RunningExchange) -> None:
    api = _trader(apart, "erin")
    with conserved(apart) as control:
        api.create_order(BTC, "market", "sell", 0.02)
        began = control.now_ms()
        leap(control, api, 100 * CANDLE)
        rates = [item for item in api.fetch_funding_rate_history(BTC, since=began + 1) if item["timestamp"] > began]
        paid = api.fetch_funding_history(BTC, since=began)
        assert len(rates) == len(paid) == 3
        marks = {row[0]: row[1] for row in api.fetch_ohlcv(BTC, "15m", limit=120)}
        for rate, payment in zip(rates, paid, strict=True):
            mark = float(rate["info"]["markPrice"])
            assert mark == marks[rate["timestamp"]]
            assert payment["amount"] == pytest.approx(0.02 * mark * rate["fundingRate"], abs=2e-8)
        assert max(abs(rate["fundingRate"]) for rate in rates) > 0.0006, "beyond what interest alone would pay"
        api.create_order(BTC, "market", "buy", 0.02, None, {"reduceOnly": True})
