"""Perpetuals in Binance's words: orders, conditional ("algo") orders, fills, positions."""

from __future__ import annotations

from typing import Any

from trading.adapters.sandbox.brackets import maintenance
from trading.adapters.sandbox.orders import Fill, Kind, Order, RefusalError, Status
from trading.adapters.sandbox.perpetuals import PerpetualMoney
from trading.adapters.sandbox.positions import Position, liquidation_price
from trading.adapters.sandbox.rules import SymbolRules, units_text

KINDS = {
    "LIMIT": Kind.LIMIT,
    "MARKET": Kind.MARKET,
    "STOP": Kind.STOP_LOSS_LIMIT,
    "STOP_MARKET": Kind.STOP_LOSS,
    "TAKE_PROFIT": Kind.TAKE_PROFIT_LIMIT,
    "TAKE_PROFIT_MARKET": Kind.TAKE_PROFIT,
}
NAMES = {kind: name for name, kind in KINDS.items()} | {Kind.LIMIT_MAKER: "LIMIT"}
WORDS = {
    "Filter failure: NOTIONAL": (-4164, "Order's notional must be no smaller than 5 (unless you choose reduce only)."),
    "Filter failure: LOT_SIZE": (-1111, "Precision is over the maximum defined for this asset."),
    "Filter failure: PRICE_FILTER": (-1111, "Precision is over the maximum defined for this asset."),
    "Filter failure: PERCENT_PRICE_BY_SIDE": (-4024, "Limit price is out of the range of the PERCENT_PRICE filter."),
    "Filter failure: MAX_NUM_ORDERS": (-2025, "Reach max open order limit."),
    "Filter failure: MAX_NUM_ALGO_ORDERS": (-4045, "Reach max stop order limit."),
    "Stop price would trigger immediately.": (-2021, "Order would immediately trigger."),
    "Order would immediately match and take.": (
        -5022,
        "Due to the order could not be executed as maker, the Post Only order will be rejected.",
    ),
    "Duplicate order sent.": (-4116, "ClientOrderId is duplicated."),
}


def in_futures_words(refusal: RefusalError) -> RefusalError:
    """Futures refuse for the same reasons as spot, under other codes."""
    code, message = WORDS.get(refusal.message, (refusal.code, refusal.message))
    return RefusalError(code, message, refusal.status)


def average_text(rules: SymbolRules, cost: int, lots: int) -> str:
    """The mean price of `lots` that cost so much, 0 of none."""
    average = cost / lots / rules.cost(1, 1) / 10**rules.price_decimals if lots else 0.0
    return f"{average:.8f}"


def order_answer(rules: SymbolRules, order: Order) -> dict[str, Any]:
    """An order that works or has worked."""
    request, name = order.request, NAMES[order.request.kind]
    # a conditional order becomes an ordinary one when its stop is met
    working = ("MARKET" if request.kind.priceless else "LIMIT") if request.kind.conditional else name
    return {
        "orderId": order.order_id,
        "symbol": rules.symbol,
        "status": str(order.status),
        "clientOrderId": order.client_id,
        "price": rules.price_text(request.price),
        "avgPrice": average_text(rules, order.cost, order.filled),
        "origQty": rules.lots_text(order.lots),
        "executedQty": rules.lots_text(order.filled),
        "cumQty": rules.lots_text(order.filled),
        "cumQuote": units_text(order.cost),
        "timeInForce": "GTX" if request.kind is Kind.LIMIT_MAKER else request.time_in_force,
        "type": working,
        "reduceOnly": request.reduce_only or request.close_position,
        "closePosition": request.close_position,
        "side": request.side,
        "positionSide": "BOTH",
        "stopPrice": rules.price_text(request.stop_price),
        "workingType": "CONTRACT_PRICE",
        "priceProtect": False,
        "origType": name,
        "selfTradePreventionMode": "NONE",
        "time": order.triggered_ms or order.created_ms,
        "updateTime": order.updated_ms,
    }


