"""What a bot asks of the risk manager and what it may answer.

Units everywhere in `trading`: amounts in the base currency, prices in quote per base, equity and notionals in the
account's quote currency, times in milliseconds since 1970 UTC, ratios as fractions (0.02 is 2 %).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple, TypeAlias

from observability.errors import OrderError

Side: TypeAlias = Literal["buy", "sell"]
Action: TypeAlias = Literal["entry", "exit"]


def to_plain(value: Any) -> Any:  # noqa: PLR0911 - one return a kind of value
    """`value` as what JSON can hold; infinities and NaN become strings, which `float()` reads back."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(to_plain(item) for item in value)
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def plain_number(value: Any) -> Any:
    """`to_plain` of what should be a number, fast: every decision writes dozens of them."""
    return value if type(value) is int or (type(value) is float and math.isfinite(value)) else to_plain(value)


class Reader:
    """Reads typed fields out of a plain mapping; every problem becomes an `OrderError` that names the field."""

    def __init__(self, data: Mapping[str, Any], what: str) -> None:
        self.data, self.what = data, what

    def text(self, name: str, default: str | None = None) -> str:
        """A string field."""
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "a string", value)
        return value

    def number(self, name: str) -> float:
        """A float field; NaN and infinities pass, the rules refuse them with a reason."""
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise self._wrong(name, "a number", value)
        try:
            return float(value)
        except ValueError:
            raise self._wrong(name, "a number", value) from None

    def whole(self, name: str, default: int | None = None) -> int:
        """An integer field."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, "a whole number", value)
        return value

    def flag(self, name: str, default: bool | None = None) -> bool:
        """A boolean field."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def maybe_number(self, name: str) -> float | None:
        """A float field that may be null or absent."""
        return None if self.data.get(name) is None else self.number(name)

    def table(self, name: str) -> Mapping[str, Any]:
        """A nested mapping; absent means empty."""
        value = self.data.get(name, {})
        if not isinstance(value, Mapping):
            raise self._wrong(name, "a table", value)
        return value

    def rows(self, name: str) -> list[Mapping[str, Any]]:
        """A list of nested mappings; absent means empty."""
        value = self.data.get(name, [])
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, Mapping) for item in value):
            raise self._wrong(name, "a list of tables", value)
        return list(value)

    def one_of(self, name: str, allowed: tuple[str, ...]) -> str:
        """A string field from a closed list."""
        value = self.text(name)
        if value not in allowed:
            raise self._wrong(name, " or ".join(allowed), value)
        return value

    def _get(self, name: str, default: Any = None) -> Any:
        value = self.data.get(name, default)
        if value is None:
            raise OrderError(f"{self.what} lacks '{name}'", todo="send every field of the contract")
        return value

    def _wrong(self, name: str, wanted: str, value: Any) -> OrderError:
        return OrderError(f"{self.what} has a wrong '{name}'", where=repr(value)[:80], todo=f"send {wanted}")


@dataclass(frozen=True, slots=True)
class ForecastRef:
    """The forecast behind an entry.

    Attributes:
        as_of_ms: open time of the last closed candle that the forecast saw.
        model: name and version of the model.
        status: "champion" or "shadow"; anything but "champion" counts as shadow.
        edge: expected return of the trade net of round-trip costs, as a fraction.
        sigma: standard deviation of the forward log-return at the traded horizon.
    """

    as_of_ms: int
    model: str
    status: str
    edge: float
    sigma: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "as_of_ms": self.as_of_ms,
            "model": self.model,
            "status": self.status,
            "edge": plain_number(self.edge),
            "sigma": plain_number(self.sigma),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ForecastRef:
        """Read `to_dict` back; raises OrderError."""
        read = Reader(data, "forecast reference")
        return cls(
            read.whole("as_of_ms"), read.text("model"), read.text("status"), read.number("edge"), read.number("sigma")
        )


