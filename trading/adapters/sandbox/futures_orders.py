"""Signed endpoints of perpetuals that place, find and cancel orders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from trading.adapters.sandbox.endpoint import Call, Endpoint
from trading.adapters.sandbox.futures_wire import KINDS, algo_answer, in_futures_words, order_answer, trade_answer
from trading.adapters.sandbox.intake import executions, read_client_id, read_side
from trading.adapters.sandbox.orders import Kind, Order, OrderRequest, RefusalError, TimeInForce
from trading.adapters.sandbox.rules import SymbolRules
from trading.adapters.sandbox.venue import Venue

FOUND_NOTHING = RefusalError(-2013, "Order does not exist.")


def read_futures_order(rules: SymbolRules, call: Call, *, algo: bool) -> OrderRequest:
    """A futures order; raises RefusalError for what Binance would not read."""
    name, side = call.text("type"), read_side(call.text("side"))
    if name not in KINDS:
        raise RefusalError(-1116, "Invalid orderType.")
    kind, force = KINDS[name], call.params.get("timeInForce", "GTC")
    if kind.conditional and not algo:
        raise RefusalError(
            -4120, "Order type not supported for this endpoint. Please use the Algo Order API endpoints instead."
        )
    if force not in ("GTC", "IOC", "FOK", "GTX"):
        raise RefusalError(-1115, "Invalid timeInForce.")
    if call.params.get("positionSide", "BOTH") != "BOTH":
        raise RefusalError(-4061, "Order's position side does not match user's setting.")
    closes = _true(call, "closePosition")
    stop, own_id = ("triggerPrice", "clientAlgoId") if algo else ("stopPrice", "newClientOrderId")
    needed = [] if closes else ["quantity"]
    needed += [] if kind.priceless else ["price"]
    needed += [stop] if kind.conditional else []
    for part in needed:
        call.text(part)
    return OrderRequest(
        account=call.account,
        pair=rules.pair,
        side=side,
        kind=Kind.LIMIT_MAKER if force == "GTX" and kind is Kind.LIMIT else kind,
        lots=0 if closes else call.count("quantity", rules.lot_decimals, "LOT_SIZE"),
        price=0 if kind.priceless else call.count("price", rules.price_decimals, "PRICE_FILTER"),
        stop_price=call.count(stop, rules.price_decimals, "PRICE_FILTER"),
        time_in_force=cast(TimeInForce, "GTC" if force == "GTX" else force),
        client_id=read_client_id(call.params.get(own_id, ""), own_id),
        reduce_only=_true(call, "reduceOnly"),
        close_position=closes,
    )


def _true(call: Call, name: str) -> bool:
    return call.params.get(name, "false").lower() == "true"


def _place(venue: Venue, call: Call, *, algo: bool) -> tuple[SymbolRules, Order]:
    pair = venue.tradable(venue.futures, call.text("symbol"))
    rules = venue.market.rules[pair]
    try:
        return rules, venue.futures.engine.place(read_futures_order(rules, call, algo=algo), venue.now_ms)
    except RefusalError as refusal:
        raise in_futures_words(refusal) from refusal


def place_order(venue: Venue, call: Call) -> dict[str, Any]:
    """Accept an order."""
    return order_answer(*_place(venue, call, algo=False))


def place_algo(venue: Venue, call: Call) -> dict[str, Any]:
    """Accept a conditional order."""
    return algo_answer(*_place(venue, call, algo=True))


def _one(venue: Venue, call: Call, names: tuple[str, str], refusal: RefusalError) -> tuple[SymbolRules, Order]:
    """The order that a call names by its number or by the client's own id, of one symbol or (algo) any."""
    number, own_id = call.integer(names[0]), call.params.get(names[1])
    if number is None and not own_id:
        raise RefusalError(-1102, f"Param '{names[1]}' or '{names[0]}' must be sent, but both were empty/null!")
    symbol = call.params.get("symbol")
    pairs = [venue.futures.pair(symbol)] if symbol else list(venue.futures.engine.rules)
    for pair in pairs:
        order = venue.futures.engine.find(call.account, pair, number, own_id)
        if order is not None and order.request.kind.conditional >= names[0].startswith("algo"):
            return venue.market.rules[pair], order
    raise refusal


def get_order(venue: Venue, call: Call) -> dict[str, Any]:
    """One order; a conditional one only since its stop was met."""
    rules, order = _one(venue, call, ("orderId", "origClientOrderId"), FOUND_NOTHING)
    if order.request.kind.conditional and order.triggered_ms is None:
        raise FOUND_NOTHING
    return order_answer(rules, order)


def get_algo(venue: Venue, call: Call) -> dict[str, Any]:
    """One conditional order."""
    return algo_answer(*_one(venue, call, ("algoId", "clientAlgoId"), FOUND_NOTHING))


def cancel_order(venue: Venue, call: Call) -> dict[str, Any]:
    """Take one order back."""
    unknown = RefusalError(-2011, "Unknown order sent.")
    rules, order = _one(venue, call, ("orderId", "origClientOrderId"), unknown)
    if order.sleeping:
        raise unknown
    return order_answer(rules, venue.futures.engine.cancel(order, venue.now_ms))


