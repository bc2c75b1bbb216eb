"""Reading the orders that clients send."""

from __future__ import annotations

from typing import cast

from trading.adapters.sandbox.endpoint import Call
from trading.adapters.sandbox.orders import Kind, OrderRequest, RefusalError, Side, TimeInForce
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
