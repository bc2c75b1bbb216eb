"""Signed endpoints: the account, its orders and its trades, in Binance's words."""

from __future__ import annotations

from typing import Any

from trading.adapters.sandbox.endpoint import Call, Endpoint, Handler
from trading.adapters.sandbox.intake import executions, read_order
from trading.adapters.sandbox.orders import Order, RefusalError
from trading.adapters.sandbox.rules import PPM, units_text
from trading.adapters.sandbox.venue import Venue
from trading.adapters.sandbox.wire import cancelled, inner_fill, placed, queried, trade


def account(venue: Venue, call: Call) -> dict[str, Any]:
    """Balances and fees."""
    terms, (maker, taker) = venue.spot.engine.terms, _fees(venue)
    held = venue.ledger.balances(call.account)
    return {
        "makerCommission": terms.maker_ppm // 100,
        "takerCommission": terms.taker_ppm // 100,
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": {"maker": maker, "taker": taker, "buyer": "0.00000000", "seller": "0.00000000"},
        "canTrade": True,
        "canWithdraw": False,
        "canDeposit": False,
        "accountType": "SPOT",
        "updateTime": venue.now_ms,
        "uid": venue.number(call.account),
        "balances": [
            {"asset": asset, "free": units_text(balance.free), "locked": units_text(balance.locked)}
            for asset, balance in held.items()
        ],
        "permissions": ["SPOT"],
    }


def key_rights(venue: Venue, call: Call) -> dict[str, Any]:
    """What the account's key may do."""
    wide = next(item for item in venue.config.accounts if item.name == call.account).withdrawals
    return {
        "ipRestrict": True,
        "createTime": venue.market.first_ms,
        "enableReading": True,
        "enableSpotAndMarginTrading": True,
        "enableFutures": True,
        "enableWithdrawals": wide,
        "enableInternalTransfer": False,
        "enableMargin": False,
        "enableVanillaOptions": False,
        "permitsUniversalTransfer": False,
    }


def place_order(venue: Venue, call: Call) -> dict[str, Any]:
    """Accept an order; the answer lists the fills that happened at once."""
    pair = venue.tradable(venue.spot, call.text("symbol"))
    before = len(venue.spot.engine.fills)
    order = venue.spot.engine.place(read_order(venue.market.rules[pair], call), venue.now_ms)
    fills = venue.spot.engine.fills[before:]
    answer = placed(venue.market.rules[pair], order)
    if call.params.get("newOrderRespType", "FULL") == "FULL":
        answer["fills"] = [inner_fill(venue.market.rules[pair], fill) for fill in fills]
    return answer


def test_order(venue: Venue, call: Call) -> dict[str, Any]:
    """Read an order as `place_order` would, and place nothing."""
    read_order(venue.market.rules[venue.spot.pair(call.text("symbol"))], call)
    return {}


def cancel_replace(venue: Venue, call: Call) -> dict[str, Any]:
    """Take one order back and place another, which takes its place in no queue; not one atomic step, as on Binance."""
    mode = call.text("cancelReplaceMode")
    if mode not in ("STOP_ON_FAILURE", "ALLOW_FAILURE"):
        raise RefusalError(-1116, "Invalid cancelReplaceMode.")
    names = {"cancelOrderId": "orderId", "cancelOrigClientOrderId": "origClientOrderId"}
    old = {names.get(name, name): value for name, value in call.params.items() if name != "cancelNewClientOrderId"}
    taken = _tried(cancel_order, venue, Call(old, call.account))
    stopped = isinstance(taken, RefusalError) and mode == "STOP_ON_FAILURE"
    placed_now = None if stopped else _tried(place_order, venue, call)
    outcome = {
        "cancelResult": _verdict(taken),
        "newOrderResult": _verdict(placed_now),
        "cancelResponse": _told(taken),
        "newOrderResponse": _told(placed_now),
    }
    failures = sum(isinstance(part, RefusalError) for part in (taken, placed_now)) + stopped
    if failures:
        partly = failures == 1
        words = "partially failed" if partly else "failed"
        code, status = (-2021, 409) if partly else (-2022, 400)
        raise RefusalError(code, f"Order cancel-replace {words}.", status, data=outcome)
    return outcome


def _tried(handler: Handler, venue: Venue, call: Call) -> Any:
    try:
        return handler(venue, call)
    except RefusalError as refusal:
        return refusal


def _verdict(part: Any) -> str:
    return "NOT_ATTEMPTED" if part is None else "FAILURE" if isinstance(part, RefusalError) else "SUCCESS"


def _told(part: Any) -> Any:
    return {"code": part.code, "msg": part.message} if isinstance(part, RefusalError) else part


