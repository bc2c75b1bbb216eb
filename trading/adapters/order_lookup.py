"""Finds an order on the exchange by the id that we gave it, and says in the risk manager's words what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ccxt
from freqtrade.exceptions import InvalidOrderException

from observability.errors import ExchangeError
from observability.logging import get_logger
from trading.adapters.venue_kind import order_books
from trading.events import Outcome

log = get_logger(__name__)

ATTEMPTS = 3
PAUSE_S = 0.2  # real seconds: the order may need a moment to become visible
OPEN = ("open", None)


class OrderLookup:
    """Reads single orders past Freqtrade, which knows orders only by the exchange's own id."""

    def __init__(self, exchange: Any) -> None:
        self._exchange = exchange
        self._live = not exchange._config["dry_run"]
        self._books = order_books(exchange)

    def by_client_id(self, client_id: str, pair: str, *, stop: bool = False) -> dict[str, Any] | None:
        """The order, or None when the exchange has none or cannot be asked; tries a few times."""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_S)
            try:
                found = self.ask(client_id, pair, stop=stop)
            except ExchangeError as error:
                log.warning("lookup_failed", pair=pair, client_id=client_id, error=str(error)[:200])
                continue
            if found is not None:
                return found
        return None

    def ask(self, client_id: str, pair: str, *, stop: bool = False) -> dict[str, Any] | None:
        """The order, or None when the exchange says that it has none, asked for it and for the list of all.

        Args:
            client_id: the id that we gave it; pair: its pair.
            stop: it is a protective stop, which perpetuals keep apart.

        Raises:
            ExchangeError: the exchange cannot be asked, so nothing is known.
        """
        if not self._live:
            return None
        try:
            order = self._order(client_id, pair, self._book(stop))
        except ccxt.BaseError as error:
            raise ExchangeError(f"{type(error).__name__}: {error}", where=pair) from error
        return None if order is None else dict(self._exchange._order_contracts_to_amount(order))

    def _book(self, stop: bool) -> dict[str, bool]:
        return self._books[-1 if stop else 0]

    def _order(self, client_id: str, pair: str, book: dict[str, bool]) -> dict[str, Any] | None:
        api = self._exchange._api
        try:
            found: dict[str, Any] = api.fetch_order(None, pair, params={"clientOrderId": client_id, **book})
        except ccxt.OrderNotFound:
            # Not believed on its own: a replica that lags behind does not know a live order for a moment either.
            return self._listed("clientOrderId", client_id, pair, book)
        return found

    def by_id(self, order_id: str, pair: str, *, stop: bool = False) -> dict[str, Any] | None:
        """The order of this number in the list of all; None when it is not there, or nobody answers."""
        try:
            found = self._listed("id", order_id, pair, self._book(stop)) if self._live else None
        except ccxt.BaseError as error:
            log.warning("lookup_failed", pair=pair, order=order_id, error=str(error)[:200])
            return None
        return None if found is None else dict(self._exchange._order_contracts_to_amount(found))

    def _listed(self, name: str, value: str, pair: str, book: dict[str, bool]) -> dict[str, Any] | None:
        api = self._exchange._api
        fetch = api.fetch_orders if api.has.get("fetchOrders") else api.fetch_open_orders
        orders = fetch(pair, params=book) if book else fetch(pair)
        return next((order for order in orders if str(order.get(name)) == value), None)


def doubting(fetch_order: Callable[..., Any], lookup: OrderLookup) -> Callable[..., Any]:
    """Freqtrade's `fetch_order`, which believes that there is no order only when the list of all lacks it, too.

    Freqtrade takes a live order that one replica does not know for a cancelled one, forgets it, and buys again.
    """

    def fetch(order_id: str, pair: str, params: dict[str, Any] | None = None) -> Any:
        try:
            return fetch_order(order_id, pair, params)
        except InvalidOrderException:
            found = lookup.by_id(order_id, pair, stop=bool((params or {}).get("stop")))
            if found is None:
                raise
            log.warning("order_found_in_list", pair=pair, order=order_id)
            return found

    return fetch


def outcome_of(order: dict[str, Any] | None) -> tuple[Outcome | None, float, float]:
    """(outcome, filled, average price) of an order; outcome None while it is open, "rejected" for no order."""
    if order is None:
        return "rejected", 0.0, 0.0
    filled = float(order.get("filled") or 0.0)
    cost = float(order.get("cost") or 0.0)
    price = cost / filled if filled > 0 and cost > 0 else float(order.get("average") or order.get("price") or 0.0)
    status = order.get("status")
    if status in OPEN:
        return None, filled, price
    if filled <= 0:
        return "cancelled", 0.0, 0.0
    return ("filled" if status == "closed" else "partial"), filled, price
