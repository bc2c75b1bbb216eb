"""What differs on a bot's account right now, and what becomes of it: nothing here changes anything.

The bot tells what it sees (`BotView`), the risk manager what it still holds room for, and the books that were compared
order by order (`trading.reconcile`) what they miss. Each difference names the rule that deals with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from trading.book import Reservation
from trading.reconcile import BooksDifference, OrderLine

Origin = Literal["booked", "reserved", "orphan", "stranger"]
"""Whose order rests: the bot's own, an entry's that is only reserved, an exit or stop of an earlier life, another's."""

KIND_AND_RULE: Mapping[Origin, tuple[str, str]] = {
    "reserved": ("unbooked", "the bot's next loop books it, by way of its reservation"),
    "orphan": ("orphan", "of an earlier life of the bot: its next loop cancels it"),
    "stranger": ("stranger", "left alone; every entry of the account is refused until it is gone (MISMATCH)"),
}
LOOKED_UP = "the bot's next loop asks the exchange what became of it"
REFUSED = "every entry of the account is refused until they agree (MISMATCH)"
TOLD = "the bot's next loop books its own orders and tells the journal; what then still differs is for a person"
RESTARTED = "a bot that stays away is restarted, and compares before it trades"


@dataclass(frozen=True)
class Holding:
    """What there is of a pair, in base currency, below 0 for a short position.

    Attributes:
        exchange: on the account; orders: by the bot's own orders.
        tolerance: what open orders may fill, fees and dust.
    """

    pair: str
    exchange: float
    orders: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether both say the same."""
        return abs(self.exchange - self.orders) <= self.tolerance

    @property
    def text(self) -> str:
        """Both in words."""
        return f"the exchange has {self.exchange:.8g}, the bot's orders say {self.orders:.8g}"


@dataclass(frozen=True)
class Resting:
    """An order that rests on the exchange; `amount` in base currency."""

    order_id: str
    pair: str
    side: str
    amount: float
    origin: Origin


@dataclass(frozen=True)
class BotView:
    """What a bot sees of its account at one moment.

    Attributes:
        holdings: every pair that it trades or holds and whose price it knows.
        resting: orders on the exchange; none in a dry run, whose orders exist in the database only.
        lost: open orders of its database that rest nowhere: order -> pair.
        outstanding: reservations whose outcome it is about to tell.
    """

    holdings: tuple[Holding, ...] = ()
    resting: tuple[Resting, ...] = ()
    lost: Mapping[str, str] = field(default_factory=dict)
    outstanding: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Difference:
    """Something that does not agree.

    Attributes:
        kind: "order", "holding", "unbooked", "orphan", "stranger", "lost", "reservation" or "silent".
        order: id of the order or reservation, "" for none.
        amount: by how much, in base currency.
        what: in words; rule: what becomes of it.
    """

    kind: str
    pair: str
    order: str
    amount: float
    what: str
    rule: str

    @property
    def key(self) -> tuple[str, str, str]:
        """The same difference has the same key at every look."""
        return self.kind, self.pair, self.order


@dataclass(frozen=True)
class BotReconciliation:
    """A bot's books beside one another.

    Attributes:
        books: those that were compared order by order: "bot", "journal" and, where it can be read, "exchange".
        orders, holdings, resting, reservations: how many were looked at.
    """

    bot: str
    account: str
    books: tuple[str, ...]
    orders: int
    holdings: int
    resting: int
    reservations: int
    differences: tuple[Difference, ...]

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def differences(
    view: BotView | None,
    reservations: Iterable[Reservation],
    books: BooksDifference,
    lines: Mapping[str, OrderLine],
    why: str = "",
) -> Iterator[Difference]:
    """Everything that does not agree on one account.

    Args:
        view: what its bot sees; None when it does not say, `why` in words.
        reservations: unsettled, of this account.
        books: of this account; lines: what any of the books says of an order.
    """
    for order in {**books.missing, **books.wrong}:
        yield _of_books(order, books, lines[order])
    if view is None:
        yield Difference("silent", "", "", 0.0, f"the bot does not say what it sees: {why}", RESTARTED)
        return
    for held in view.holdings:
        if not held.agrees:
            yield Difference("holding", held.pair, "", held.exchange - held.orders, held.text, REFUSED)
    for rests in view.resting:
        if rests.origin != "booked":
            kind, rule = KIND_AND_RULE[rests.origin]
            what = f"{rests.side} {rests.amount:.8g} rests on the exchange, and the bot's database lacks it"
            yield Difference(kind, rests.pair, rests.order_id, rests.amount, what, rule)
    for order, pair in view.lost.items():
        yield Difference("lost", pair, order, 0.0, "open in the bot's database, and rests nowhere", LOOKED_UP)
    for room in reservations:
        if room.reservation_id not in view.outstanding:
            what = f"room is held for {room.side} {room.amount:.8g}, of which the bot does not know"
            yield Difference("reservation", room.pair, room.reservation_id, room.amount, what, LOOKED_UP)


def lasting(before: BotReconciliation, now: BotReconciliation) -> BotReconciliation:
    """What differs at both of two looks: a loop in between has one book written before the other."""
    known = {each.key for each in before.differences}
    kept = tuple(each for each in now.differences if each.key in known)
    return replace(now, differences=kept)


def _of_books(order: str, books: BooksDifference, line: OrderLine) -> Difference:
    absent = books.missing.get(order)
    what = books.wrong.get(order) or f"{line.side} {line.filled:.8g} for {line.cost:.8g}"
    if absent:
        what += f" is not in the book of the {' and the '.join(absent)}"
    return Difference("order", line.pair, order, line.filled, what, TOLD)
