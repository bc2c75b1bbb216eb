"""The three books of every bot beside one another: its database, the journal, the exchange's ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trading.reconcile import BooksDifference, OrderLine


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


def ledger_lines(ledger: Mapping[str, Any], account: str, *, futures: bool = False) -> dict[str, OrderLine]:
    """The exchange's book of one account, of its spot wallet or of its perpetuals."""
    wallet = "futures" if futures else "accounts"
    orders: Sequence[Mapping[str, Any]] = ledger[wallet].get(account, {}).get("orders", ())
    return {
        str(order["order_id"]): OrderLine(order["pair"], order["side"], float(order["filled"]), float(order["cost"]))
        for order in orders
    }
