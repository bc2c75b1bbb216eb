"""Open orders that only the exchange knows: ours of an earlier life are taken back, a stranger's stop every entry.

A process killed between an order and its commit leaves such orders behind. An entry's is adopted by way of its
reservation (`trading.adapters.bookkeeper`), an exit that was filled by Freqtrade's own recovery. What is left are
orders that still rest: they lock coins that the bot wants to sell, or to protect.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

import ccxt
from freqtrade.persistence import Order

from observability.errors import ExchangeError
from observability.logging import get_logger
from trading.adapters.gate import EXIT, STOP
from trading.adapters.venue_kind import order_books
from trading.reconciliation import Origin

log = get_logger(__name__)

OURS = re.compile(rf"({re.escape(EXIT)}|{re.escape(STOP)})[0-9a-f]{{32}}")
RESERVED = re.compile(r"r-[0-9a-f]{32}")


def origin_of(order: Mapping[str, Any], pair: str) -> Origin:
    """Whose order that is which rests on the exchange; asks the database of the bot."""
    name = str(order.get("clientOrderId") or "")
    if Order.order_by_id(str(order["id"]), pair) is not None:
        return "booked"
    if RESERVED.fullmatch(name):
        return "reserved"
    return "orphan" if OURS.fullmatch(name) else "stranger"


def clear_orphans(exchange: Any, pairs: Iterable[str]) -> dict[str, str]:
    """Cancel our own forgotten exits and stops; returns orders of strangers, each with its pair.

    Raises:
        ExchangeError: the exchange cannot be asked, so nothing is known.
    """
    strangers: dict[str, str] = {}
    for pair, book in product(pairs, order_books(exchange)):
        try:
            resting = exchange._api.fetch_open_orders(pair, params=book)
        except ccxt.BaseError as error:
            raise ExchangeError(f"{type(error).__name__}: {error}", where=pair) from error
        for order in resting:
            order_id, origin = str(order["id"]), origin_of(order, pair)
            if origin == "stranger":
                strangers[order_id] = pair
            if origin != "orphan":
                continue
            try:
                exchange._api.cancel_order(order_id, pair, params=book)
                log.warning("orphan_cancelled", pair=pair, order=order_id, client_id=order.get("clientOrderId"))
            except ccxt.OrderNotFound:
                log.warning("orphan_gone", pair=pair, order=order_id)  # filled or cancelled meanwhile
            except ccxt.BaseError as error:
                raise ExchangeError(f"{type(error).__name__}: {error}", where=pair) from error
    return strangers