def algo_answer(rules: SymbolRules, order: Order) -> dict[str, Any]:
    """A conditional order; once triggered it names the order that it became (ours has the same number)."""
    request = order.request
    met = order.triggered_ms is not None
    status = "FINISHED" if met and not order.status.open else "TRIGGERED" if met else str(order.status)
    if met and order.status is Status.EXPIRED and not order.filled:
        status = "EXPIRED"
    return {
        "algoId": order.order_id,
        "clientAlgoId": order.client_id,
        "algoType": "CONDITIONAL",
        "orderType": NAMES[request.kind],
        "symbol": rules.symbol,
        "side": request.side,
        "positionSide": "BOTH",
        "timeInForce": request.time_in_force,
        "quantity": rules.lots_text(order.lots),
        "algoStatus": status,
        "actualOrderId": str(order.order_id) if met else "",
        "actualPrice": order_answer(rules, order)["avgPrice"],
        "triggerPrice": rules.price_text(request.stop_price),
        "price": rules.price_text(request.price),
        "icebergQuantity": None,
        "selfTradePreventionMode": "NONE",
        "workingType": "CONTRACT_PRICE",
        "priceMatch": "NONE",
        "closePosition": request.close_position,
        "priceProtect": False,
        "reduceOnly": request.reduce_only or request.close_position,
        "createTime": order.created_ms,
        "updateTime": order.updated_ms,
        "triggerTime": order.triggered_ms or 0,
        "goodTillDate": 0,
    }


def trade_answer(rules: SymbolRules, fill: Fill) -> dict[str, Any]:
    """A fill."""
    return {
        "symbol": rules.symbol,
        "id": fill.fill_id,
        "orderId": fill.order_id,
        "side": fill.side,
        "price": rules.price_text(fill.price),
        "qty": rules.lots_text(fill.lots),
        "realizedPnl": units_text(fill.realized),
        "quoteQty": units_text(fill.cost),
        "commission": units_text(fill.fee),
        "commissionAsset": fill.fee_asset,
        "time": fill.time_ms,
        "positionSide": "BOTH",
        "buyer": fill.side == "BUY",
        "maker": fill.maker,
    }


def position_answer(money: PerpetualMoney, position: Position, now_ms: int, seen_ms: int) -> dict[str, Any]:
    """A position's risk."""
    rules, marks = money.rules[position.pair], money.marks(now_ms)
    mark = money.marks(seen_ms)[position.pair]
    lots = abs(position.lots)
    entry = average_text(rules, position.cost, lots)
    notional = position.notional(rules, mark)
    level = (
        liquidation_price(position, money.wallet(position), money.group(position), money.rules, marks) if lots else 0
    )
    initial = units_text(position.margin)
    signed = "-" if position.side < 0 else ""
    return {
        "symbol": rules.symbol,
        "positionSide": "BOTH",
        "positionAmt": f"{signed}{rules.lots_text(lots)}",
        "entryPrice": entry,
        "breakEvenPrice": entry,
        "markPrice": rules.price_text(mark),
        "unRealizedProfit": units_text(position.profit(rules, mark)),
        "liquidationPrice": rules.price_text(level),
        "isolatedMargin": units_text(position.margin + position.profit(rules, mark) if position.isolated else 0),
        "notional": f"{signed}{units_text(notional)}",
        "marginAsset": rules.quote,
        "isolatedWallet": units_text(position.margin if position.isolated else 0),
        "marginType": "isolated" if position.isolated else "cross",
        "leverage": str(position.leverage),
        "initialMargin": initial,
        "maintMargin": units_text(maintenance(notional)),
        "positionInitialMargin": initial,
        "openOrderInitialMargin": "0",
        "adl": 0,
        "bidNotional": "0",
        "askNotional": "0",
        "updateTime": position.updated_ms,
    }
