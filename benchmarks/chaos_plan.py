"""What breaks in a run of chaos, and when: drawn from the seed alone, before anything runs.

Time is cut into slots of a quarter of a candle. The bots look at their trades at the beginning of each; what breaks
does so in the midst of one, while all of them sleep, and faults of the exchange are aimed at one account or last for
a span of virtual time: so nothing depends on who of the bots comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

CANDLE_MS = 900_000
SLOT_MS = 225_000
SLOTS = CANDLE_MS // SLOT_MS  # a candle
DAY = 96 * SLOTS
CALM = 6 * SLOTS  # at the end of a day nothing breaks, and the books are compared
AT_ONCE: Final = ((0, 1, 2, 3), (0.10, 0.50, 0.30, 0.10))  # incidents in a slot, and how likely; a kill counts, too
KILL = 0.25 / SLOTS  # likelihood of a kill -9 in a slot
AWAY: Final = (2, 9)  # slots for which something that was killed stays away: up to two candles
HUNT = 4 * SLOTS  # slots within which it is killed at its next order, or else without one

ORDER = {"method": "POST", "path": "/api/v3/order"}
REFUSED = {"kind": "error", "status": 400, "code": -2010}
BUSY = {"kind": "error", "status": 503, "code": -1001, "message": "Internal error; unable to process your request."}
LIMITED = {"kind": "error", "status": 429, "code": -1003, "message": "Too many requests.", "retry_after_s": 1}
LATE = {"hold_s": 0.05}
ORDERS: Mapping[str, Mapping[str, Any]] = {
    "order: reply lost": {"kind": "timeout_after", **ORDER, **LATE},
    "order: never arrives": {"kind": "timeout_before", **ORDER, **LATE},
    "order: cut after execution": {"kind": "drop_after", **ORDER},
    "order: cut before execution": {"kind": "drop_before", **ORDER},
    "order: garbled reply": {"kind": "garble", **ORDER},
    "order: 503": {**ORDER, **BUSY},
    "order: 429": {**ORDER, **LIMITED},
    "order: refused": {**ORDER, **REFUSED, "message": "Account has insufficient balance for requested action."},
    "stop: refused": {
        **ORDER, **REFUSED, "params": {"type": "STOP"}, "message": "Stop price would trigger immediately.",
    },
    "stop: reply lost": {"kind": "timeout_after", **ORDER, **LATE, "params": {"type": "STOP"}},
    "cancel: reply lost": {"kind": "timeout_after", "method": "DELETE", "path": "/api/v3/order", **LATE},
    "cancel: refused": {
        "kind": "error", "status": 400, "code": -2011, "message": "Unknown order sent.", "method": "DELETE",
        "path": "/api/v3/order",
    },
}  # fmt: skip
"""Of one account; wait for an order of it for two candles."""
REQUESTS: Mapping[str, Mapping[str, Any]] = {
    "account: 503": BUSY,
    "account: 429": LIMITED,
    "account: reply lost": {"kind": "timeout_after", **LATE},
    "account: timed out": {"kind": "timeout_before", **LATE},
    "account: cut": {"kind": "drop_after"},
    "account: garbled": {"kind": "garble"},
    "account: order unknown": {
        "kind": "error", "method": "GET", "path": "/api/v3/order", "status": 400, "code": -2013,
        "message": "Order does not exist.",
    },
}  # fmt: skip
"""Of one account, so many in a row that Freqtrade's own tries may or may not be enough."""
OUTAGES: Mapping[str, Mapping[str, Any]] = {
    "exchange: 503": BUSY, "exchange: 429": LIMITED, "exchange: disconnected": {"kind": "disconnect"},
}  # fmt: skip
"""Of everybody: the next loop of every bot fails, and perhaps its second try half a minute later, too."""
FEED: Mapping[str, Mapping[str, Any]] = {
    "candles: stale": {"kind": "stale_candles", "lag_ms": 4 * CANDLE_MS},
    "candles: frozen": {"kind": "frozen_feed"},
    "candles: revised": {"kind": "revised_candles", "lag_ms": CANDLE_MS},
    **{
        f"candles: {how}": {"kind": "garbage_candles", "how": how}
        for how in ("nan", "missing", "duplicate", "disorder", "zero", "negative", "crossed")
    },
    "fills: in parts": {"kind": "partial_fills", "max_fill": 200, "refill_ms": CANDLE_MS},
    "clock: ahead": {"kind": "clock_skew", "skew_ms": 90_000},
    "clock: behind": {"kind": "clock_skew", "skew_ms": -20_000},
}
BLIND = ("candles: stale", "candles: frozen")  # after which no bot has the newest candle
LIES = ("NaN", "stale", "wrong pair", "late")  # as `benchmarks.loss_stand.helpers.TROUBLES`
BETWEEN = "kill -9 bot between order and commit"
KILLS: Mapping[str, tuple[float, tuple[str, ...]]] = {
    "kill -9 bot": (1.0, ()),
    "kill -9 bot, away for a while": (1.0, ()),
    BETWEEN: (1.0, ()),
    "kill -9 risk manager": (1.0, ("risk",)),
    "kill -9 risk manager while halted": (0.7, ("risk",)),
    "kill -9 forecasts": (1.0, ("forecasts",)),
    "kill -9 node": (1.0, ("forecasts", "bert", "nina")),
}
"""How likely among kills, and what dies; a bot is drawn where nothing stands."""
AT_ONCE_BACK = ("kill -9 bot",)


