"""Two legs on two books, kept together: a pure state machine that never leaves one alone for longer than it must.

It is told what happens and answers with commands; who sends orders is not its business. Opening two legs is not
atomic. What it promises: once the leg time-out has passed with one leg missing, or a leg is refused or lost, every
later tick orders the other leg closed, again and again, until both are seen to be flat.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, TypeAlias

LegName: TypeAlias = Literal["a", "b"]
LEGS: tuple[LegName, LegName] = ("a", "b")


class Phase(StrEnum):
    """Where a pair of legs stands."""

    IDLE = "idle"
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    UNWINDING = "unwinding"


@dataclass(frozen=True, slots=True)
class LegPolicy:
    """timeout_ms: how long one leg may wait for the other; tolerance: part of the target that may lack."""

    timeout_ms: int = 30_000
    tolerance: float = 0.02


@dataclass(frozen=True, slots=True)
class Leg:
    """held: what the venue shows, in units of the target; pending: an order of it may still fill."""

    held: float = 0.0
    pending: bool = False

    @property
    def flat(self) -> bool:
        """Nothing held and nothing on its way."""
        return self.held <= 0 and not self.pending


@dataclass(frozen=True)
class Pair:
    """The state: `target` of each leg, when it was asked for, and both legs as last seen."""

    phase: Phase = Phase.IDLE
    target: float = 0.0
    asked_ms: int = 0
    legs: dict[LegName, Leg] = field(default_factory=lambda: {"a": Leg(), "b": Leg()})
    reason: str = ""

    @property
    def flat(self) -> bool:
        """Both legs are."""
        return all(leg.flat for leg in self.legs.values())


@dataclass(frozen=True, slots=True)
class Enter:
    """Open both legs of `target` units."""

    target: float
    now_ms: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Close both legs."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a venue shows of a leg now: the whole truth about it, replacing what was known."""

    leg: LegName
    held: float
    pending: bool


@dataclass(frozen=True, slots=True)
class LegRefused:
    """A leg's order was not made."""

    leg: LegName
    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passes."""

    now_ms: int


@dataclass(frozen=True, slots=True)
class Command:
    """open, close (what is held) or cancel (what is pending) a leg. Repeated until done, so it must be idempotent."""

    verb: Literal["open", "close", "cancel"]
    leg: LegName


Happening: TypeAlias = Enter | Leave | Seen | LegRefused | Tick


def step(  # noqa: PLR0911 - one return a kind of happening
    pair: Pair, happening: Happening, policy: LegPolicy
) -> tuple[Pair, tuple[Command, ...]]:
    """The state after what happened, and what to order now."""
    match happening:
        case Enter(target, now_ms):
            if pair.phase is not Phase.IDLE or not pair.flat or not target > 0:
                return pair, ()
            legs: dict[LegName, Leg] = {name: Leg(0.0, pending=True) for name in LEGS}
            return Pair(Phase.OPENING, target, now_ms, legs), tuple(Command("open", name) for name in LEGS)
        case Leave():
            if pair.phase in (Phase.OPENING, Phase.OPEN):
                return _closing(pair, Phase.CLOSING, "asked to leave")
            return pair, ()
        case Seen(name, held, pending):
            return _seen(replace(pair, legs={**pair.legs, name: Leg(held, pending)}), policy)
        case LegRefused(name, reason):
            pair = replace(pair, legs={**pair.legs, name: replace(pair.legs[name], pending=False)})
            if pair.phase in (Phase.OPENING, Phase.OPEN):
                return _closing(pair, Phase.UNWINDING, f"leg {name} was refused: {reason}")
            return _seen(pair, policy)
        case Tick(now_ms):
            return _tick(pair, now_ms, policy)


def _seen(pair: Pair, policy: LegPolicy) -> tuple[Pair, tuple[Command, ...]]:
    """Judge what the venues show."""
    whole = {name: leg.held >= pair.target * (1.0 - policy.tolerance) for name, leg in pair.legs.items()}
    match pair.phase:
        case Phase.OPENING:
            if all(whole.values()):
                return replace(pair, phase=Phase.OPEN), ()
            dead = [name for name, leg in pair.legs.items() if not whole[name] and not leg.pending]
            if dead:
                return _closing(pair, Phase.UNWINDING, f"leg {dead[0]} came to an end unfilled")
        case Phase.OPEN:
            lost = [name for name in LEGS if not whole[name]]
            if lost:
                return _closing(pair, Phase.UNWINDING, f"leg {lost[0]} was lost")
        case Phase.IDLE:
            if not pair.flat:  # an order of ours filled after it was believed dead
                return _closing(pair, Phase.UNWINDING, "a leg appeared that nobody wants")
        case Phase.CLOSING | Phase.UNWINDING:
            if pair.flat:
                return Pair(reason=pair.reason), ()
    return pair, ()


def _tick(pair: Pair, now_ms: int, policy: LegPolicy) -> tuple[Pair, tuple[Command, ...]]:
    if pair.phase is Phase.OPENING and now_ms - pair.asked_ms >= policy.timeout_ms:
        return _closing(pair, Phase.UNWINDING, f"one leg was missing after {policy.timeout_ms} ms")
    if pair.phase in (Phase.CLOSING, Phase.UNWINDING):
        return pair, _orders(pair)
    return pair, ()


def _closing(pair: Pair, phase: Phase, reason: str) -> tuple[Pair, tuple[Command, ...]]:
    if pair.flat:
        return Pair(reason=reason), ()
    pair = replace(pair, phase=phase, reason=reason)
    return pair, _orders(pair)


def _orders(pair: Pair) -> tuple[Command, ...]:
    """Take back what is pending first: closing before it would race with its fill."""
    pending = [Command("cancel", name) for name, leg in pair.legs.items() if leg.pending]
    held = [Command("close", name) for name, leg in pair.legs.items() if leg.held > 0]
    return (*pending, *held)
