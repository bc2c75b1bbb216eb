"""Approved entries of the last day: what the rules on duplicates and on rate look at, cheap to add to and to ask.

A busy day holds thousands of entries and every decision asks for them, so a book shares their storage with the book
that it was made from: nothing is copied, and no holder ever sees what was added after its own last entry.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Order:
    """An approved entry, remembered for a day."""

    intent_id: str
    account: str
    pair: str
    at_ms: int


class RecentOrders:
    """An immutable sequence of orders, oldest first, whose times never fall."""

    __slots__ = ("_end", "_first", "_orders", "_places")

    def __init__(self, orders: Iterable[Order] = ()) -> None:
        self._orders = list(orders)
        self._places = {order.intent_id: place for place, order in enumerate(self._orders)}
        self._first, self._end = 0, len(self._orders)

    def adding(self, order: Order, forget_until_ms: int) -> RecentOrders:
        """These and one more, without those of `forget_until_ms` and before."""
        first = bisect_right(self._orders, forget_until_ms, self._first, self._end, key=_time)
        shared = self._end == len(self._orders) and order.intent_id not in self._places and first <= self._end // 2
        base = self if shared else RecentOrders(self._orders[first : self._end])
        result = object.__new__(RecentOrders)
        result._orders, result._places = base._orders, base._places
        result._first, result._end = first if shared else 0, base._end + 1
        base._places[order.intent_id] = base._end
        base._orders.append(order)
        return result

    def count(self, since_ms: int, account: str, pair: str = "") -> int:
        """Entries of an account later than `since_ms`; with a pair, of that pair."""
        first = bisect_right(self._orders, since_ms, self._first, self._end, key=_time)
        return sum(
            order.account == account and (not pair or order.pair == pair) for order in self._orders[first : self._end]
        )

    def last_ms(self) -> int:
        """When the newest was approved; 0 without any."""
        return self._orders[self._end - 1].at_ms if self else 0

    def __contains__(self, intent_id: str) -> bool:
        return self._first <= self._places.get(intent_id, -1) < self._end

    def __iter__(self) -> Iterator[Order]:
        return iter(self._orders[self._first : self._end])

    def __len__(self) -> int:
        return self._end - self._first

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecentOrders) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RecentOrders({list(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy travels with its own orders only."""
        return RecentOrders, (list(self),)


def _time(order: Order) -> int:
    return order.at_ms
