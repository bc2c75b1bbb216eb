"""Whether the system may trade at all, as a latch that only a person can loosen.

A fresh system is halted for the cause START and becomes active by itself once every account's books agree. Any other
halt (a limit, a person) stays, over restarts too, until somebody lifts it by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from observability.errors import TradingError
from trading.orders import Reader, to_plain


class TradingState(StrEnum):
    """From strict to free: nothing opens, nothing opens while positions are run down, everything the limits allow."""

    HALTED = "halted"
    REDUCING = "reducing"
    ACTIVE = "active"

    @property
    def level(self) -> int:
        """0 halted, 1 reducing, 2 active; the value of the metric mtst_trading_state."""
        return (TradingState.HALTED, TradingState.REDUCING, TradingState.ACTIVE).index(self)


class Cause(StrEnum):
    """Why the latch stands where it stands."""

    START = "start"
    RECONCILED = "reconciled"
    LIMIT = "limit"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Latch:
    """The state, with who set it, why, and since when (ms). `flatten`: bots shall close what they hold."""

    state: TradingState = TradingState.HALTED
    cause: Cause = Cause.START
    who: str = "system"
    reason: str = "fresh start: waiting until every account's books agree"
    since_ms: int = 0
    flatten: bool = False

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return dict(to_plain(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Latch:
        """Read `to_dict` back; raises OrderError."""
        read = Reader(data, "trading state")
        return cls(
            TradingState(read.one_of("state", tuple(TradingState))),
            Cause(read.one_of("cause", tuple(Cause))),
            read.text("who"),
            read.text("reason"),
            read.whole("since_ms"),
            read.flag("flatten", False),
        )


def tighten(latch: Latch, to: TradingState, cause: Cause, *, who: str, reason: str, now_ms: int) -> Latch:
    """Move towards halted, never away from it.

    A limit or a person also takes over the halt of a fresh start, even when asking for less: else the end of that
    halt, which comes by itself, would wipe out what they asked for.
    """
    takes_over = latch.cause is Cause.START and cause is not Cause.START
    if to.level >= latch.state.level and not takes_over:
        return latch
    strictest = min(to, latch.state, key=lambda state: state.level)
    return Latch(strictest, cause, who, reason, now_ms, latch.flatten)


def reconciled(latch: Latch, now_ms: int) -> Latch:
    """Every account's books agree: lifts the halt of a fresh start, and no other."""
    if latch.cause is not Cause.START or latch.state is TradingState.ACTIVE:
        return latch
    return Latch(
        TradingState.ACTIVE, Cause.RECONCILED, "system", "every account reported and the books agree", now_ms, False
    )


def flattening(latch: Latch, who: str, reason: str, now_ms: int, cause: Cause = Cause.PERSON) -> Latch:
    """Ask the bots to close everything; trading is then at most reducing until a person lifts it."""
    _need_name(who, "flatten")
    state = min(latch.state, TradingState.REDUCING, key=lambda item: item.level)
    return Latch(state, cause, who, reason, now_ms, True)


def lift(latch: Latch, who: str, reason: str, books_agree: bool, now_ms: int) -> Latch:
    """A person lets trading go on; while the books do not agree the system waits for them first.

    Raises:
        TradingError: nobody is named.
    """
    _need_name(who, "resume")
    if not books_agree:
        text = f"lifted by {who} ({reason}); waiting until every account's books agree"
        return Latch(TradingState.HALTED, Cause.START, who, text, now_ms, False)
    return Latch(TradingState.ACTIVE, Cause.PERSON, who, reason, now_ms, False)


def _need_name(who: str, verb: str) -> None:
    if not who.strip():
        raise TradingError(f"only a named person may {verb} trading", todo="say who you are, e.g. --who alice")
