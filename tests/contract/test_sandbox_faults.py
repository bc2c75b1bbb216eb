"""Every way in which the sandbox can misbehave, as unmodified ccxt meets it; money is conserved through all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import ccxt
import httpx
import pytest

from cluster.stages.exchange import RunningExchange
from tests.contract.sandbox_kit import CANDLE, assert_conserved, conserved, exchange_in, leap, trader_of
from trading.adapters.call_record import CallRecord
from trading.adapters.sandbox.client import SandboxClient

POOR = "Account has insufficient balance for requested action."
ORDER = {"method": "POST", "path": "/api/v3/order"}


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningExchange]:
    with exchange_in(tmp_path_factory.mktemp("faults"), "alice", trading_days=20.0) as running:
        yield running


@pytest.fixture
def control(exchange: RunningExchange) -> Iterator[SandboxClient]:
    with conserved(exchange) as client:
        yield client


@pytest.fixture
def api(exchange: RunningExchange, control: SandboxClient) -> Any:
    return trader_of(exchange, "alice")


def _placed(api: Any, client_id: str) -> Any:
    return api.create_order("XRP/USDT", "market", "buy", 100, params={"newClientOrderId": client_id})


@pytest.mark.parametrize(
    ("kind", "executed", "error"),
    [
        ("timeout_before", False, ccxt.NetworkError),
        ("timeout_after", True, ccxt.NetworkError),
        ("drop_before", False, ccxt.NetworkError),
        ("drop_after", True, ccxt.NetworkError),
    ],
)
def test_a_reply_can_be_lost_before_and_after_the_order_is_made(
    api: Any, control: SandboxClient, kind: str, executed: bool, error: type[Exception]
) -> None:
    control.plan_fault(kind=kind, **ORDER, account="alice")
    with pytest.raises(error):
        _placed(api, f"lost-{kind}")
    if executed:
        assert api.fetch_order(None, "XRP/USDT", {"origClientOrderId": f"lost-{kind}"})["status"] == "closed"
    else:
        with pytest.raises(ccxt.OrderNotFound):
            api.fetch_order(None, "XRP/USDT", {"origClientOrderId": f"lost-{kind}"})
    assert control.faults() == []


def test_a_garbled_reply_is_no_json_and_the_order_is_made(api: Any, control: SandboxClient) -> None:
    control.plan_fault(kind="garble", **ORDER)
    assert _placed(api, "garbled")["id"] is None, "ccxt makes an order of rubbish, without an id"
    assert api.fetch_order(None, "XRP/USDT", {"origClientOrderId": "garbled"})["status"] == "closed"


def test_an_account_is_not_read_out_of_rubbish(api: Any, control: SandboxClient) -> None:
    control.plan_fault(kind="garble", path="/api/v3/account", count=1)
    assert api.fetch_balance()["total"] == {}, "ccxt reads an account without any money out of it"
    record = CallRecord()
    record.listen(SimpleNamespace(_api=api))
    control.plan_fault(kind="garble", path="/api/v3/account", count=1)
    with pytest.raises(ccxt.NetworkError, match="no JSON"):
        api.fetch_balance()
    assert api.fetch_balance()["total"]["USDT"] > 0


def test_a_named_fault_is_counted_and_can_be_taken_back_alone(api: Any, control: SandboxClient) -> None:
    control.plan_fault(kind="error", path="/api/v3/account", count=2, name="twice")
    control.plan_fault(kind="error", path="/api/v3/order", count=2, name="never met")
    control.plan_fault(kind="clock_skew", skew_ms=1, name="a millisecond")
    for _ in range(2):
        with pytest.raises(ccxt.OperationFailed):
            api.fetch_balance()
    api.fetch_time()
    met = control.struck()
    assert (met["twice"], met.get("never met", 0)) == (2, 0)
    assert met["a millisecond"] >= 1
    control.clear_faults("never met")
    assert [fault["name"] for fault in control.faults()] == ["a millisecond"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": 503, "code": -1000}, ccxt.OperationFailed),
        ({"status": 500, "code": -1001, "message": "Internal error"}, ccxt.OperationFailed),
        (
            {"status": 400, "code": -2010, "message": "Account has insufficient balance for requested action."},
            ccxt.InsufficientFunds,
        ),
        ({"status": 400, "code": -1021, "message": "Timestamp outside"}, ccxt.InvalidNonce),
        ({"status": 401, "code": -2015, "message": "Invalid API-key"}, ccxt.BaseError),
        ({"status": 429, "code": -1003, "message": "Too much"}, ccxt.DDoSProtection),
        ({"status": 418, "code": -1003, "message": "banned"}, ccxt.DDoSProtection),
    ],
)
def test_any_error_code_can_be_ordered(
    api: Any, control: SandboxClient, fault: dict[str, Any], error: type[Exception]
) -> None:
    control.plan_fault(kind="error", path="/api/v3/account", **fault)
    with pytest.raises(error):
        api.fetch_balance()
    assert api.fetch_balance()["USDT"]["total"] > 0, "one failure and no more"


def test_rate_limits_say_when_to_come_back(exchange: RunningExchange, control: SandboxClient) -> None:
    control.plan_fault(kind="error", path="/api/v3/time", status=418, code=-1003, message="banned", retry_after_s=77)
    banned = httpx.get(f"{exchange.url}/api/v3/time")
    assert (banned.status_code, banned.headers["retry-after"]) == (418, "77")
    control.plan_fault(kind="error", path="/api/v3/time", status=429, code=-1003, message="slow down")
    assert httpx.get(f"{exchange.url}/api/v3/time").headers["retry-after"] == "1"


def test_a_fault_meets_only_whom_it_names_and_lasts_as_long_as_it_says(api: Any, control: SandboxClient) -> None:
    stop = {
        "params": {"type": "STOP"},
        "status": 400,
        "code": -2010,
        "message": "Stop price would trigger immediately.",
    }
    control.plan_fault(kind="error", **ORDER, **stop, count=0, for_ms=2 * CANDLE)
    last = api.fetch_ticker("XRP/USDT")["last"]
    held = api.fetch_balance()["XRP"]["total"] or _placed(api, "for-the-stop")["filled"]
    refused = ("XRP/USDT", "stop_loss_limit", "sell", min(held, 50), last * 0.9, {"stopPrice": last * 0.95})
    for _ in range(3):
        with pytest.raises(ccxt.OrderImmediatelyFillable):
            api.create_order(*refused)
    leap(control, api, 2 * CANDLE)
    api.cancel_order(api.create_order(*refused)["id"], "XRP/USDT")


def test_a_disconnected_exchange_answers_nobody_and_comes_back(api: Any, control: SandboxClient) -> None:
    control.plan_fault(kind="disconnect", count=0, for_ms=CANDLE)
    for _ in range(2):
        with pytest.raises(ccxt.NetworkError):
            api.fetch_time()
    control.advance(control.now_ms() + CANDLE)
    assert api.fetch_time() == control.now_ms()


def test_one_failure_can_bring_another(api: Any, control: SandboxClient) -> None:
    missing = {"kind": "error", "path": "/api/v3/order", "method": "GET", "status": 400, "code": -2013}
    refused = {"kind": "error", "path": "/api/v3/order", "method": "DELETE", "status": 400, "code": -2011}
    order = api.create_order("ETH/USDT", "limit", "buy", 0.1, api.fetch_ticker("ETH/USDT")["last"] * 0.9)
    control.plan_fault(**refused, then=[missing])
    assert api.fetch_order(order["id"], "ETH/USDT")["status"] == "open"
    for call in (api.cancel_order, api.fetch_order):
        with pytest.raises(ccxt.OrderNotFound):
            call(order["id"], "ETH/USDT")
    assert api.cancel_order(order["id"], "ETH/USDT")["status"] == "canceled"


def test_orders_fill_in_parts_and_the_impatient_leave(api: Any, control: SandboxClient) -> None:
    control.plan_fault(kind="partial_fills", pairs=["ETH/USDT"], max_fill=100, refill_ms=10 * CANDLE)
    last = api.fetch_ticker("ETH/USDT")["last"]
    market = api.create_order("ETH/USDT", "market", "buy", 500 / last)
    assert (market["status"], market["cost"] <= 101) == ("expired", True)
    assert market["filled"] > 0
    limit = api.create_order("ETH/USDT", "limit", "buy", 500 / last, last * 1.001)
    assert limit["status"] == "open"
    assert 0 < limit["filled"] < limit["amount"]
    leap(control, api, 9 * CANDLE)
    assert api.fetch_order(limit["id"], "ETH/USDT")["filled"] == limit["filled"]
    control.clear_faults()
    assert api.cancel_order(limit["id"], "ETH/USDT")["filled"] == limit["filled"]


def test_stale_candles_end_in_the_past_while_prices_go_on(api: Any, control: SandboxClient) -> None:
    now = control.now_ms()
    control.plan_fault(kind="stale_candles", pairs=["BTC/USDT"], lag_ms=4 * CANDLE)
    assert api.fetch_ohlcv("BTC/USDT", "15m", limit=3)[-1][0] == (now - 4 * CANDLE) // CANDLE * CANDLE
    assert api.fetch_ohlcv("ETH/USDT", "15m", limit=3)[-1][0] == now // CANDLE * CANDLE
    seen = api.fetch_ticker("BTC/USDT")["last"]
    leap(control, api, 2 * CANDLE)
    assert api.fetch_ticker("BTC/USDT")["last"] != seen


def test_a_frozen_feed_stands_still_while_trading_goes_on(api: Any, control: SandboxClient) -> None:
    control.plan_fault(kind="frozen_feed", pairs=["SOL/USDT"])
    before = api.fetch_ohlcv("SOL/USDT", "15m", limit=3), api.fetch_ticker("SOL/USDT")["last"]
    book = api.fetch_order_book("SOL/USDT")["asks"]
    leap(control, api, 8 * CANDLE)
    assert (api.fetch_ohlcv("SOL/USDT", "15m", limit=3), api.fetch_ticker("SOL/USDT")["last"]) == before
    assert api.fetch_order_book("SOL/USDT")["asks"] == book
    paid = api.create_order("SOL/USDT", "market", "buy", 1)["average"]
    control.clear_faults()
    assert paid == api.fetch_order_book("SOL/USDT")["asks"][0][0], "filled at the true price"


def test_candles_are_revised_after_the_fact(api: Any, control: SandboxClient) -> None:
    leap(control, api, CANDLE - control.now_ms() % CANDLE)
    control.plan_fault(kind="revised_candles", pairs=["DOGE/USDT"], lag_ms=4 * CANDLE)
    first = api.fetch_ohlcv("DOGE/USDT", "15m", limit=4)[-2]
    assert first[3] <= first[4] <= first[2]
    leap(control, api, 6 * CANDLE)
    later = {row[0]: row for row in api.fetch_ohlcv("DOGE/USDT", "15m", limit=20)}[first[0]]
    assert later[:4] == first[:4]
    assert later[5] == pytest.approx(first[5] / 0.8)


@pytest.mark.parametrize(
    ("how", "broken"),
    [
        ("missing", lambda rows: len({b[0] - a[0] for a, b in pairwise(rows)}) > 1),
        ("duplicate", lambda rows: len({row[0] for row in rows}) < len(rows)),
        ("disorder", lambda rows: [row[0] for row in rows] != sorted(row[0] for row in rows)),
        ("nan", lambda rows: any(row[4] is None or math.isnan(row[4]) for row in rows)),
        ("zero", lambda rows: any(row[4] == 0 for row in rows)),
        ("negative", lambda rows: any(row[5] < 0 for row in rows)),
        ("crossed", lambda rows: any(row[2] < row[3] for row in rows)),
        ("spike", lambda rows: any(row[4] > row[2] for row in rows)),
        ("future", lambda rows: rows[-1][0] > rows[-2][0] + CANDLE),
    ],
)
def test_candles_can_be_garbage(api: Any, control: SandboxClient, how: str, broken: Any) -> None:
    def rows() -> list[list[Any]]:  # ccxt itself sorts, so the order is looked at as it comes
        raw = api.public_get_klines({"symbol": "LINKUSDT", "interval": "15m", "limit": 10})
        return [[row[0] if isinstance(row[0], int) else int(row[0]), *map(float, row[1:6])] for row in raw]

    assert not broken(rows())
    control.plan_fault(kind="garbage_candles", how=how, pairs=["LINK/USDT"], count=1)
    assert broken(rows())
    assert not broken(rows()), "once and no more"


def test_a_skewed_clock_turns_honest_requests_away(api: Any, control: SandboxClient) -> None:
    control.plan_fault(kind="clock_skew", skew_ms=120_000, for_ms=CANDLE)
    with pytest.raises(ccxt.InvalidNonce):
        api.fetch_balance()
    assert api.fetch_time() == control.now_ms() + 120_000
    api.load_time_difference()
    assert api.fetch_balance()["USDT"]["total"] > 0, "who follows the exchange's clock is let in"
    control.advance(control.now_ms() + CANDLE)
    assert api.fetch_time() == control.now_ms()


def test_a_delisted_pair_is_announced_closed_and_its_orders_expire(api: Any, control: SandboxClient) -> None:
    last = api.fetch_ticker("LINK/USDT")["last"]
    order = api.create_order("LINK/USDT", "limit", "buy", 10, last * 0.5)
    control.plan_fault(kind="delisting", pairs=["LINK/USDT"], after_ms=CANDLE)
    told = api.sapi_get_spot_delist_schedule()
    assert (told[0]["delistTime"], told[0]["symbols"]) == (control.now_ms() + CANDLE, ["LINKUSDT"])
    assert api.fetch_order(order["id"], "LINK/USDT")["status"] == "open"
    leap(control, api, 2 * CANDLE)
    assert api.fetch_order(order["id"], "LINK/USDT")["status"] == "expired"
    assert api.load_markets(True)["LINK/USDT"]["active"] is False
    with pytest.raises(ccxt.BaseError, match="Market is closed"):
        api.create_order("LINK/USDT", "market", "buy", 10)
    assert_conserved(control)


def test_weights_orders_and_bans_are_enforced_where_they_are_configured() -> None:
    from trading.adapters.sandbox.orders import RefusalError
    from trading.adapters.sandbox.traffic import BAN_MS, PATIENCE, Traffic

    traffic = Traffic(weight_limit=100, order_limit=2)
    assert [traffic.weigh(50, 5_000) for _ in "ab"] == [50, 100]
    for _ in range(PATIENCE + 1):
        with pytest.raises(RefusalError) as slow:
            traffic.weigh(1, 5_000)
        assert (slow.value.status, slow.value.retry_after_s) == (429, 55)
    with pytest.raises(RefusalError) as banned:
        traffic.weigh(1, 65_000)
    assert (banned.value.status, banned.value.retry_after_s) == (418, 60)
    assert traffic.weigh(1, 5_000 + BAN_MS) == 1
    assert [traffic.order("alice", 0), traffic.order("alice", 1), traffic.order("bob", 2)] == [1, 2, 1]
    with pytest.raises(RefusalError, match="Too many new orders"):
        traffic.order("alice", 3)
    assert traffic.order("alice", 10_000) == 1
