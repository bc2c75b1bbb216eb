"""What an account is worth is known wholly or not at all: a part of it would look like a loss."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from freqtrade.persistence import Order, Trade, init_db
from freqtrade.wallets import PositionWallet

from tests.unit.bots.bots_accounts import account
from trading.adapters.holdings import equity, unmarked

PERPETUAL = "ETH/USDT:USDT"


@pytest.fixture(autouse=True)
def database() -> Iterator[None]:
    init_db("sqlite://")
    yield
    Trade.session.remove()


def _opened(pair: str, amount: float, rate: float, *, is_short: bool = False) -> Trade:
    trade = Trade(
        pair=pair, base_currency="ETH", stake_currency="USDT", stake_amount=amount * rate, amount=amount,
        amount_requested=amount, open_rate=rate, open_date=datetime(2026, 1, 1, tzinfo=UTC), fee_open=0.001,
        fee_close=0.001, is_open=True, exchange="binance", strategy="Swing", timeframe=15, leverage=1.0,
        is_short=is_short,
    )  # fmt: skip
    Trade.session.add(trade)
    Trade.commit()
    return trade


def _filled(order_id: str, side: str, amount: float, price: float) -> Order:
    return Order(
        order_id=order_id, ft_order_side=side, ft_pair="ETH/USDT", ft_is_open=False, ft_amount=amount, ft_price=price,
        side=side, symbol="ETH/USDT", amount=amount, filled=amount, remaining=0.0, price=price, average=price,
        cost=amount * price, status="closed", order_type="limit", order_date=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def test_coins_without_a_price_leave_no_part_of_a_worth() -> None:
    bot = account(pairs=("BTC/USDT", "ETH/USDT"), USDT=9_500.0, ETH=2.0)
    assert equity(bot, {"BTC/USDT": 50_000.0}) is None
    assert unmarked(bot, {"BTC/USDT": 50_000.0}) == ["ETH/USDT"]
    assert equity(bot, {"ETH/USDT": 250.0}) == 10_000.0, "of what is not held no price is needed"


@pytest.mark.parametrize(("left", "worth"), [(0.03, 9_507.5), (0.05, None)])
def test_dust_of_a_pair_without_a_price_counts_at_the_price_of_its_last_order(left: float, worth: float | None) -> None:
    trade = _opened("ETH/USDT", 2.0, 240.0)
    trade.orders += [_filled("1", "buy", 2.0, 240.0), _filled("2", "sell", 2.0 - left, 250.0)]
    bot = account(pairs=("BTC/USDT", "ETH/USDT"), USDT=9_500.0, ETH=left)
    prices = {"BTC/USDT": 50_000.0}
    assert equity(bot, prices) is None, "an open trade is no dust"
    trade.is_open = False
    Trade.commit()
    assert equity(bot, prices) == worth
    assert unmarked(bot, prices) == ([] if worth else ["ETH/USDT"])


def test_dust_that_no_order_of_ours_left_needs_a_price() -> None:
    assert equity(account(pairs=("ETH/USDT",), USDT=9_500.0, ETH=1e-6), {}) is None


def test_a_position_in_a_pair_that_is_traded_no_more_counts_too() -> None:
    _opened("ETH/USDT", 2.0, 250.0)
    bot = account(pairs=("BTC/USDT",), USDT=9_500.0, ETH=2.0)
    assert equity(bot, {"BTC/USDT": 50_000.0}) is None
    assert equity(bot, {"BTC/USDT": 50_000.0, "ETH/USDT": 250.0}) == 10_000.0


def test_balances_that_were_not_read_are_no_ruin() -> None:
    assert equity(account(), {"BTC/USDT": 1.0}) is None
    assert equity(account(USDT=0.0, BTC=0.0), {"BTC/USDT": 1.0}) is None
    assert equity(account(USDT=5.0), {}) == 5.0


@pytest.mark.parametrize(("is_short", "worth"), [(False, 9_980.0), (True, 10_020.0)])
def test_a_perpetual_is_worth_its_open_profit(is_short: bool, worth: float) -> None:
    _opened(PERPETUAL, 2.0, 250.0, is_short=is_short)
    held = PositionWallet(PERPETUAL, 2.0, side="short" if is_short else "long")
    bot = account(pairs=(PERPETUAL,), mode="futures", positions=(held,), USDT=10_000.0)
    assert equity(bot, {PERPETUAL: 240.0}) == worth
    assert equity(bot, {}) is None


def test_the_loss_of_a_stop_that_filled_meanwhile_counts_once() -> None:
    _opened(PERPETUAL, 2.0, 250.0)
    bot = account(pairs=(PERPETUAL,), mode="futures", USDT=9_980.0)
    assert equity(bot, {PERPETUAL: 240.0}) == 9_980.0, "the wallet has it, and the database does not know yet"