@dataclass(frozen=True, slots=True)
class OrderIntent:
    """An order that a bot wants to send; built for anything, judged by `trading.risk.decide`.

    Attributes:
        intent_id: unique for ever, chosen by the bot (a uuid); the reservation's id derives from it.
        bot: name of the bot; account: the exchange account that it trades; venue: where that account lives.
        pair: "BTC/USDT" (spot) or "BTC/USDT:USDT" (perpetual).
        side: "buy" or "sell"; action: "entry" adds risk, "exit" lowers it.
        amount: base currency; price: limit price, or the expected price of a market order.
        stop_price: where the protective stop will stand; entries need one.
        lease_epoch: epoch of the account's lease that the bot believes it holds.
        created_ms: when the bot made this intent, on the venue's clock.
        candle_ms: open time of the newest closed candle behind the decision.
        forecast: None for a bot that trades by plain rules.
        timeframe_ms: length of that candle; it closed at candle_ms + timeframe_ms.
    """

    intent_id: str
    bot: str
    account: str
    venue: str
    pair: str
    side: Side
    action: Action
    amount: float
    price: float
    stop_price: float | None
    lease_epoch: int
    created_ms: int
    candle_ms: int
    forecast: ForecastRef | None = None
    timeframe_ms: int = 900_000

    @property
    def notional(self) -> float:
        """Worth of the order in quote currency."""
        return self.amount * self.price

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "intent_id": self.intent_id,
            "bot": self.bot,
            "account": self.account,
            "venue": self.venue,
            "pair": self.pair,
            "side": self.side,
            "action": self.action,
            "amount": plain_number(self.amount),
            "price": plain_number(self.price),
            "stop_price": plain_number(self.stop_price),
            "lease_epoch": self.lease_epoch,
            "created_ms": self.created_ms,
            "candle_ms": self.candle_ms,
            "forecast": None if self.forecast is None else self.forecast.to_dict(),
            "timeframe_ms": self.timeframe_ms,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OrderIntent:
        """Read `to_dict` back; raises OrderError that names the wrong field."""
        read = Reader(data, "order intent")
        forecast = data.get("forecast")
        return cls(
            intent_id=read.text("intent_id"),
            bot=read.text("bot"),
            account=read.text("account"),
            venue=read.text("venue"),
            pair=read.text("pair"),
            side="buy" if read.one_of("side", ("buy", "sell")) == "buy" else "sell",
            action="entry" if read.one_of("action", ("entry", "exit")) == "entry" else "exit",
            amount=read.number("amount"),
            price=read.number("price"),
            stop_price=read.maybe_number("stop_price"),
            lease_epoch=read.whole("lease_epoch"),
            created_ms=read.whole("created_ms"),
            candle_ms=read.whole("candle_ms"),
            forecast=None if forecast is None else ForecastRef.from_dict(forecast),
            timeframe_ms=read.whole("timeframe_ms", 900_000),
        )


class LimitUse(NamedTuple):
    """How much of one limit would be used once the order is filled; `used <= limit` holds for every approval."""

    rule: str
    used: float
    limit: float


@dataclass(frozen=True, slots=True)
class Approved:
    """Permission to send one order of at most `amount`; an entry holds a reservation until it is settled.

    Attributes:
        reservation_id: "" for exits, which need none.
        amount: may be smaller than asked.
        limits_used: state of every numeric limit after this order.
    """

    intent_id: str
    reservation_id: str
    amount: float
    price: float
    limits_used: tuple[LimitUse, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "approved": True,
            "intent_id": self.intent_id,
            "reservation_id": self.reservation_id,
            "amount": plain_number(self.amount),
            "price": plain_number(self.price),
            "limits_used": [
                {"rule": use[0], "used": plain_number(use[1]), "limit": plain_number(use[2])}
                for use in self.limits_used
            ],
        }


@dataclass(frozen=True, slots=True)
class Refused:
    """No. `code` is a `trading.risk.Rule`; `text` says in words what stood against it."""

    intent_id: str
    code: str
    text: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {"approved": False, **to_plain(self)}


Decision: TypeAlias = Approved | Refused


def decision_from_dict(data: Mapping[str, Any]) -> Decision:
    """Read either kind of decision back from its `to_dict`; raises OrderError."""
    read = Reader(data, "decision")
    if not read.flag("approved"):
        return Refused(read.text("intent_id"), read.text("code"), read.text("text"))
    uses = (Reader(row, "limit use") for row in read.rows("limits_used"))
    return Approved(
        read.text("intent_id"),
        read.text("reservation_id"),
        read.number("amount"),
        read.number("price"),
        tuple(LimitUse(use.text("rule"), use.number("used"), use.number("limit")) for use in uses),
    )
