"""Reads one bot's account: Freqtrade's wallets beside its database, on spot and on perpetuals alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from freqtrade.persistence import Order, Trade
from sqlalchemy import case, func, select

from trading.adapters.venue_kind import is_spot
from trading.events import Position
from trading.reconciliation import Holding

DUST = 10.0  # quote currency; less cannot be traded and is left over by rounding to lots
SLACK = 0.01  # of a position: fees taken in the base currency


def equity(bot: Any, marks: Mapping[str, float]) -> float | None:
    """Worth of the account at `marks`, in stake currency: its coins, or the open profit of its perpetuals.

    None where that cannot be said, as a part of the account would look like a loss: `marks` lack a pair of which it
    holds anything but dust, or it seems to hold nothing at all, as one whose balances were not read does.
    """
    marks, unpriced = _priced(bot, marks)
    if unpriced or not any(wallet.total for wallet in bot.wallets.get_all_balances().values()):
        return None
    total = float(bot.wallets.get_total(bot.config["stake_currency"]))
    if is_spot(bot.exchange):
        return total + sum(owned(bot, pair) * mark for pair, mark in marks.items())
    return total + float(sum(_open_profit(bot, trade, marks[trade.pair]) for trade in _open_positions()))


def unmarked(bot: Any, marks: Mapping[str, float]) -> list[str]:
    """Pairs of which the account holds anything but dust, and whose price is not among `marks`."""
    return sorted(_priced(bot, marks)[1])


def held(bot: Any, pairs: Iterable[str]) -> set[str]:
    """Pairs with an open position, and those of `pairs` of which the account holds anything else."""
    return {trade.pair for trade in _open_positions()} | {pair for pair in pairs if owned(bot, pair)}


def owned(bot: Any, pair: str) -> float:
    """What the exchange says that the account has of a pair, in base currency; negative for a short position."""
    if is_spot(bot.exchange):
        return float(bot.wallets.get_total(bot.exchange.get_pair_base_currency(pair)))
    position = bot.wallets.get_all_positions().get(pair)
    return 0.0 if position is None else float(position.position) * (-1.0 if position.side == "short" else 1.0)


def positions(bot: Any, marks: Mapping[str, float]) -> tuple[Position, ...]:
    """Every open trade with a known mark."""
    return tuple(
        Position(
            trade.pair,
            "short" if trade.is_short else "long",
            trade.amount,
            trade.open_rate,
            marks[trade.pair],
            (trade.stop_loss or None) if protected(bot, trade) else None,
        )
        for trade in _open_positions()
        if trade.pair in marks
    )


def compared(bot: Any, marks: Mapping[str, float]) -> list[Holding]:
    """What the exchange has of every pair beside what the bot's orders explain."""
    expected, pending, found = net_bought(), _pending(), []
    for pair, mark in marks.items():
        want = expected.get(pair, 0.0)
        tolerance = pending.get(pair, 0.0) + max(DUST / mark, SLACK * abs(want))
        found.append(Holding(pair, owned(bot, pair), want, tolerance))
    return found


def differences(bot: Any, marks: Mapping[str, float]) -> list[str]:
    """Where the exchange has more or less than the bot's orders explain, in words."""
    return [f"{held.pair}: {held.text}" for held in compared(bot, marks) if not held.agrees]


def resting() -> int:
    """How many orders of the database rest on the exchange."""
    return sum(len(trade.open_orders) for trade in Trade.get_open_trades())


def protected(bot: Any, trade: Any) -> bool:
    """Whether the trade's stop rests on the exchange; a dry run's orders, and its stops, are watched by the loop."""
    on_exchange = bot.strategy.order_types.get("stoploss_on_exchange") and not bot.config["dry_run"]
    return not on_exchange or trade.has_open_sl_orders


def net_bought() -> dict[str, float]:
    """What the bot's filled orders left on the account, by pair, in base currency: bought less fees less sold.

    Summed over all orders, not over open trades: a sale is cut to whole lots, and what each leaves behind adds up.
    """
    fee = func.coalesce(Order.ft_fee_base, 0.0)
    amount = case((Order.side == "buy", Order.filled - fee), else_=-Order.filled - fee)
    rows = Order.session.execute(
        select(Order.ft_pair, func.sum(amount)).where(Order.filled > 0).group_by(Order.ft_pair)
    )
    return {str(pair): float(left) for pair, left in rows}


def _priced(bot: Any, marks: Mapping[str, float]) -> tuple[dict[str, float], set[str]]:
    """`marks`, and the price of its last order for each pair without one of which only dust is left; and what has none.

    What was dust at that price can be worth little more now; without it a pair that is traded no more would hold the
    account's worth unknown, and with that every entry, for as little as that.
    """
    known, unpriced = dict(marks), held(bot, bot.active_pair_whitelist) - set(marks)
    for pair in unpriced - {trade.pair for trade in _open_positions()}:
        last = Order.session.scalar(
            select(Order.average).where(Order.ft_pair == pair, Order.filled > 0).order_by(Order.id.desc()).limit(1)
        )
        if last and abs(owned(bot, pair)) * last < DUST:
            known[pair] = float(last)
    return known, unpriced - set(known)


def _pending() -> dict[str, float]:
    """What open orders may still fill, by pair."""
    found: dict[str, float] = {}
    for trade in Trade.get_open_trades():
        for order in trade.open_orders:
            found[trade.pair] = found.get(trade.pair, 0.0) + order.safe_remaining
    return found


def _open_positions() -> list[Any]:
    return [trade for trade in Trade.get_open_trades() if trade.amount > 0]


def _open_profit(bot: Any, trade: Any, mark: float) -> float:
    """Of what the exchange still has of a position: the profit of a stop that filled meanwhile is in the wallet."""
    amount = min(trade.amount, abs(owned(bot, trade.pair)))
    return float(amount * (mark - trade.open_rate) * (-1.0 if trade.is_short else 1.0))
