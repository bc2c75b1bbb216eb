"""The three books of every bot beside one another: its database, the journal, the exchange's ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trading.adapters.bot_books import read_book
from trading.adapters.bot_spec import BotSpec
from trading.journal import Entry
from trading.reconcile import BooksDifference, OrderLine, compare_books, journal_lines


@dataclass(frozen=True)
class FleetBooks:
    """Three books of every bot compared: its database, the journal, the exchange's ledger."""

    by_bot: Mapping[str, BooksDifference] = field(default_factory=dict)
    conserved: bool = True

    @property
    def difference(self) -> float:
        """Sum of absolute differences in cost (quote currency); orders missing somewhere count wholly."""
        return sum(item.cost for item in self.by_bot.values())

    @property
    def agree(self) -> bool:
        """Whether every order is in all three books with the same amounts."""
        return self.conserved and all(item.agree for item in self.by_bot.values())

    @property
    def orders(self) -> int:
        """How many orders were compared."""
        return sum(item.orders for item in self.by_bot.values())


def fleet_books(
    bots: Iterable[BotSpec], fills: Sequence[Entry], ledgers: Mapping[str, Mapping[str, Any]]
) -> FleetBooks:
    """Compare every bot's database with the journal's `fills` and its exchange's ledger, by the exchange's address."""
    compared = {
        spec.name: compare_books(
            read_book(spec.database),
            journal_lines(fills, spec.account),
            ledger_lines(ledgers[spec.url], spec.account, futures=spec.futures),
        )
        for spec in bots
    }
    return FleetBooks(compared, all(ledger["conserved"] for ledger in ledgers.values()))


def ledger_lines(ledger: Mapping[str, Any], account: str, *, futures: bool = False) -> dict[str, OrderLine]:
    """The exchange's book of one account, of its spot wallet or of its perpetuals."""
    wallet = "futures" if futures else "accounts"
    orders: Sequence[Mapping[str, Any]] = ledger[wallet].get(account, {}).get("orders", ())
    return {
        str(order["order_id"]): OrderLine(order["pair"], order["side"], float(order["filled"]), float(order["cost"]))
        for order in orders
    }
