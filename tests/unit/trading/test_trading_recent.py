"""The run of recent entries equals a plain tuple, however many books grow from one and the same book."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from trading.recent import Order, RecentOrders

STEPS = st.lists(
    st.tuples(
        st.integers(0, 30), st.integers(0, 12), st.sampled_from(("a", "b")), st.integers(0, 5), st.integers(0, 9)
    ),
    max_size=60,
)


@given(STEPS)
def test_it_equals_a_tuple_and_branches_stay_apart(steps: list[tuple[int, int, str, int, int]]) -> None:
    kept: list[tuple[RecentOrders, tuple[Order, ...]]] = [(RecentOrders(), ())]
    for parent, name, account, later, memory in steps:
        recent, plain = kept[parent % len(kept)]
        at_ms = recent.last_ms() + later
        order = Order(f"i{name}", account, f"P{name % 2}/USDT", at_ms)
        forgotten = at_ms - memory - 1
        kept.append((recent.adding(order, forgotten), (*(each for each in plain if each.at_ms > forgotten), order)))
    for recent, plain in kept:
        assert tuple(recent) == plain
        assert len(recent) == len(plain)
        assert recent == RecentOrders(plain)
        assert copy.copy(recent) == recent
        names = {order.intent_id for order in plain}
        assert all((f"i{name}" in recent) == (f"i{name}" in names) for name in range(13))
        for since in (0, 3, 20):
            young = [order for order in plain if order.at_ms > since]
            assert recent.count(since, "a") == sum(order.account == "a" for order in young)
            assert recent.count(since, "b", "P1/USDT") == sum(
                (order.account, order.pair) == ("b", "P1/USDT") for order in young
            )


def test_an_older_holder_never_sees_what_was_added_later() -> None:
    first = RecentOrders().adding(Order("i1", "a", "A/USDT", 5), 0)
    first.adding(Order("i2", "a", "A/USDT", 6), 0)
    assert "i2" not in first
    assert list(copy.copy(first)) == [Order("i1", "a", "A/USDT", 5)]
