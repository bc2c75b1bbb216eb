"""Every bot's books beside one another right now: its database, the journal, the exchange, the risk manager's room."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from observability.errors import ExchangeError, GateError, MtstError
from trading.adapters.bot_actors import CALL_S
from trading.adapters.bot_spec import BotSpec
from trading.adapters.fleet import Fleet
from trading.adapters.fleet_books import ledger_lines
from trading.adapters.postgres_journal import open_journal
from trading.adapters.sandbox.client import SandboxClient
from trading.book import Reservation
from trading.journal import Entry
from trading.reconcile import OrderLine, compare_books, journal_lines
from trading.reconciliation import BotReconciliation, BotView, differences, lasting

LOOKS = 4
APART_S = 1.0  # a loop is shorter; what differs for longer was not only caught in the middle of one
TOLERANCE = 1e-8  # costs are kept as amount times price in one book and as a sum of fills in another


@dataclass(frozen=True)
class _Answer:
    """What a bot told: its book and its view, each None where it did not, and then why."""

    book: Mapping[str, OrderLine] | None
    view: BotView | None
    why: str = ""


def reconcile(fleet: Fleet) -> tuple[BotReconciliation, ...]:
    """Compare every account; what differs is looked at again, and told only when it lasts.

    Changes nothing. A bot that sees an order which its reconciler deals with has that look for it in its next loop.

    Raises:
        GateError: the risk manager does not answer. JournalError: the journal cannot be read.
    """
    found = tuple(look(fleet))
    for _ in range(LOOKS - 1):
        if all(each.agrees for each in found):
            break
        time.sleep(APART_S)
        found = tuple(lasting(before, now) for before, now in zip(found, look(fleet), strict=True))
    return found


def look(fleet: Fleet) -> Iterator[BotReconciliation]:
    """Compare every account once; raises as `reconcile`."""
    import ray

    # The bots first: what they write meanwhile is then missing in no later book.
    asked = {name: (handle.book.remote(), handle.view.remote()) for name, handle in fleet.handles.items()}
    answers = {name: _answer(*references) for name, references in asked.items()}
    with closing(open_journal(fleet.config.journal, fleet.config.journal_dsn, read_only=True)) as journal:
        fills = list(journal.read("fill"))
    try:
        rooms = ray.get(fleet.risk.reservations.remote(), timeout=CALL_S)
    except ray.exceptions.RayError as error:
        raise GateError("the risk manager does not answer", where=type(error).__name__, todo="trade status") from error
    ledgers = {url: _ledger(url) for url in {spec.url for spec in fleet.bots.values() if spec.url}}
    for name, spec in fleet.bots.items():
        room = [each for each in rooms if each.account == spec.account]
        yield _compared(spec, answers[name], fills, ledgers.get(spec.url), room)


def _answer(book: Any, view: Any) -> _Answer:
    """A bot's book and view; what it does not tell is None."""
    import ray

    lines = None
    try:
        lines = ray.get(book, timeout=CALL_S)
        return _Answer(lines, ray.get(view, timeout=CALL_S))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        return _Answer(lines, None, str(cause) if isinstance(cause, MtstError) else type(error).__name__)


def _ledger(url: str) -> Mapping[str, Any] | None:
    with closing(SandboxClient(url)) as client:
        try:
            return client.ledger()
        except ExchangeError:
            return None


def _compared(
    spec: BotSpec,
    answer: _Answer,
    fills: Sequence[Entry],
    ledger: Mapping[str, Any] | None,
    room: Sequence[Reservation],
) -> BotReconciliation:
    view, told = answer.view, journal_lines(fills, spec.account)
    exchange = None if ledger is None else ledger_lines(ledger, spec.account, futures=spec.futures)
    compared = compare_books(answer.book, told, exchange, TOLERANCE)
    books = {"bot": answer.book, "journal": told, "exchange": exchange}
    lines = {order: line for book in books.values() for order, line in (book or {}).items()}
    return BotReconciliation(
        spec.name,
        spec.account,
        tuple(name for name, book in books.items() if book is not None),
        compared.orders,
        len(view.holdings) if view else 0,
        len(view.resting) if view else 0,
        len(room),
        tuple(differences(view, room, compared, lines, answer.why)),
    )
