"""The watch over chaos sees what it is there to see."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.chaos_watch import Gap, Watch, doubled, history

PAIR, STEP = "ETH/USDT", 900_000


def _order(number: int, side: str, kind: str, status: str, at_ms: int, amount: float = 0.9991) -> dict[str, Any]:
    return {
        "order_id": str(number), "pair": PAIR, "side": side, "type": kind, "status": status, "created_ms": at_ms,
        "amount": str(amount), "price": "100", "stop_price": "0", "filled": "0", "cost": "0",
    }  # fmt: skip


def _fill(number: int, order: int, side: str, amount: float = 1.0) -> dict[str, Any]:
    return {
        "fill_id": str(number), "order_id": str(order), "pair": PAIR, "side": side, "amount": str(amount),
        "price": "100", "fee": "0.001" if side == "buy" else "0.1", "fee_asset": "ETH" if side == "buy" else "USDT",
        "time_ms": number,
    }  # fmt: skip


def _ledger(held: float, orders: list[dict[str, Any]], now_ms: int = 0, fills: Any = ()) -> dict[str, Any]:
    account = {"balances": {"ETH": {"total": str(held)}}, "orders": orders, "fills": list(fills)}
    return {"now_ms": now_ms, "problems": [], "accounts": {"anna": account}}


def _looked(*ledgers: dict[str, Any]) -> Watch:
    watch = Watch(patience_ms=4 * STEP)
    for ledger in ledgers:
        watch.look(ledger, {PAIR: 100.0}, "test")
    return watch


def test_a_position_without_a_stop_is_seen_when_patience_ends() -> None:
    bare = [_ledger(1.0, [], at * STEP) for at in range(6)]
    assert _looked(*bare[:5]).broken == []
    assert len(_looked(*bare).broken) == 1
    covered = _ledger(1.0, [_order(2, "sell", "stop_loss_limit", "new", 0)], 3 * STEP)
    assert _looked(*bare[:3], covered, *bare[4:]).broken == []
    taken_back = _ledger(1.0, [_order(2, "sell", "stop_loss_limit", "canceled", 0)], 5 * STEP)
    assert len(_looked(*bare[:5], taken_back).broken) == 1


def test_dust_and_an_order_that_is_being_filled_are_no_bare_position() -> None:
    assert _looked(*(_ledger(0.05, [], at * STEP) for at in range(9))).bare_ms == {}
    filling = [_order(1, "buy", "limit", "partially_filled", 0)]
    assert _looked(*(_ledger(1.0, filling, at * STEP) for at in range(9))).bare_ms == {}


@pytest.mark.parametrize(
    ("fills", "expected"),
    [
        ([_fill(1, 1, "buy"), _fill(2, 2, "sell", 0.999), _fill(3, 3, "buy")], []),
        ([_fill(1, 1, "buy", 0.5), _fill(2, 1, "buy", 0.5)], []),
        ([_fill(1, 1, "buy"), _fill(2, 2, "buy")], [(PAIR, "2")]),
    ],
    ids=["in and out", "in parts", "twice"],
)
def test_a_second_entry_is_seen(fills: list[dict[str, Any]], expected: list[tuple[str, str]]) -> None:
    assert list(doubled({"fills": fills, "orders": []})) == expected


def test_what_many_sales_leave_behind_is_no_position() -> None:
    sales = [
        _order(number, "sell", "market", "filled", 0) | {"amount": amount}
        for number, amount in enumerate(["0.99910000", "0.20000000", "0.19850000"] * 1_000)
    ]
    assert _looked(*(_ledger(0.3, sales, at * STEP) for at in range(9))).bare_ms == {}
    assert _looked(*(_ledger(0.5, sales, at * STEP) for at in range(9))).broken
    fills = [_fill(1, 1, "buy", 0.3), _fill(2, 2, "buy")]
    assert list(doubled({"fills": fills, "orders": sales})) == []
    assert list(doubled({"fills": fills, "orders": sales[:1]})) == [(PAIR, "2")]


def test_an_entry_in_a_gap_is_seen_and_an_exit_is_not() -> None:
    watch = Watch(STEP, gaps=[Gap("nobody decides", ("anna",), 10, 20), Gap("blind", ("bert",), 10, 20)])
    orders = [_order(1, "buy", "limit", "filled", 10), _order(2, "sell", "market", "filled", 15)]
    watch.judge(_ledger(1.0, orders))
    assert watch.broken == []
    watch.judge(_ledger(1.0, [*orders, _order(3, "buy", "limit", "canceled", 15)]))
    assert watch.broken == ["anna entered while nobody decides: order 3 at 15"]


def test_a_history_depends_on_what_was_ordered_and_not_on_ids() -> None:
    first, second = (_ledger(1.0, [_order(number, "buy", "limit", "filled", 10)]) for number in (1, 2))
    assert history(first) == history(second)
    assert history(first) != history(_ledger(1.0, [_order(1, "buy", "limit", "filled", 11)]))
