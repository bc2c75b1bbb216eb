"""What the risk manager knows, as one frozen value; `apply` is the only way it changes, live and on replay alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from trading.events import (
    AccountReport,
    Decided,
    Estimated,
    Event,
    Fill,
    LeaseChanged,
    Position,
    Reported,
    Settled,
    StateChanged,
)
from trading.lease import Lease
from trading.market import NO_MARKET, MarketRisk, MarkStat, seen
from trading.orders import Approved, Side
from trading.recent import Order, RecentOrders
from trading.state import Latch

__all__ = ["DAY_MS", "AccountView", "Book", "Position", "Reservation", "apply", "replay"]

DAY_MS = 86_400_000
MEMORY_MS = DAY_MS  # how long approved entries are remembered for the rules on rate and duplicates

CLOSED_REMEMBERED = 200  # a restarted bot may report its last closing orders again


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account's latest report with what was learnt from the ones before it.

    Attributes:
        peak_equity: highest equity seen since the last rebase; drawdown counts from it.
        day: UTC day number of the report; day_start_equity: last equity known before that day began.
        losses_in_a_row: closed trades that lost, since the last one that won; counted once for each order in `closed`.
        start_equity: equity at the first report, or at the last rebase.
        mismatches: reports in a row whose books disagree.
        rebasing: a person had everything counted anew, which begins with the next report: what changed since the last
            one (money taken out or put in while no bot ran) is neither a loss nor a gain.
    """

    report: AccountReport
    peak_equity: float
    day: int
    day_start_equity: float
    losses_in_a_row: int = 0
    closed: tuple[str, ...] = ()
    start_equity: float = 0.0
    mismatches: int = 0
    rebasing: bool = False

    @property
    def drawdown(self) -> float:
        """Loss from the peak, open losses included, as a fraction of the peak."""
        return 0.0 if self.peak_equity <= 0 else 1.0 - self.report.equity / self.peak_equity

    @property
    def daily_loss(self) -> float:
        """Loss since the UTC day began, as a fraction of the equity then; negative on a day of gains."""
        return 0.0 if self.day_start_equity <= 0 else 1.0 - self.report.equity / self.day_start_equity


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room held for an approved entry: until it is settled, and what it filled until a later report shows it."""

    reservation_id: str
    bot: str
    account: str
    pair: str
    side: Side
    amount: float
    price: float
    created_ms: int
    settled_ms: int | None = None

    @property
    def notional(self) -> float:
        """Worth in quote currency."""
        return self.amount * self.price


@dataclass(frozen=True)
class Book:
    """State of the system, every account's view, reservations, leases and recently approved entries.

    Attributes:
        command: id of the newest command of the kill switch that was obeyed.
        market: estimated from stored candles; marks: the run of reported marks, by pair.
        peak_total: highest equity of all accounts together since the last rebase.
    """

    latch: Latch = field(default_factory=Latch)
    accounts: Mapping[str, AccountView] = field(default_factory=dict)
    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    leases: Mapping[str, Lease] = field(default_factory=dict)
    recent: RecentOrders = field(default_factory=RecentOrders)
    command: str = ""
    market: MarketRisk = NO_MARKET
    marks: Mapping[str, MarkStat] = field(default_factory=dict)
    peak_total: float = 0.0

    @property
    def total(self) -> float:
        """Equity of all accounts together."""
        return sum(view.report.equity for view in self.accounts.values())

    @property
    def lost(self) -> float:
        """Loss of all accounts together from their peak, as a fraction of it."""
        return 0.0 if self.peak_total <= 0 else 1.0 - self.total / self.peak_total

    @property
    def gained(self) -> float:
        """Gain of all accounts together since they started, as a fraction; negative for a loss."""
        start = sum(view.start_equity for view in self.accounts.values())
        return 0.0 if start <= 0 else self.total / start - 1.0

    def exposures(self, account: str) -> dict[str, float]:
        """Notional by pair of one account: positions at their marks plus everything reserved."""
        view = self.accounts.get(account)
        result = {position.pair: position.notional for position in view.report.positions} if view else {}
        for held in self.reservations.values():
            if held.account == account:
                result[held.pair] = result.get(held.pair, 0.0) + held.notional
        return {pair: notional for pair, notional in result.items() if notional > 0}

    def unsettled(self, account: str | None = None) -> tuple[Reservation, ...]:
        """Reservations whose outcome is unknown, oldest first."""
        return tuple(
            held for held in self.reservations.values() if held.settled_ms is None and account in (None, held.account)
        )

    def books_agree(self, expected: Iterable[str], since_ms: int) -> bool:
        """Whether every expected account (at least one) has reported since then and sees no mismatch."""
        views = [self.accounts.get(account) for account in expected]
        return bool(views) and all(
            view is not None and view.report.as_of_ms >= since_ms and not view.report.mismatch for view in views
        )


def apply(book: Book, event: Event) -> Book:  # noqa: PLR0911 - one return a kind of event
    """The book after `event`; the book given stays as it is."""
    match event:
        case Decided():
            return _decided(book, event)
        case Settled():
            return _settled(book, event)
        case StateChanged():
            book = replace(book, latch=event.latch, command=event.command or book.command)
            return _rebased(book) if event.rebase else book
        case LeaseChanged():
            return replace(book, leases={**book.leases, event.lease.account: event.lease})
        case Reported():
            return _reported(book, event.report)
        case Fill():
            return _filled(book, event)
        case Estimated():
            return replace(book, market=event.market)
        case _:
            return book


def replay(events: Iterable[Event], book: Book | None = None) -> Book:
    """The book after all `events`, from a fresh one unless given."""
    result = Book() if book is None else book
    for event in events:
        result = apply(result, event)
    return result


def _decided(book: Book, event: Decided) -> Book:
    intent, decision = event.intent, event.decision
    if not isinstance(decision, Approved) or not decision.reservation_id:
        return book
    held = Reservation(
        decision.reservation_id,
        intent.bot,
        intent.account,
        intent.pair,
        intent.side,
        decision.amount,
        decision.price,
        event.at_ms,
    )
    # never out of order, also where a clock was set back
    order = Order(intent.intent_id, intent.account, intent.pair, max(event.at_ms, book.recent.last_ms()))
    reservations = {**book.reservations, held.reservation_id: held}
    return replace(book, reservations=reservations, recent=book.recent.adding(order, event.at_ms - MEMORY_MS))


def _settled(book: Book, event: Settled) -> Book:
    held = book.reservations.get(event.reservation_id)
    if held is None or held.settled_ms is not None:
        return book
    others = {key: value for key, value in book.reservations.items() if key != event.reservation_id}
    if event.filled > 0:  # what was bought counts from here, although no report shows it yet
        price = event.price if event.price > 0 else held.price
        others[event.reservation_id] = replace(held, amount=event.filled, price=price, settled_ms=event.at_ms)
    return replace(book, reservations=others)


def _reported(book: Book, report: AccountReport) -> Book:
    before = book.accounts.get(report.account)
    if before is not None and report.as_of_ms < before.report.as_of_ms:
        return book  # overtaken on its way
    # strictly later: with a virtual clock a report of the same millisecond may have been made before the fill
    shown = {
        key: held
        for key, held in book.reservations.items()
        if held.account != report.account or held.settled_ms is None or held.settled_ms >= report.as_of_ms
    }
    change = report.equity - (0.0 if before is None else before.report.equity)
    # what an account brings that joins, or that is counted anew, moves the peak as well: it is no gain, and no loss
    counts = before is not None and not before.rebasing
    peak = max(book.peak_total + (0.0 if counts else change), book.total + change)
    return replace(
        book,
        accounts={**book.accounts, report.account: _viewed(before, report)},
        reservations=shown,
        marks=seen(book.marks, report.marks, report.as_of_ms),
        peak_total=peak,
    )


def _viewed(before: AccountView | None, report: AccountReport) -> AccountView:
    day = report.as_of_ms // DAY_MS
    if before is None:
        return AccountView(report, report.equity, day, report.equity, 0, (), report.equity, int(report.mismatch))
    if before.rebasing:
        before = _counted_from(before, report.equity)
    return replace(
        before,
        report=report,
        mismatches=before.mismatches + 1 if report.mismatch else 0,
        peak_equity=max(before.peak_equity, report.equity),
        day=day,
        day_start_equity=before.day_start_equity if day == before.day or before.rebasing else before.report.equity,
        rebasing=False,
    )


def _filled(book: Book, fill: Fill) -> Book:
    view = book.accounts.get(fill.account)
    if view is None or fill.profit is None or fill.order_id in view.closed:
        return book
    streak = view.losses_in_a_row + 1 if fill.profit < 0 else 0
    view = replace(view, losses_in_a_row=streak, closed=(*view.closed, fill.order_id)[-CLOSED_REMEMBERED:])
    return replace(book, accounts={**book.accounts, fill.account: view})


def _rebased(book: Book) -> Book:
    accounts = {
        name: replace(_counted_from(view, view.report.equity), losses_in_a_row=0, rebasing=True)
        for name, view in book.accounts.items()
    }
    return replace(book, accounts=accounts, peak_total=book.total)


def _counted_from(view: AccountView, equity: float) -> AccountView:
    """With every loss and gain counted from here."""
    return replace(view, peak_equity=equity, day_start_equity=equity, start_equity=equity)
