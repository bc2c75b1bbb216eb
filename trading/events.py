"""Everything that can happen to the book, and how it is written to and read from the journal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from observability.errors import JournalError, OrderError
from trading.journal import Entry
from trading.lease import Lease
from trading.market import MarketRisk
from trading.orders import Decision, OrderIntent, Reader, decision_from_dict, to_plain
from trading.state import Latch

Outcome: TypeAlias = Literal["filled", "partial", "cancelled", "rejected"]
OUTCOMES: tuple[Outcome, ...] = ("filled", "partial", "cancelled", "rejected")


@dataclass(frozen=True, slots=True)
class Position:
    """An open position. amount >= 0 in base currency; entry and mark in quote; stop None when nothing protects it."""

    pair: str
    side: Literal["long", "short"]
    amount: float
    entry: float
    mark: float
    stop: float | None = None

    @property
    def notional(self) -> float:
        """Worth at the mark price, in quote currency."""
        return self.amount * self.mark


@dataclass(frozen=True, slots=True)
class AccountReport:
    """What a bot sees on its account at `as_of_ms`; replaces the report before it.

    Attributes:
        lease_epoch: epoch under which the bot reports; an older one is not believed.
        equity: free and locked money plus positions at their marks, open losses included, in quote currency.
        free: money that can still be spent.
        marks: latest price of every pair that the bot may enter; entries are collared around it.
        mismatch: the bot's database and the exchange disagree (`mismatch_text` says how).
        open_orders: orders resting on the exchange.
        error_rate: failed ones among the bot's latest calls to the exchange, as a fraction.
        stopped: the bot closed everything by itself, since the risk manager was away (`Directive.floor`); why.
    """

    account: str
    bot: str
    lease_epoch: int
    as_of_ms: int
    equity: float
    free: float
    positions: tuple[Position, ...] = ()
    marks: Mapping[str, float] = field(default_factory=dict)
    mismatch: bool = False
    mismatch_text: str = ""
    open_orders: int = 0
    error_rate: float = 0.0
    stopped: str = ""

    def check(self) -> AccountReport:
        """This report if its numbers make sense; raises OrderError, and the account goes stale instead of wrong."""
        numbers = [self.equity, self.free, self.error_rate, *self.marks.values()]
        for position in self.positions:
            numbers += [position.amount, position.entry, position.mark, 0.0 if position.stop is None else position.stop]
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise OrderError(
                "a report holds a negative or non-finite number", where=self.account, todo="report real balances"
            )
        if not all(mark > 0 for mark in [*self.marks.values(), *(position.mark for position in self.positions)]):
            raise OrderError("a report holds a price of zero", where=self.account, todo="leave unknown pairs out")
        pairs = [position.pair for position in self.positions]
        if len(set(pairs)) != len(pairs):
            raise OrderError("a report names a pair twice", where=self.account, todo="sum the positions of a pair")
        return self

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return dict(to_plain(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AccountReport:
        """Read `to_dict` back; raises OrderError."""
        read = Reader(data, "account report")
        return cls(
            account=read.text("account"),
            bot=read.text("bot"),
            lease_epoch=read.whole("lease_epoch"),
            as_of_ms=read.whole("as_of_ms"),
            equity=read.number("equity"),
            free=read.number("free"),
            positions=tuple(_position(row) for row in read.rows("positions")),
            marks={pair: float(mark) for pair, mark in read.table("marks").items()},
            mismatch=read.flag("mismatch"),
            mismatch_text=read.text("mismatch_text", ""),
            open_orders=read.whole("open_orders", 0),
            error_rate=read.maybe_number("error_rate") or 0.0,
            stopped=read.text("stopped", ""),
        )


@dataclass(frozen=True, slots=True)
class Fill:
    """What an order has filled so far; a later fill of the same order_id replaces the earlier one.

    Attributes:
        amount: filled so far, base currency; price: average price of it; fee: in quote currency.
        profit: realised profit net of fees in quote currency, once the order has closed a position; else None.
    """

    account: str
    bot: str
    order_id: str
    pair: str
    side: Literal["buy", "sell"]
    amount: float
    price: float
    at_ms: int
    fee: float = 0.0
    profit: float | None = None
    intent_id: str = ""

    @property
    def cost(self) -> float:
        """Worth of the fill before fees."""
        return self.amount * self.price

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return dict(to_plain(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Fill:
        """Read `to_dict` back; raises OrderError."""
        read = Reader(data, "fill")
        return cls(
            account=read.text("account"),
            bot=read.text("bot"),
            order_id=read.text("order_id"),
            pair=read.text("pair"),
            side="buy" if read.one_of("side", ("buy", "sell")) == "buy" else "sell",
            amount=read.number("amount"),
            price=read.number("price"),
            at_ms=read.whole("at_ms"),
            fee=read.number("fee"),
            profit=read.maybe_number("profit"),
            intent_id=read.text("intent_id", ""),
        )


@dataclass(frozen=True, slots=True)
class Decided:
    """The risk manager answered an intent."""

    intent: OrderIntent
    decision: Decision
    at_ms: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of an approved order is known; frees its reservation. filled in base currency."""

    reservation_id: str
    outcome: Outcome
    filled: float
    price: float
    at_ms: int


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The latch moved. `rebase`: drawdown, daily loss and losing streaks count anew from here.

    `command`: id of the kill switch's command that it obeys; "" for none.
    """

    latch: Latch
    rebase: bool = False
    command: str = ""


@dataclass(frozen=True, slots=True)
class LeaseChanged:
    """A lease was granted, renewed or ended."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Reported:
    """A report was believed."""

    report: AccountReport