def _found(venue: Venue, call: Call, code: int, words: str) -> Order:
    pair, order_id = venue.spot.pair(call.text("symbol")), call.integer("orderId")
    client_id = call.params.get("origClientOrderId")
    if order_id is None and not client_id:
        raise RefusalError(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
    order = venue.spot.engine.find(call.account, pair, order_id, client_id)
    if order is None:
        raise RefusalError(code, words)
    return order


def get_order(venue: Venue, call: Call) -> dict[str, Any]:
    """One order by its id or its client id."""
    order = _found(venue, call, -2013, "Order does not exist.")
    return queried(venue.market.rules[order.request.pair], order)


def cancel_order(venue: Venue, call: Call) -> dict[str, Any]:
    """Take one order back."""
    order = venue.spot.engine.cancel(_found(venue, call, -2011, "Unknown order sent."), venue.now_ms)
    return cancelled(venue.market.rules[order.request.pair], order)


def cancel_all(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """Take all orders of a symbol back."""
    pair = venue.spot.pair(call.text("symbol"))
    orders = venue.spot.engine.open_orders(call.account, pair)
    if not orders:
        raise RefusalError(-2011, "Unknown order sent.")
    return [cancelled(venue.market.rules[pair], venue.spot.engine.cancel(order, venue.now_ms)) for order in orders]


def open_orders(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """Open orders of one symbol or all."""
    pair = venue.spot.pair(call.params["symbol"]) if call.params.get("symbol") else None
    orders = venue.spot.engine.open_orders(call.account, pair)
    return [queried(venue.market.rules[order.request.pair], order) for order in orders]


def all_orders(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """Orders of a symbol: from `orderId` or `startTime` on, else the newest."""
    pair = venue.spot.pair(call.text("symbol"))
    start, end, first = (call.integer(name) for name in ("startTime", "endTime", "orderId"))
    chosen = [
        order
        for order in venue.spot.engine.orders.values()
        if (order.request.account, order.request.pair) == (call.account, pair)
        and (start is None or order.created_ms >= start)
        and (end is None or order.created_ms <= end)
        and (first is None or order.order_id >= first)
    ]
    limit = call.limit(500, 1000)
    cut = chosen[-limit:] if start is None and first is None else chosen[:limit]
    return [queried(venue.market.rules[pair], order) for order in cut]


def my_trades(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """Executions of a symbol, oldest first."""
    pair = venue.spot.pair(call.text("symbol"))
    return [trade(venue.market.rules[pair], fill) for fill in executions(venue.spot.engine.fills, call, pair)]


def trade_fees(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """Maker and taker fee of one symbol or all."""
    asked = [venue.spot.pair(call.params["symbol"])] if call.params.get("symbol") else venue.market.pairs
    maker, taker = _fees(venue)
    rules = venue.market.rules
    return [{"symbol": rules[p].symbol, "makerCommission": maker, "takerCommission": taker} for p in asked]


def _fees(venue: Venue) -> tuple[str, str]:
    """Maker's and taker's, as fractions."""
    terms = venue.spot.engine.terms
    return f"{terms.maker_ppm / PPM:.8f}", f"{terms.taker_ppm / PPM:.8f}"


def coins(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """Assets of this exchange."""
    names = {asset for rules in venue.market.rules.values() for asset in (rules.base, rules.quote)}
    answers = []
    for name in sorted(names):
        held = venue.ledger.balance(call.account, name)
        answers.append(
            {
                "coin": name,
                "name": name,
                "free": units_text(held.free),
                "locked": units_text(held.locked),
                "trading": True,
                "isLegalMoney": False,
                "depositAllEnable": False,
                "withdrawAllEnable": False,
                "networkList": [],
            }
        )
    return answers


def nothing(_venue: Venue, _call: Call) -> list[Any]:
    """An empty list: no margin pairs."""
    return []


def delistings(venue: Venue, _call: Call) -> list[dict[str, Any]]:
    """Symbols whose trading ends, soonest first."""
    ends = sorted((at, rules.symbol) for pair, rules in venue.market.rules.items() for at in venue.delistings(pair))
    return [{"delistTime": at, "symbols": [symbol]} for at, symbol in ends]


ENDPOINTS = (
    Endpoint("GET", "/api/v3/account", account, signed=True, weight=20),
    Endpoint("POST", "/api/v3/order", place_order, signed=True, counts=True),
    Endpoint("POST", "/api/v3/order/test", test_order, signed=True),
    Endpoint("POST", "/api/v3/order/cancelReplace", cancel_replace, signed=True, counts=True),
    Endpoint("GET", "/api/v3/order", get_order, signed=True, weight=4),
    Endpoint("DELETE", "/api/v3/order", cancel_order, signed=True),
    Endpoint("GET", "/api/v3/openOrders", open_orders, signed=True, weight=6),
    Endpoint("DELETE", "/api/v3/openOrders", cancel_all, signed=True),
    Endpoint("GET", "/api/v3/allOrders", all_orders, signed=True, weight=20),
    Endpoint("GET", "/api/v3/myTrades", my_trades, signed=True, weight=20),
    Endpoint("GET", "/sapi/v1/capital/config/getall", coins, signed=True, weight=10),
    Endpoint("GET", "/sapi/v1/account/apiRestrictions", key_rights, signed=True),
    Endpoint("GET", "/sapi/v1/margin/allPairs", nothing, signed=True),
    Endpoint("GET", "/sapi/v1/margin/isolated/allPairs", nothing, signed=True),
    Endpoint("GET", "/sapi/v1/asset/tradeFee", trade_fees, signed=True),
    Endpoint("GET", "/sapi/v1/spot/delist-schedule", delistings, signed=True),
)
