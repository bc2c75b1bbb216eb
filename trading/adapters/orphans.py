"""Open orders that only the exchange knows: ours of an earlier life are taken back, a stranger's stop every entry.

A process killed between an order and its commit leaves such orders behind. An entry's is adopted by way of its
reservation (`trading.adapters.bookkeeper`), an exit that was filled by Freqtrade's own recovery. What is left are
orders that still rest: they lock coins that the bot wants to sell, or to protect.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from typing import Any

import ccxt
from freqtrade.persistence import Order

from observability.errors import ExchangeError
from observability.logging import get_logger
from trading.adapters.gate import EXIT, STOP
from trading.adapters.venue_kind import order_books

log = get_logger(__name__)

OURS = re.compile(rf"({re.escape(EXIT)}|{re.escape(STOP)})[0-9a-f]{{32}}")
RESERVED = re.compile(r"r-[0-9a-f]{32}")


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
            name, order_id = str(order.get("clientOrderId") or ""), str(order["id"])
            if Order.order_by_id(order_id, pair) is not None or RESERVED.fullmatch(name):
                continue
            if OURS.fullmatch(name) is None:
                strangers[order_id] = pair
                continue
            try:
                exchange._api.cancel_order(order_id, pair, params=book)
                log.warning("orphan_cancelled", pair=pair, order=order_id, client_id=name)
            except ccxt.OrderNotFound:
                log.warning("orphan_gone", pair=pair, order=order_id)  # filled or cancelled meanwhile
            except ccxt.BaseError as error:
                raise ExchangeError(f"{type(error).__name__}: {error}", where=pair) from error
    return strangers
