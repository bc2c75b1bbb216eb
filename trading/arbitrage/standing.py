"""What the coordinator of two legs knows, and what it answers a leg that asks: pure, to be tried on anything.

Each leg is a bot on a book of its own. In every loop it tells what it sees of its book, and takes one advice home. The
coordinator (`trading.arbitrage.coordinator`) keeps the two together; this adds when a pair of legs is wanted at all,
and what happens when nobody speaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from observability.errors import TradingError
from trading.arbitrage.carry import CarryPolicy, GapPolicy, carry_wanted, gap_wanted
from trading.arbitrage.coordinator import (
    Enter,
    Leave,
    Leg,
    LegName,
    LegPolicy,
    LegRefused,
    Pair,
    Phase,
    Seen,
    Tick,
    step,
)
from trading.orders import Reader, to_plain

LONG: LegName = "a"
SHORT: LegName = "b"
TIMEOUT_MS, SILENCE_MS = 180_000, 600_000  # three and ten loops of a leg on virtual time
APART_MS = 10_000  # two loops by the wall clock; on virtual time, whose minute is a loop, the same loop
Verb: TypeAlias = Literal["open", "hold", "close"]


@dataclass(frozen=True, slots=True)
class LegView:
    """What a leg's bot sees of its book.

    Attributes:
        held: of the position, base currency; pending: an order of it may still fill.
        bid, ask: best prices now.
        room: most that the leg could open now, base currency.
        ready: nothing that the bot knows of stands against an entry.
        rates: funding payments, oldest first, where the leg is a perpetual.
    """

    leg: LegName
    held: float
    pending: bool
    bid: float
    ask: float
    room: float
    ready: bool
    rates: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Advice:
    """What a leg shall do in this loop: open `amount` (base currency), hold what it has, or close it."""

    verb: Verb
    phase: Phase
    amount: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PairPlan:
    """How a pair of legs is traded.

    Attributes:
        policy: when it is wanted.
        legs: how long one leg may wait for the other.
        rest_ms: how long nothing is opened after a pair that had to be unwound.
        silence_ms: a leg that was not heard for so long counts as lost; a leg that hears nothing for so long closes.
        apart_ms: prices of the two books that were told further apart are not those of one time.
    """

    policy: CarryPolicy | GapPolicy
    legs: LegPolicy = field(default_factory=lambda: LegPolicy(TIMEOUT_MS))
    rest_ms: int = 3_600_000
    silence_ms: int = SILENCE_MS
    apart_ms: int = APART_MS


@dataclass(frozen=True)
class Standing:
    """Everything that is known. told: legs that were asked to open; never kept on disk: views and heard of each leg,
    and whether the pair was wanted when both books were last seen at one time."""

    pair: Pair = field(default_factory=Pair)
    told: frozenset[LegName] = frozenset()
    rest_until_ms: int = 0
    views: Mapping[LegName, LegView] = field(default_factory=dict)
    heard: Mapping[LegName, int] = field(default_factory=dict)
    wanted: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """What a restart must know, JSON-ready; what the legs see they tell again."""
        kept = {"pair": self.pair, "told": self.told, "rest_until_ms": self.rest_until_ms}
        return {name: to_plain(value) for name, value in kept.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Standing:
        """Read `to_dict` back; raises OrderError or TradingError."""
        read = Reader(data, "standing of a pair")
        of = Reader(read.table("pair"), "pair")
        legs: dict[LegName, Leg] = {}
        for name in (LONG, SHORT):
            leg = Reader(Reader(of.table("legs"), "legs").table(name), f"leg {name}")
            legs[name] = Leg(leg.number("held"), leg.flag("pending"))
        phase = Phase(of.one_of("phase", tuple(Phase)))
        pair = Pair(phase, of.number("target"), of.whole("asked_ms"), legs, of.text("reason"))
        told = data.get("told")
        if not isinstance(told, list) or not set(told) <= {LONG, SHORT}:
            raise TradingError(f"legs are {LONG} and {SHORT}, not {told!r}", where="standing of a pair")
        return cls(pair, frozenset(told), read.whole("rest_until_ms"))


def advise(standing: Standing, view: LegView, now_ms: int, plan: PairPlan) -> tuple[Standing, Advice]:
    """What is known after a leg has told what it sees, and what it shall do."""
    partner = SHORT if view.leg == LONG else LONG
    standing = replace(
        standing,
        views={**standing.views, view.leg: view},
        # one that was never heard is counted from now on: after a restart both legs need a moment to speak
        heard={partner: now_ms, **standing.heard, view.leg: now_ms},
    )
    pair, told = _kept_together(standing, view, partner, now_ms, plan), standing.told
    rest_until_ms = standing.rest_until_ms
    if pair.phase is Phase.IDLE and standing.pair.phase in (Phase.OPENING, Phase.OPEN, Phase.UNWINDING):
        rest_until_ms = now_ms + plan.rest_ms
    wanted = None
    if _both_speak(standing, now_ms, plan):
        standing = replace(standing, pair=pair, rest_until_ms=rest_until_ms)
        pair, told, wanted = _wanted_or_not(standing, now_ms, plan)
    advice = Advice("hold", pair.phase, reason=pair.reason)
    if pair.phase is Phase.OPENING and view.leg not in told:
        told, advice = told | {view.leg}, Advice("open", pair.phase, pair.target, "both legs are wanted")
    elif pair.phase in (Phase.CLOSING, Phase.UNWINDING) and not pair.legs[view.leg].flat:
        advice = replace(advice, verb="close")
    return replace(standing, pair=pair, told=told, rest_until_ms=rest_until_ms, wanted=wanted), advice


def _kept_together(standing: Standing, view: LegView, partner: LegName, now_ms: int, plan: PairPlan) -> Pair:
    """The pair after what was told and after the time that has passed."""
    # a leg that was not asked yet shows nothing of what it will do
    unasked = standing.pair.phase is Phase.OPENING and view.leg not in standing.told
    pair, _ = step(standing.pair, Seen(view.leg, view.held, view.pending or unasked), plan.legs)
    pair, _ = step(pair, Tick(now_ms), plan.legs)
    if now_ms - standing.heard[partner] > plan.silence_ms:
        pair, _ = step(pair, LegRefused(partner, f"not heard for {plan.silence_ms} ms"), plan.legs)
    return pair


def _both_speak(standing: Standing, now_ms: int, plan: PairPlan) -> bool:
    """Whether both legs were heard lately: nothing is opened, or closed at leisure, on what is known of one."""
    return len(standing.views) == 2 and all(
        now_ms - heard_ms <= plan.legs.timeout_ms for heard_ms in standing.heard.values()
    )


def _wanted_or_not(standing: Standing, now_ms: int, plan: PairPlan) -> tuple[Pair, frozenset[LegName], bool | None]:
    """Open the pair where it is wanted, close it where it is no more, and say what was seen at one time.

    The leg that speaks first in a loop brings a new price, against which stands an old one of the other: a market that
    moves would look like a gap. So prices of one time must have said the same before; both legs can then follow in
    the same loop.
    """
    pair, long, short = standing.pair, standing.views[LONG], standing.views[SHORT]
    if pair.phase not in (Phase.IDLE, Phase.OPEN):
        return pair, standing.told, None
    wanted = _wanted(plan.policy, pair.phase is Phase.OPEN, long, short)
    if wanted is standing.wanted:
        able = long.ready and short.ready and min(long.room, short.room) > 0
        if pair.phase is Phase.OPEN and not wanted:
            return step(pair, Leave(), plan.legs)[0], standing.told, None
        if pair.phase is Phase.IDLE and wanted and able and now_ms >= standing.rest_until_ms:
            return step(pair, Enter(min(long.room, short.room), now_ms), plan.legs)[0], frozenset(), None
    at_one_time = abs(standing.heard[LONG] - standing.heard[SHORT]) <= plan.apart_ms
    return pair, standing.told, wanted if at_one_time else standing.wanted


def _wanted(policy: CarryPolicy | GapPolicy, held: bool, long: LegView, short: LegView) -> bool:
    if isinstance(policy, GapPolicy):
        return gap_wanted(held, (short.bid, short.ask), (long.bid, long.ask), policy)
    return carry_wanted(held, short.rates, (long.bid + long.ask) / 2.0, (short.bid + short.ask) / 2.0, policy)
