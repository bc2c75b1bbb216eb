"""Orders and fills in Binance's words."""

from __future__ import annotations

from typing import Any

from trading.adapters.sandbox.orders import Fill, Order
from trading.adapters.sandbox.rules import SymbolRules, units_text


def placed(rules: SymbolRules, order: Order) -> dict[str, Any]:
    """The answer to a new order."""
    request = order.request
    answer: dict[str, Any] = {
        "symbol": rules.symbol,
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": order.client_id,
        "price": rules.price_text(request.price),
        "origQty": rules.lots_text(order.lots),
        "executedQty": rules.lots_text(order.filled),
        "cummulativeQuoteQty": units_text(order.cost),
        "status": str(order.status),
        "timeInForce": request.time_in_force,
        "type": str(request.kind),
        "side": request.side,
        "transactTime": order.updated_ms,
        "workingTime": order.created_ms,
        "selfTradePreventionMode": "NONE",
    }
    if request.kind.conditional:
        answer["stopPrice"] = rules.price_text(request.stop_price)
    return answer


def queried(rules: SymbolRules, order: Order) -> dict[str, Any]:
    """An order as it is looked up."""
    answer = placed(rules, order)
    del answer["transactTime"]
    return answer | {
        "stopPrice": rules.price_text(order.request.stop_price),
        "icebergQty": "0.00000000",
        "time": order.created_ms,
        "updateTime": order.updated_ms,
        "isWorking": not order.sleeping,
        "origQuoteOrderQty": units_text(order.request.quote_units),
    }


def cancelled(rules: SymbolRules, order: Order) -> dict[str, Any]:
    """The answer to a cancellation."""
    return placed(rules, order) | {"origClientOrderId": order.client_id}


def inner_fill(rules: SymbolRules, fill: Fill) -> dict[str, Any]:
    """A fill inside the answer to a new order."""
    return {
        "price": rules.price_text(fill.price),
        "qty": rules.lots_text(fill.lots),
        "commission": units_text(fill.fee),
        "commissionAsset": fill.fee_asset,
        "tradeId": fill.fill_id,
    }


def trade(rules: SymbolRules, fill: Fill) -> dict[str, Any]:
    """A fill in the list of an account's trades."""
    inner = inner_fill(rules, fill)
    return {
        "symbol": rules.symbol,
        "id": inner.pop("tradeId"),
        "orderId": fill.order_id,
        "orderListId": -1,
        "quoteQty": units_text(fill.cost),
        "time": fill.time_ms,
        "isBuyer": fill.side == "BUY",
        "isMaker": fill.maker,
        "isBestMatch": True,
        **inner,
    }
