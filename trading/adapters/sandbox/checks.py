"""The filters that an order must pass, in Binance's words."""

from __future__ import annotations

from collections.abc import Sequence

from trading.adapters.sandbox.orders import Order, OrderRequest, RefusalError
from trading.adapters.sandbox.rules import SymbolRules

MAX_ORDERS, MAX_STOPS = 200, 5
LARGEST_PRICE = 10**15


def check_order(
    rules: SymbolRules, request: OrderRequest, lots: int, quote: tuple[int, int], present: Sequence[Order]
) -> None:
    """Raise RefusalError when an order fails a filter.

    Args:
        quote: bid and ask in ticks. present: the account's open orders.
    """
    bid, ask = quote
    priced = not request.kind.priceless
    if not (request.close_position and lots == 0) and not 1 <= lots <= rules.max_lots:
        raise RefusalError(-1013, "Filter failure: LOT_SIZE")
    if priced and not 1 <= request.price <= LARGEST_PRICE:
        raise RefusalError(-1013, "Filter failure: PRICE_FILTER")
    if priced and not ask // 5 <= request.price <= bid * 5:
        raise RefusalError(-1013, "Filter failure: PERCENT_PRICE_BY_SIDE")
    worth = rules.cost(request.price if priced else request.stop_price or ask, lots)
    if worth < rules.min_notional and not request.reduce_only and not request.close_position:
        raise RefusalError(-1013, "Filter failure: NOTIONAL")
    if request.kind.conditional:
        _check_stop(request, bid, ask)
    same = [order for order in present if order.request.pair == request.pair]
    if len(same) >= MAX_ORDERS:
        raise RefusalError(-1013, "Filter failure: MAX_NUM_ORDERS")
    if request.kind.conditional and sum(order.request.kind.conditional for order in same) >= MAX_STOPS:
        raise RefusalError(-1013, "Filter failure: MAX_NUM_ALGO_ORDERS")
    if request.client_id and any(order.client_id == request.client_id for order in present):
        raise RefusalError(-2010, "Duplicate order sent.")


def _check_stop(request: OrderRequest, bid: int, ask: int) -> None:
    rising = (request.side == "BUY") == request.kind.stops
    if not 1 <= request.stop_price <= LARGEST_PRICE:
        raise RefusalError(-1013, "Filter failure: PRICE_FILTER")
    if (request.stop_price <= bid) if rising else (request.stop_price >= ask):
        raise RefusalError(-2010, "Stop price would trigger immediately.")
