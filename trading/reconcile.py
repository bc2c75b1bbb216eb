"""Do three books tell the same story? Bot, journal and exchange, order by order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from trading.journal import Entry


class OrderLine(NamedTuple):
    """What a book says of one order: filled in base currency, cost in quote currency without fees."""

    pair: str
    side: str
    filled: float
    cost: float


Lines: TypeAlias = Mapping[str, tuple[str, str, float, float]]


@dataclass(frozen=True, slots=True)
class BooksDifference:
    """Where books disagree. Orders that filled nothing appear in no book.

    Attributes:
        missing: order -> names of the books that lack it.
        wrong: order -> what differs, in words.
        filled, cost: summed absolute differences (largest minus smallest book), in base and quote currency.
        orders: how many orders were compared.
    """

    missing: Mapping[str, tuple[str, ...]]
    wrong: Mapping[str, str]
    filled: float
    cost: float
    orders: int

    @property
    def agree(self) -> bool:
        """Whether nothing is missing or wrong."""
        return not self.missing and not self.wrong

    @property
    def text(self) -> str:
        """The verdict in a sentence."""
        if self.agree:
            return f"{self.orders} orders agree in every book"
        first = next(iter([*self.missing, *self.wrong]))
        return (
            f"{len(self.missing)} of {self.orders} orders are missing somewhere and {len(self.wrong)} differ"
            f" (filled {self.filled:.8g}, cost {self.cost:.8g}), first {first}"
        )


def compare_books(
    bot: Lines | None, journal: Lines, exchange: Lines | None, tolerance: float = 1e-9
) -> BooksDifference:
    """Compare three books, each order_id -> (pair, side, filled, cost); None for one that cannot be read.

    Args:
        tolerance: allowed difference relative to the largest value, for what floating point costs.
    """
    given = {"bot": bot, "journal": journal, "exchange": exchange}
    books = {name: _filled(book) for name, book in given.items() if book is not None}
    ids = sorted(set().union(*books.values()))
    missing: dict[str, tuple[str, ...]] = {}
    wrong: dict[str, str] = {}
    filled = cost = 0.0
    for order_id in ids:
        lines = {name: book[order_id] for name, book in books.items() if order_id in book}
        absent = tuple(name for name in books if name not in lines)
        if absent:
            missing[order_id] = absent
        fills = [line.filled for line in lines.values()] + [0.0] * bool(absent)
        costs = [line.cost for line in lines.values()] + [0.0] * bool(absent)
        filled += _spread(fills)
        cost += _spread(costs)
        text = _differs(lines, tolerance)
        if text:
            wrong[order_id] = text
    return BooksDifference(missing, wrong, filled, cost, len(ids))


def journal_lines(entries: Iterable[Entry], account: str | None = None) -> dict[str, OrderLine]:
    """The journal's book: the newest fill of every order, of one account or of all."""
    return {
        str(entry.payload["order_id"]): OrderLine(
            str(entry.payload["pair"]),
            str(entry.payload["side"]),
            float(entry.payload["amount"]),
            float(entry.payload["amount"]) * float(entry.payload["price"]),
        )
        for entry in entries
        if entry.kind == "fill" and account in (None, entry.payload["account"])
    }


def _filled(book: Lines) -> dict[str, OrderLine]:
    return {order_id: OrderLine(*line) for order_id, line in book.items() if line[2] != 0}


def _spread(values: list[float]) -> float:
    """Largest minus smallest; infinite when a value is not finite, which agrees with nothing."""
    return max(values) - min(values) if all(math.isfinite(value) for value in values) else math.inf


def _differs(lines: Mapping[str, OrderLine], tolerance: float) -> str:
    values = list(lines.values())
    same_text = all((line.pair, line.side) == (values[0].pair, values[0].side) for line in values)
    close = all(
        _spread(column) <= tolerance * max(abs(number) for number in column)
        for column in ([line.filled for line in values], [line.cost for line in values])
    )
    if same_text and close:
        return ""
    return "; ".join(
        f"{name}: {line.side} {line.filled:.8g} {line.pair} for {line.cost:.8g}" for name, line in lines.items()
    )
