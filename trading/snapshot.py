"""The book as text, so that a restart replays only what came after it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from observability.errors import JournalError, OrderError
from trading.book import AccountView, Book, Reservation
from trading.events import AccountReport
from trading.lease import Lease
from trading.market import MarketRisk, MarkStat
from trading.orders import Reader, to_plain
from trading.recent import Order, RecentOrders
from trading.state import Latch

VERSION = 2  # raised with every change of what a book holds; an older snapshot is passed over


def book_to_text(book: Book) -> str:
    """The whole book as JSON; `book_from_text` gives an equal one."""
    plain = {name: to_plain(getattr(book, name)) for name in ("latch", "accounts", "reservations", "leases")}
    plain |= {name: to_plain(getattr(book, name)) for name in ("command", "market", "marks", "peak_total")}
    plain["recent"] = to_plain(list(book.recent))
    return json.dumps({"version": VERSION, **plain}, separators=(",", ":"), allow_nan=False)


def book_from_text(text: str) -> Book:
    """Read `book_to_text` back.

    Raises:
        JournalError: not a book of this version.
    """
    try:
        data = json.loads(text)
        if data["version"] != VERSION:
            raise JournalError(f"a snapshot of version {data['version']}", todo="replay the journal")
        return Book(
            latch=Latch.from_dict(data["latch"]),
            accounts={name: _view(row) for name, row in data["accounts"].items()},
            reservations={key: _reservation(row) for key, row in data["reservations"].items()},
            leases={name: Lease.from_dict(row) for name, row in data["leases"].items()},
            recent=RecentOrders(Order(**row) for row in data["recent"]),
            command=str(data["command"]),
            market=MarketRisk.from_dict(data["market"]),
            marks={pair: _stat(row) for pair, row in data["marks"].items()},
            peak_total=float(data["peak_total"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OrderError) as error:
        raise JournalError(f"a snapshot cannot be understood: {error}", todo="replay the journal") from error


def _view(row: Mapping[str, Any]) -> AccountView:
    read = Reader(row, "account")
    return AccountView(
        AccountReport.from_dict(row["report"]),
        read.number("peak_equity"),
        read.whole("day"),
        read.number("day_start_equity"),
        read.whole("losses_in_a_row"),
        tuple(str(order) for order in row["closed"]),
        read.number("start_equity"),
        read.whole("mismatches"),
        read.flag("rebasing"),
    )


def _reservation(row: Mapping[str, Any]) -> Reservation:
    numbers = {name: float(row[name]) for name in ("amount", "price")}
    return Reservation(**{**row, **numbers})


def _stat(row: Mapping[str, Any]) -> MarkStat:
    read = Reader(row, "mark")
    at_ms, mark, samples = read.whole("at_ms"), read.number("mark"), read.whole("samples")
    return MarkStat(at_ms, mark, read.number("fast"), read.number("slow"), samples)
