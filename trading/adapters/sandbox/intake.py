"""Reading the orders that clients send, and what they ask of their fills."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from trading.adapters.sandbox.endpoint import Call
from trading.adapters.sandbox.orders import Fill, Kind, OrderRequest, RefusalError, Side, TimeInForce
from trading.adapters.sandbox.rules import UNIT_DECIMALS, SymbolRules


def read_order(rules: SymbolRules, call: Call) -> OrderRequest:
    """A spot order; raises RefusalError for what Binance would not read."""
    side, kind = call.text("side"), call.text("type")
    if kind not in set(Kind):
        raise RefusalError(-1116, "Invalid orderType.")
    needed = ["quantity"] if kind != Kind.MARKET or not call.params.get("quoteOrderQty") else ["quoteOrderQty"]
    needed += [] if Kind(kind).priceless else ["price"]
    needed += ["stopPrice"] if Kind(kind).conditional else []
    needed += [] if Kind(kind).priceless or kind == Kind.LIMIT_MAKER else ["timeInForce"]
    for name in needed:
        call.text(name)
    force = call.params.get("timeInForce", "GTC")
    if force not in ("GTC", "IOC", "FOK"):
        raise RefusalError(-1115, "Invalid timeInForce.")
    return OrderRequest(
        account=call.account,
        pair=rules.pair,
        side=read_side(side),
        kind=Kind(kind),
        lots=call.count("quantity", rules.lot_decimals, "LOT_SIZE"),
        price=0 if Kind(kind).priceless else call.count("price", rules.price_decimals, "PRICE_FILTER"),
        stop_price=call.count("stopPrice", rules.price_decimals, "PRICE_FILTER"),
        quote_units=call.count("quoteOrderQty", UNIT_DECIMALS, "NOTIONAL") if "quoteOrderQty" in needed else 0,
        time_in_force=cast(TimeInForce, force),
        client_id=read_client_id(call.params.get("newClientOrderId", ""), "newClientOrderId"),
    )


def read_side(text: str) -> Side:
    """BUY or SELL; raises RefusalError -1117."""
    if text not in ("BUY", "SELL"):
        raise RefusalError(-1117, "Invalid side.")
    return cast(Side, text)


def read_client_id(text: str, name: str) -> str:
    """A client's own id of an order, empty when it gave none; raises RefusalError -1100."""
    if len(text) > 36 or not all(c.isascii() and (c.isalnum() or c in ".:/_-") for c in text):
        raise RefusalError(-1100, f"Illegal characters found in parameter '{name}'.")
    return text


def executions(fills: Sequence[Fill], call: Call, pair: str) -> list[Fill]:
    """The caller's fills of a pair, oldest first, between the times and from the ids that were asked for."""
    start, end, order_id, first = (call.integer(name) for name in ("startTime", "endTime", "orderId", "fromId"))
    chosen = [
        fill
        for fill in fills
        if (fill.account, fill.pair) == (call.account, pair)
        and (start is None or fill.time_ms >= start)
        and (end is None or fill.time_ms <= end)
        and (order_id is None or fill.order_id == order_id)
        and (first is None or fill.fill_id >= first)
    ]
    limit = call.limit(500, 1000)
    return chosen[-limit:] if start is None and first is None else chosen[:limit]
