"""Somebody who is told every change of an account's orders, and must know the orders from that alone."""

from __future__ import annotations

from trading.adapters.sandbox.matching import Engine
from trading.adapters.sandbox.order_watch import Change, OrderWatch, What
from trading.adapters.sandbox.orders import Status


class Follower:
    """Follows `account` on `engine` from now on."""

    def __init__(self, engine: Engine, account: str) -> None:
        self._engine, self._account = engine, account
        self._watch, self._first = OrderWatch(engine, account), len(engine.orders) + 1
        self._last: dict[int, Change] = {}
        self._fills = 0

    def look(self) -> None:
        """Hear what is new: each change fits the one before it, and time runs one way."""
        at_ms = 0
        for change in self._watch.changes():
            number, before = change.order.order_id, self._last.get(change.order.order_id)
            assert change.at_ms >= at_ms
            assert change.order.request.account == self._account
            assert (change.what is What.NEW) == (before is None), "a beginning comes first, and once"
            assert before is None or before.status.open, "nothing comes after the end"
            if change.fill is not None and before is not None:
                assert change.filled == before.filled + change.fill.lots
                assert change.cost == before.cost + change.fill.cost
                self._fills += 1
            at_ms, self._last[number] = change.at_ms, change

    def knows_everything(self) -> None:
        """What was told is what is."""
        self.look()
        orders = [order for order in self._engine.orders.values() if order.request.account == self._account]
        assert set(self._last) == {order.order_id for order in orders if order.order_id >= self._first}
        for order in orders:
            last = self._last[order.order_id]
            assert (last.status, last.filled, last.cost) == (order.status, order.filled, order.cost)
            assert last.status is not Status.NEW or last.filled == 0
        assert self._fills == sum(fill.account == self._account for fill in self._engine.fills)