@dataclass(frozen=True)
class Incident:
    """One thing that breaks.

    Attributes:
        number: its place in the plan, from 0.
        slot: in whose middle it begins. slots: for how many it lasts; 0: a moment.
        who: the bot that it is aimed at; "" for none or all.
        fault: of the exchange, as `SandboxClient.plan_fault` takes it; empty for what is killed or lies.
    """

    number: int
    slot: int
    name: str
    who: str = ""
    slots: int = 0
    fault: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Its name on the exchange."""
        return f"{self.number}"

    @property
    def kills(self) -> bool:
        """Whether a process dies."""
        return self.name in KILLS


def moment_ms(slot: int) -> int:
    """Virtual time from the beginning at which things break in a slot.

    Not in equal steps: a bot that began at one such moment looks again after whole slots and half minutes, and would
    otherwise act just when the next thing breaks.
    """
    return slot * SLOT_MS + 60_000 + 13_700 * (slot % SLOTS)


def draw(seed: int, slots: int, bots: tuple[str, ...]) -> tuple[Incident, ...]:
    """Everything that breaks in so many slots, in order; equal arguments give equal plans."""
    return tuple(_Drawing(seed, bots).incidents(slots))


class _Drawing:
    def __init__(self, seed: int, bots: tuple[str, ...]) -> None:
        self._rng, self._bots, self._number = np.random.default_rng(seed), bots, 0
        self._busy: dict[str, int] = {}  # who is away or lies, until the beginning of which slot
        self._makers = (self._order, self._request, self._outage, self._feed, self._lie)

    def incidents(self, slots: int) -> Iterator[Incident]:
        """Slot after slot."""
        for slot in range(slots):
            calm_from = min(slot - slot % DAY + DAY, slots) - CALM
            if slot >= calm_from:
                continue
            count = int(self._rng.choice(AT_ONCE[0], p=AT_ONCE[1]))
            if self._rng.random() < KILL and (killed := self._kill(slot, calm_from - slot)) is not None:
                yield killed
                count -= 1
            for _ in range(count):
                maker = self._makers[int(self._rng.choice(5, p=(0.37, 0.37, 0.06, 0.15, 0.05)))]
                if (incident := maker(slot, calm_from - slot)) is not None:
                    yield incident

    def _made(self, slot: int, name: str, **more: Any) -> Incident:
        self._number += 1
        return Incident(self._number - 1, slot, name, **more)

    def _pick(self, names: Mapping[str, Any] | tuple[str, ...]) -> str:
        return str(self._rng.choice(list(names)))

    def _order(self, slot: int, left: int) -> Incident:
        name, slots = self._pick(ORDERS), min(2 * SLOTS, left)
        fault = {**ORDERS[name], "count": 1, "for_ms": slots * SLOT_MS}
        return self._made(slot, name, who=self._pick(self._bots), slots=slots, fault=fault)

    def _request(self, slot: int, left: int) -> Incident:
        name = self._pick(REQUESTS)
        most, slots = 3 if "hold_s" in REQUESTS[name] else 9, min(2, left)
        span = {"count": int(self._rng.integers(1, most)), "for_ms": slots * SLOT_MS}
        fault = {"path": "/api/v3", **REQUESTS[name], **span}
        return self._made(slot, name, who=self._pick(self._bots), slots=slots, fault=fault)

    def _outage(self, slot: int, _left: int) -> Incident:
        name = self._pick(OUTAGES)
        # from just before the next loop, whose try it meets, or that and the one of half a minute later
        after_ms = (slot + 1) * SLOT_MS - moment_ms(slot) - 10_000
        span = {"count": 0, "after_ms": after_ms, "for_ms": int(self._rng.choice((25_000, 55_000)))}
        return self._made(slot, name, slots=1, fault={"path": "/api/v3", **OUTAGES[name], **span})

    def _feed(self, slot: int, left: int) -> Incident:
        name = self._pick(FEED)
        slots = min(4 * SLOTS if name in BLIND else int(self._rng.integers(1, 2 * SLOTS + 1)), left)
        return self._made(slot, name, slots=slots, fault={**FEED[name], "for_ms": slots * SLOT_MS})

    def _lie(self, slot: int, left: int) -> Incident | None:
        word = str(self._rng.choice(LIES, p=(0.3, 0.3, 0.3, 0.1)))
        return self._taking(("forecasts",), slot, min(SLOTS, left), f"forecasts: {word}")

    def _kill(self, slot: int, left: int) -> Incident | None:
        weights = np.array([weight for weight, _ in KILLS.values()])
        name = str(self._rng.choice(list(KILLS), p=weights / weights.sum()))
        bot, slots = self._pick(self._bots), min(int(self._rng.integers(*AWAY)), left)
        if name in AT_ONCE_BACK:
            slots = 0
        if name == BETWEEN:
            slots = min(HUNT, left)
        return self._taking(KILLS[name][1] or (bot,), slot, slots, name)

    def _taking(self, whom: tuple[str, ...], slot: int, slots: int, name: str) -> Incident | None:
        """Nobody is killed who is away, and nobody away lies; such a draw is dropped."""
        if any(self._busy.get(one, 0) > slot for one in whom):
            return None
        self._busy |= dict.fromkeys(whom, slot + slots + 1)
        return self._made(slot, name, who=whom[0] if whom[0] in self._bots else "", slots=slots)
