"""Every kind of spot order as unmodified ccxt sends it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ccxt
import pytest

from cluster.stages.exchange import RunningExchange
from tests.contract.sandbox_kit import CANDLE, conserved, exchange_in, leap, trader_of
from trading.adapters.sandbox.client import SandboxClient

PAIR = "ETH/USDT"


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    with exchange_in(tmp_path_factory.mktemp("orders"), "alice", trading_days=20.0) as running:
        yield running


@pytest.fixture
def control(exchange: RunningExchange) -> Iterator[SandboxClient]:
    with conserved(exchange) as client:
        yield client


@pytest.fixture
def api(exchange: RunningExchange, control: SandboxClient) -> Iterator[Any]:
    trader = trader_of(exchange, "alice")
    yield trader
    if trader.fetch_open_orders(PAIR):
        trader.cancel_all_orders(PAIR)


def _last(api: Any) -> float:
    return float(api.fetch_ticker(PAIR)["last"])


def _until_over(control: SandboxClient, api: Any, order: Any) -> Any:
    for _ in range(200):
        leap(control, api, 4 * CANDLE)
        found = api.fetch_order(order["id"], PAIR)
        if found["status"] != "open":
            return found
    pytest.fail("nothing ever happened to the order")


def test_post_only_never_takes(api: Any) -> None:
    last = _last(api)
    resting = api.create_order(PAIR, "limit", "buy", 0.1, last * 0.99, {"postOnly": True})
    assert (resting["type"], resting["postOnly"], resting["status"]) == ("limit", True, "open")
    with pytest.raises(ccxt.OrderImmediatelyFillable):
        api.create_order(PAIR, "limit", "buy", 0.1, last * 1.01, {"postOnly": True})


def test_the_impatient_take_what_is_there_or_leave(api: Any) -> None:
    last = _last(api)
    for force in ("IOC", "FOK"):
        away = api.create_order(PAIR, "limit", "buy", 0.1, last * 0.99, {"timeInForce": force})
        assert (away["status"], away["filled"]) == ("expired", 0)
        taken = api.create_order(PAIR, "limit", "buy", 0.1, last * 1.01, {"timeInForce": force})
        assert (taken["status"], taken["filled"]) == ("closed", 0.1)


def test_fok_fills_whole_or_not_at_all_and_ioc_in_part(api: Any, control: SandboxClient) -> None:
    control.plan_fault(kind="partial_fills", pairs=[PAIR], max_fill=100)
    last = _last(api)
    whole = api.create_order(PAIR, "limit", "buy", 0.2, last * 1.01, {"timeInForce": "FOK"})
    part = api.create_order(PAIR, "limit", "buy", 0.2, last * 1.01, {"timeInForce": "IOC"})
    assert (whole["filled"], whole["status"]) == (0, "expired")
    assert 0 < part["filled"] < 0.2


@pytest.mark.parametrize("kind", ["stop_loss", "stop_loss_limit", "take_profit", "take_profit_limit"])
def test_conditional_orders_wait_and_then_sell(api: Any, control: SandboxClient, kind: str) -> None:
    api.create_order(PAIR, "market", "buy", 0.1)
    stop = _last(api) * (0.998 if "stop" in kind else 1.002)
    price = stop * 0.99 if "limit" in kind else None
    order = api.create_order(PAIR, kind, "sell", 0.09, price, {"stopPrice": stop})
    assert order["status"] == "open"
    assert order["triggerPrice"] == pytest.approx(stop, rel=1e-4)
    done = _until_over(control, api, order)
    assert (done["status"], done["filled"]) == ("closed", 0.09)
    assert done["average"] == pytest.approx(stop, rel=0.02)


def test_a_resting_order_fills_in_parts_over_candles(api: Any, control: SandboxClient) -> None:
    control.plan_fault(kind="partial_fills", pairs=[PAIR], max_fill=60, refill_ms=CANDLE)
    order = api.create_order(PAIR, "limit", "buy", 0.1, _last(api) * 1.02)
    seen = [order["filled"]]
    for _ in range(40):
        leap(control, api, CANDLE)
        seen.append(api.fetch_order(order["id"], PAIR)["filled"])
    assert len(set(seen)) >= 3, "part after part"
    assert seen == sorted(seen)
    parts = [fill for fill in api.fetch_my_trades(PAIR) if fill["order"] == order["id"]]
    assert sum(fill["amount"] for fill in parts) == pytest.approx(seen[-1])


def test_cancel_and_replace_is_one_request_and_two_steps(api: Any) -> None:
    last = _last(api)
    old = api.create_order(PAIR, "limit", "buy", 0.1, last * 0.9)
    new = api.edit_order(old["id"], PAIR, "limit", "buy", 0.1, last * 0.91)
    assert new["id"] != old["id"]
    assert api.fetch_order(old["id"], PAIR)["status"] == "canceled"
    gone = {"symbol": "ETHUSDT", "side": "BUY", "type": "LIMIT", "quantity": "0.1", "timeInForce": "GTC"}
    gone |= {"price": api.price_to_precision(PAIR, last * 0.9), "cancelOrderId": old["id"]}
    with pytest.raises(ccxt.BaseError, match="-2022"):
        api.private_post_order_cancelreplace({**gone, "cancelReplaceMode": "STOP_ON_FAILURE"})
    assert len(api.fetch_open_orders(PAIR)) == 1
    with pytest.raises(ccxt.BaseError, match="-2021"):
        api.private_post_order_cancelreplace({**gone, "cancelReplaceMode": "ALLOW_FAILURE"})
    assert len(api.fetch_open_orders(PAIR)) == 2, "the new order was placed although the old one was gone"


def test_an_account_has_a_bound_of_open_stops(api: Any) -> None:
    api.create_order(PAIR, "market", "buy", 0.2)
    last = _last(api)
    for _ in range(5):
        api.create_order(PAIR, "stop_loss_limit", "sell", 0.02, last * 0.8, {"stopPrice": last * 0.85})
    with pytest.raises(ccxt.BaseError, match="MAX_NUM_ALGO_ORDERS"):
        api.create_order(PAIR, "stop_loss_limit", "sell", 0.02, last * 0.8, {"stopPrice": last * 0.85})
