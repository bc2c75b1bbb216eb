"""What is let go is what no order could sell, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from freqtrade.persistence import Order, Trade, init_db

from trading.adapters.remainders import let_go, taking_back

PAIR = "ETH/USDT"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def database() -> Iterator[None]:
    init_db("sqlite://")
    yield
    Trade.session.remove()


def _exchange(markets: Any, mode: str = "spot") -> Any:
    return SimpleNamespace(trading_mode=mode, markets=markets)


def _held(amount: float, *orders: Order) -> Trade:
    trade = Trade(
        pair=PAIR, base_currency="ETH", stake_currency="USDT", stake_amount=amount * 2_000.0, amount=amount,
        amount_requested=amount, open_rate=2_000.0, open_date=NOW, fee_open=0.001, fee_close=0.001, is_open=True,
        exchange="binance", strategy="Swing", timeframe=15, leverage=1.0, amount_precision=1e-5, precision_mode=4,
        price_precision=0.01, precision_mode_price=4, contract_size=1.0,
    )  # fmt: skip
    trade.orders += [_order("1", "buy", amount), *orders]
    Trade.session.add(trade)
    Trade.commit()
    return trade


def _order(order_id: str, side: str, amount: float, *, is_open: bool = False) -> Order:
    return Order(
        order_id=order_id, ft_order_side=side, ft_pair=PAIR, ft_is_open=is_open, ft_amount=amount, ft_price=2_000.0,
        side=side, symbol=PAIR, amount=amount, filled=0.0 if is_open else amount, remaining=0.0, price=2_000.0,
        average=2_000.0, cost=amount * 2_000.0, status="open" if is_open else "closed", order_type="limit",
        order_date=NOW, order_filled_date=None if is_open else NOW,
    )  # fmt: skip


MARKETS = {PAIR: {"limits": {"cost": {"min": 5.0}}}}


def test_a_position_worth_less_than_an_order_is_let_go() -> None:
    trade = _held(0.002)
    assert let_go(_exchange(MARKETS), {PAIR: 2_400.0}) == [PAIR]
    assert (trade.is_open, trade.exit_reason, trade.close_profit_abs) == (False, "dust", 0.0)
    assert let_go(_exchange(MARKETS), {PAIR: 2_400.0}) == [], "once"


@pytest.mark.parametrize(
    ("markets", "marks", "mode"),
    [
        (MARKETS, {PAIR: 2_600.0}, "spot"),
        (MARKETS, {}, "spot"),
        (MARKETS, {PAIR: 2_400.0}, "futures"),
        ({}, {PAIR: 2_400.0}, "spot"),
        ({PAIR: {}}, {PAIR: 2_400.0}, "spot"),
        ({PAIR: {"limits": {"cost": {"min": None}}}}, {PAIR: 2_400.0}, "spot"),
    ],
    ids=["worth an order", "no price", "perpetual", "pair gone", "no limits", "no least worth"],
)
def test_anything_else_is_kept(markets: Any, marks: dict[str, float], mode: str) -> None:
    trade = _held(0.002)
    assert let_go(_exchange(markets, mode), marks) == []
    assert trade.is_open


def test_what_still_has_an_order_is_kept() -> None:
    trade = _held(0.002, _order("2", "sell", 0.002, is_open=True))
    assert let_go(_exchange(MARKETS), {PAIR: 2_400.0}) == []
    assert trade.is_open


@pytest.mark.parametrize(
    ("ended", "passed_on"),
    [
        ({"id": "1", "status": "canceled", "filled": 0.001}, True),
        ({"id": "1", "status": "open", "filled": 0.001}, False),
        ({"id": "1", "status": "canceled", "filled": 0.0}, False),
    ],
    ids=["taken back", "still open", "the fill forgotten"],
)
def test_an_entry_that_filled_a_little_is_taken_back_only_by_an_answer_that_knows_of_it(
    ended: dict[str, Any], passed_on: bool
) -> None:
    told: list[dict[str, Any]] = []

    def cancel(_trade: Any, order: dict[str, Any], _order: Any, *_args: Any, **_kwargs: Any) -> bool:
        told.append(order)
        return False

    exchange = SimpleNamespace(cancel_order_with_result=lambda *_args: ended)
    handle = taking_back(exchange, cancel)
    trade, order = SimpleNamespace(pair=PAIR, amount=0.0), {"id": "1", "status": "open", "filled": 0.001}
    assert handle(trade, order, SimpleNamespace(ft_cancel_reason=None), "timeout") is False
    assert told == ([ended] if passed_on else [])
