"""What a bot shall do now, and at which equity it shall close everything by itself should nobody answer any more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trading.book import Book
from trading.limits import RiskLimits
from trading.orders import Reader, to_plain
from trading.state import TradingState


@dataclass(frozen=True, slots=True)
class Directive:
    """The risk manager's answer to a report; kept by the bot, over restarts too.

    Attributes:
        state: whether entries may be tried at all.
        flatten: close every position.
        floor, ceiling: this account's share of the portfolio's stop and of its target, in quote currency. While the
            risk manager is away, an equity at or beyond them has the bot close everything by itself.
    """

    state: TradingState
    flatten: bool
    reason: str
    floor: float = 0.0
    ceiling: float = math.inf

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return dict(to_plain(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Directive:
        """Read `to_dict` back; raises OrderError."""
        read = Reader(data, "directive")
        state = TradingState(read.one_of("state", tuple(TradingState)))
        return cls(state, read.flag("flatten"), read.text("reason"), read.number("floor"), read.number("ceiling"))

    def beyond(self, equity: float) -> str:
        """Why an account of this equity closes everything by itself; "" while it is between its bounds."""
        if equity <= self.floor:
            return f"equity {equity:.2f} is at or below the account's share {self.floor:.2f} of the portfolio's stop"
        if equity >= self.ceiling:
            return f"equity {equity:.2f} has reached the account's share {self.ceiling:.2f} of the portfolio's target"
        return ""


def directive_of(book: Book, limits: RiskLimits, account: str | None = None) -> Directive:
    """The directive for one account, or for nobody in particular.

    Shares are by equity: when every account stays above its floor, the portfolio stays above its own.
    """
    latch, view, total = book.latch, book.accounts.get(account or ""), book.total
    if view is None or total <= 0:
        return Directive(latch.state, latch.flatten, latch.reason)
    share = view.report.equity / total
    start = sum(each.start_equity for each in book.accounts.values())
    floor = share * min(total, book.peak_total * (1.0 - limits.portfolio_stop))
    return Directive(latch.state, latch.flatten, latch.reason, floor, share * start * (1.0 + limits.portfolio_take))