def cancel_algo(venue: Venue, call: Call) -> dict[str, Any]:
    """Take one conditional order back, unless its stop was met."""
    unknown = RefusalError(-2011, "Unknown order sent.")
    _, order = _one(venue, call, ("algoId", "clientAlgoId"), unknown)
    if not order.sleeping:
        raise unknown
    venue.futures.engine.cancel(order, venue.now_ms)
    return {"algoId": order.order_id, "clientAlgoId": order.client_id, "code": "200", "msg": "success"}


def amend_order(venue: Venue, call: Call) -> dict[str, Any]:
    """Give a limit order another price or amount: taken back and placed anew, under its own client id."""
    rules, old = _one(venue, call, ("orderId", "origClientOrderId"), FOUND_NOTHING)
    if old.request.kind is not Kind.LIMIT or not old.status.open:
        raise RefusalError(-4028 if old.status.open else -2011, "Only open LIMIT orders can be modified.")
    params = {**call.params, "type": "LIMIT", "newClientOrderId": old.client_id}
    request = read_futures_order(rules, Call(params, call.account), algo=False)
    venue.futures.engine.cancel(old, venue.now_ms)
    try:
        return order_answer(rules, venue.futures.engine.place(request, venue.now_ms))
    except RefusalError as refusal:
        raise in_futures_words(refusal) from refusal


def _listed(venue: Venue, call: Call, wanted: Callable[[Order], bool]) -> list[tuple[SymbolRules, Order]]:
    symbol = call.params.get("symbol")
    pair = venue.futures.pair(symbol) if symbol else None
    start, end, first = (call.integer(name) for name in ("startTime", "endTime", "orderId"))
    mine = [
        (venue.market.rules[order.request.pair], order)
        for order in venue.futures.engine.orders.values()
        if order.request.account == call.account
        and pair in (None, order.request.pair)
        and wanted(order)
        and (start is None or order.created_ms >= start)
        and (end is None or order.created_ms <= end)
        and (first is None or order.order_id >= first)
    ]
    limit = call.limit(500, 1000)
    return mine[-limit:] if start is None and first is None else mine[:limit]


def open_orders(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """Orders that work."""
    return [order_answer(*item) for item in _listed(venue, call, lambda o: o.status.open and not o.sleeping)]


def open_algos(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """Conditional orders that sleep."""
    return [algo_answer(*item) for item in _listed(venue, call, lambda o: o.status.open and o.sleeping)]


def all_orders(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """Orders from `orderId` or `startTime` on, else the newest."""
    return [order_answer(*item) for item in _listed(venue, call, lambda o: not o.sleeping)]


def all_algos(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """Conditional orders, whatever became of them."""
    return [algo_answer(*item) for item in _listed(venue, call, lambda o: o.request.kind.conditional)]


def cancel_all(venue: Venue, call: Call) -> dict[str, Any]:
    """Take all working orders of a symbol back."""
    call.text("symbol")
    for _, order in _listed(venue, call, lambda o: o.status.open and not o.sleeping):
        venue.futures.engine.cancel(order, venue.now_ms)
    return {"code": 200, "msg": "The operation of cancel all open order is done."}


def cancel_all_algos(venue: Venue, call: Call) -> dict[str, Any]:
    """Take all sleeping orders of a symbol back."""
    call.text("symbol")
    for _, order in _listed(venue, call, lambda o: o.status.open and o.sleeping):
        venue.futures.engine.cancel(order, venue.now_ms)
    return {"code": 200, "msg": "The operation of cancel all open order is done."}


def user_trades(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """Executions of a symbol, oldest first."""
    pair = venue.futures.pair(call.text("symbol"))
    return [trade_answer(venue.market.rules[pair], fill) for fill in executions(venue.futures.engine.fills, call, pair)]


ENDPOINTS = (
    Endpoint("POST", "/fapi/v1/order", place_order, signed=True, counts=True),
    Endpoint("PUT", "/fapi/v1/order", amend_order, signed=True, counts=True),
    Endpoint("GET", "/fapi/v1/order", get_order, signed=True),
    Endpoint("DELETE", "/fapi/v1/order", cancel_order, signed=True),
    Endpoint("GET", "/fapi/v1/openOrders", open_orders, signed=True),
    Endpoint("DELETE", "/fapi/v1/allOpenOrders", cancel_all, signed=True),
    Endpoint("GET", "/fapi/v1/allOrders", all_orders, signed=True, weight=5),
    Endpoint("POST", "/fapi/v1/algoOrder", place_algo, signed=True, counts=True),
    Endpoint("GET", "/fapi/v1/algoOrder", get_algo, signed=True),
    Endpoint("DELETE", "/fapi/v1/algoOrder", cancel_algo, signed=True),
    Endpoint("GET", "/fapi/v1/openAlgoOrders", open_algos, signed=True),
    Endpoint("DELETE", "/fapi/v1/algoOpenOrders", cancel_all_algos, signed=True),
    Endpoint("GET", "/fapi/v1/allAlgoOrders", all_algos, signed=True, weight=5),
    Endpoint("GET", "/fapi/v1/userTrades", user_trades, signed=True, weight=5),
)
