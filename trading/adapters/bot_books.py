"""Reads a bot's database past Freqtrade, whose session belongs to the bot's own thread."""

from __future__ import annotations

from dataclasses import dataclass

from trading.adapters.bot_database import Database, reading
from trading.reconcile import OrderLine


@dataclass(frozen=True)
class TradeCounts:
    """What a bot's database says in short."""

    open_pairs: tuple[str, ...]
    closed: int
    orders: int
    profit: float


def read_trades(database: Database) -> TradeCounts:
    """Count a bot's trades past Freqtrade, whose session belongs to its own thread; zeros without a database.

    Raises:
        TradingError: the database cannot be read.
    """
    with reading(database) as ask:
        pairs = ask("SELECT pair FROM trades WHERE is_open ORDER BY id")
        closed = ask(
            "SELECT COUNT(*) AS count, COALESCE(SUM(realized_profit), 0) AS profit FROM trades WHERE NOT is_open"
        )
        orders = ask("SELECT COUNT(*) AS count FROM orders WHERE filled > 0")
    if not (closed and orders):
        return TradeCounts((), 0, 0, 0.0)
    count, profit = int(closed[0]["count"]), float(closed[0]["profit"])
    return TradeCounts(tuple(row["pair"] for row in pairs), count, int(orders[0]["count"]), profit)


def read_book(database: Database) -> dict[str, OrderLine]:
    """The bot's book: what every order in its database filled; empty while there is no database.

    Raises:
        TradingError: the database cannot be read.
    """
    text = "SELECT order_id, ft_pair, side, filled, cost, average, price FROM orders WHERE filled > 0"
    with reading(database) as ask:
        rows = ask(text)
    return {
        str(row["order_id"]): OrderLine(
            row["ft_pair"],
            row["side"],
            row["filled"],
            row["cost"] or row["filled"] * (row["average"] or row["price"] or 0.0),
        )
        for row in rows
    }