@dataclass(frozen=True, slots=True)
class Noted:
    """Something for the record that leaves the book alone: new limits, limits that were refused, a recovery."""

    kind: Literal["limit_change", "limit_refused", "recovery"]
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Estimated:
    """The market's risk was estimated anew."""

    market: MarketRisk


Event: TypeAlias = Decided | Settled | StateChanged | LeaseChanged | Reported | Fill | Estimated | Noted
Rows: TypeAlias = list[tuple[str, Mapping[str, Any]]]


def to_rows(event: Event) -> Rows:  # noqa: PLR0911 - one return a kind of event
    """The journal rows of an event: one, but for a decision, whose intent is written before it."""
    if isinstance(event, Decided):
        verdict = {"decision": event.decision.to_dict(), "at_ms": event.at_ms}
        return [("intent", event.intent.to_dict()), ("decision", verdict)]
    if isinstance(event, StateChanged):
        return [("state", {"latch": event.latch.to_dict(), "rebase": event.rebase, "command": event.command})]
    if isinstance(event, LeaseChanged):
        return [("lease", event.lease.to_dict())]
    if isinstance(event, Reported):
        return [("report", event.report.to_dict())]
    if isinstance(event, Fill):
        return [("fill", event.to_dict())]
    if isinstance(event, Settled):
        return [("settle", to_plain(event))]
    if isinstance(event, Estimated):
        return [("market", event.market.to_dict())]
    return [(event.kind, to_plain(event.payload))]


def from_rows(entries: Iterable[Entry]) -> Iterator[Event]:
    """The events that wrote these rows, in order.

    Raises:
        JournalError: a row cannot be understood, or a decision lacks its intent.
    """
    intent: OrderIntent | None = None
    for entry in entries:
        try:
            if entry.kind == "intent":
                intent = OrderIntent.from_dict(entry.payload)
                continue
            yield _event(entry, intent)
        except OrderError as error:
            raise JournalError(f"row {entry.id} ({entry.kind}) cannot be understood: {error}") from error


def outcome_of(read: Reader) -> Outcome:
    """The field `outcome`; raises OrderError for any but the known ones."""
    return OUTCOMES[OUTCOMES.index(read.one_of("outcome", OUTCOMES))]


def _event(entry: Entry, intent: OrderIntent | None) -> Event:  # noqa: PLR0911 - one return a kind of event
    read = Reader(entry.payload, entry.kind)
    match entry.kind:
        case "decision":
            decision = decision_from_dict(read.table("decision"))
            if intent is None or intent.intent_id != decision.intent_id:
                raise OrderError("a decision without its intent")
            return Decided(intent, decision, read.whole("at_ms"))
        case "state":
            return StateChanged(
                Latch.from_dict(read.table("latch")), read.flag("rebase", False), read.text("command", "")
            )
        case "lease":
            return LeaseChanged(Lease.from_dict(entry.payload))
        case "report":
            return Reported(AccountReport.from_dict(entry.payload))
        case "fill":
            return Fill.from_dict(entry.payload)
        case "settle":
            numbers = (read.number("filled"), read.number("price"), read.whole("at_ms"))
            return Settled(read.text("reservation_id"), outcome_of(read), *numbers)
        case "market":
            return Estimated(MarketRisk.from_dict(entry.payload))
        case "limit_change" | "limit_refused" | "recovery" as kind:
            return Noted(kind, entry.payload)
    raise OrderError(f"unknown kind '{entry.kind}'")


def _position(row: Mapping[str, Any]) -> Position:
    read = Reader(row, "position")
    side: Literal["long", "short"] = "long" if read.one_of("side", ("long", "short")) == "long" else "short"
    numbers = (read.number("amount"), read.number("entry"), read.number("mark"), read.maybe_number("stop"))
    return Position(read.text("pair"), side, *numbers)
