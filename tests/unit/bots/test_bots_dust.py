"""A sale is cut to whole lots; what each leaves behind adds up and must never look like a stranger's coins."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from freqtrade.persistence import Order, Trade, init_db

from trading.adapters.holdings import net_bought

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def database() -> Iterator[None]:
    init_db("sqlite://")
    yield
    Trade.session.remove()


def order(number: int, side: str, filled: float, fee: float | None) -> Order:
    return Order(
        order_id=f"{number}-{side}", ft_order_side=side, ft_pair="XRP/USDT", ft_is_open=False, ft_amount=filled,
        ft_price=1.2, side=side, symbol="XRP/USDT", amount=filled, filled=filled, remaining=0.0, price=1.2, average=1.2,
        cost=filled * 1.2, status="closed", order_type="limit", order_date=NOW, ft_fee_base=fee,
    )  # fmt: skip


def trade(number: int, orders: list[Order], *, is_open: bool) -> Trade:
    made = Trade(
        pair="XRP/USDT", base_currency="XRP", stake_currency="USDT", stake_amount=1600.0, amount=1336.0,
        amount_requested=1338.0, open_rate=1.2, open_date=NOW, fee_open=0.001, fee_close=0.001, is_open=is_open,
        exchange="binance", strategy="Swing", timeframe=15, leverage=1.0, enter_tag=str(number),
    )  # fmt: skip
    for each in orders:
        made.orders.append(each)
    return made


def test_eighty_round_trips_leave_what_the_exchange_has(database: None) -> None:
    exchange = 0.0
    for number in range(80):
        bought, fee, sold = 1338.0, 1.338, 1336.0
        Trade.session.add(
            trade(number, [order(number, "buy", bought, fee), order(number, "sell", sold, None)], is_open=False)
        )
        exchange += bought - fee - sold
    Trade.commit()
    assert exchange > 50  # coins worth far more than the dust that is allowed
    assert net_bought() == pytest.approx({"XRP/USDT": exchange})


def test_an_open_position_counts_and_an_unfilled_order_does_not(database: None) -> None:
    waiting = order(2, "buy", 500.0, None)
    waiting.filled = 0.0
    Trade.session.add(trade(1, [order(1, "buy", 1338.0, 1.338), waiting], is_open=True))
    Trade.commit()
    assert net_bought() == pytest.approx({"XRP/USDT": 1336.662})
