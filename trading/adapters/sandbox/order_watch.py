"""What has happened to an account's orders since somebody looked last: change after change, in the order of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from trading.adapters.sandbox.matching import Engine
from trading.adapters.sandbox.orders import Fill, Order, Status


class What(StrEnum):
    """Kinds of change; but for the second under Binance's names of what was executed."""

    NEW = "NEW"
    TRIGGERED = "TRIGGERED"
    TRADE = "TRADE"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `filled` (lots) and `cost` (units): of the order just after it; `fill`: what was traded, if that."""

    what: What
    order: Order
    at_ms: int
    filled: int = 0
    cost: int = 0
    fill: Fill | None = None

    @property
    def status(self) -> Status:
        """The order's just after it."""
        if self.what in (What.CANCELED, What.EXPIRED):
            return Status(self.what)
        if not self.filled:
            return Status.NEW
        return Status.FILLED if self.filled == self.order.lots else Status.PARTIALLY_FILLED


class OrderWatch:
    """Follows one account's orders on one engine, from now on."""

    def __init__(self, engine: Engine, account: str) -> None:
        self._engine, self._account = engine, account
        self._orders, self._fills = len(engine.orders), len(engine.fills)
        self._open = {order.order_id: (order.filled, order.cost) for order in engine.open_orders(account)}
        self._sleeping = {order.order_id for order in engine.open_orders(account) if order.sleeping}

    def changes(self) -> list[Change]:
        """Everything since the last call."""
        found = [*self._begun(), *self._triggered(), *self._filled(), *self._ended()]
        return sorted(found, key=lambda change: change.at_ms)

    def _begun(self) -> Iterator[Change]:
        for number in range(self._orders + 1, len(self._engine.orders) + 1):
            order = self._engine.orders[number]
            if order.request.account == self._account:
                self._open[number] = (0, 0)
                if order.request.kind.conditional:
                    self._sleeping.add(number)
                yield Change(What.NEW, order, order.created_ms)
        self._orders = len(self._engine.orders)

    def _triggered(self) -> Iterator[Change]:
        for number in sorted(self._sleeping):
            order = self._engine.orders[number]
            if order.triggered_ms is not None:
                yield Change(What.TRIGGERED, order, order.triggered_ms)
            if not (order.sleeping and order.status.open):
                self._sleeping.discard(number)

    def _filled(self) -> Iterator[Change]:
        for fill in self._engine.fills[self._fills :]:
            if fill.order_id in self._open:
                filled, cost = self._open[fill.order_id]
                self._open[fill.order_id] = filled, cost = filled + fill.lots, cost + fill.cost
                yield Change(What.TRADE, self._engine.orders[fill.order_id], fill.time_ms, filled, cost, fill)
        self._fills = len(self._engine.fills)

    def _ended(self) -> Iterator[Change]:
        for number, (filled, cost) in list(self._open.items()):
            order = self._engine.orders[number]
            if not order.status.open:
                del self._open[number]
                if order.status is not Status.FILLED:
                    yield Change(What(order.status), order, order.updated_ms, filled, cost)
