"""The scenarios: what goes wrong, at which moment, and what would be right afterwards.

Each is played by both contenders on an exchange of the same seed: the same candles, the same wishes, the same faults.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.loss_stand.stand import CANDLE_MS, PAIR, Harm, Stand, filled
from trading.adapters.sandbox.market import Market

BUY = {"method": "POST", "path": "/api/v3/order", "params": {"side": "BUY"}}
STOP = {"method": "POST", "path": "/api/v3/order", "params": {"type": "STOP"}}
LOOKUP = {"method": "GET", "path": "/api/v3/order"}
NOT_THERE = {"status": 400, "code": -2013, "message": "Order does not exist."}
UNKNOWN = {"status": 400, "code": -2011, "message": "Unknown order sent."}
RETRIES = 6  # Freqtrade asks for an order that often before it believes that there is none
WINDOW = 24  # candles that a scenario may take
CALM, FALL = 0.02, 0.035


@dataclass(frozen=True)
class Scenario:
    """One way to lose money.

    Attributes:
        play: does it, from a started exchange on; returns the price below which nothing should be held, or 0.
        plan: when to enter and to leave, found in the market's future.
        plain: what plain Freqtrade's configuration needs for it.
    """

    name: str
    text: str
    play: Callable[[Stand], float]
    plan: Callable[[Market], dict[str, Any]]
    plain: dict[str, Any] = field(default_factory=dict)

    def run(self, *, ours: bool, seed: int) -> Harm:
        """Play it with one contender."""
        with Stand(ours=ours, seed=seed, plan=self.plan, **self.plain) as stand:
            stop = self.play(stand)
            return stand.harm(stop=stop)


def calm(market: Market) -> dict[str, Any]:
    """Enter where the price then stays within 2 % for the whole scenario; never leave."""
    row = _first(market, lambda low, high, price: low > price * (1 - CALM) and high < price * (1 + CALM))
    return _plan(market, row, until=WINDOW, leave=10_000)


def fall(market: Market) -> dict[str, Any]:
    """Enter, leave four candles later, and the price falls well below the stop in the two hours after that."""
    table = market.candles[PAIR]
    for row in range(_begin(market), market.rows - WINDOW):
        price = float(table.open[row])
        before, after = table.low[row : row + 6].min(), table.close[row + 7 : row + 12]
        if before > price * 0.985 and (after < price * (1 - FALL)).sum() >= 2:
            return _plan(market, row, until=4, leave=4)
    return _plan(market, _begin(market), until=4, leave=4)


def _first(market: Market, fits: Callable[[float, float, float], bool]) -> int:
    table = market.candles[PAIR]
    for row in range(_begin(market), market.rows - WINDOW):
        part = slice(row, row + WINDOW)
        if fits(float(np.min(table.low[part])), float(np.max(table.high[part])), float(table.open[row])):
            return row
    return _begin(market)


def _begin(market: Market) -> int:
    return (market.open_ms - market.first_ms) // market.step_ms + 4


def _plan(market: Market, row: int, *, until: int, leave: int) -> dict[str, Any]:
    """Signals lie on the candle before, so that the orders are made in `row`."""
    at_ms = market.first_ms + (row - 1) * market.step_ms
    return {
        "enter_from_ms": at_ms,
        "enter_until_ms": at_ms + until * market.step_ms,
        "exit_ms": at_ms + leave * market.step_ms,
    }


def _begun(stand: Stand, *names: str) -> None:
    """Bots up, and the clock just before the first entry."""
    stand.client.advance(stand.plan["enter_from_ms"] - CANDLE_MS)
    for name in names or ("bot",):
        stand.start(name)
    stand.run_to(stand.plan["enter_from_ms"] + CANDLE_MS - 60_000)


def lost_reply(stand: Stand) -> float:
    """The exchange executes three orders and the answers get lost."""
    _begun(stand)
    stand.client.plan_fault(kind="timeout_after", **BUY, count=3, hold_s=0.1)
    stand.run(12)
    return 0.0


def garbled_reply(stand: Stand) -> float:
    """The exchange executes an order and answers rubbish."""
    _begun(stand)
    stand.client.plan_fault(kind="garble", **BUY, count=2)
    stand.run(12)
    return 0.0


def crash_before_commit(stand: Stand) -> float:
    """The bot is killed between the execution of its order and the commit to its database."""
    _begun(stand)
    stand.client.plan_fault(kind="timeout_after", **BUY, count=1, hold_s=30.0)
    _until_taken(stand)
    stand.kill()
    stand.start()
    stand.run(10)
    return 0.0


def not_found_at_start(stand: Stand) -> float:
    """An entry is partly filled; the bot starts anew, and the exchange does not find the order for a moment."""
    stand.client.plan_fault(kind="partial_fills", max_fill=300, refill_ms=3 * CANDLE_MS)
    _begun(stand)
    stand.run(0.3)
    stand.kill()
    stand.run(5)  # while nobody looks, more of it fills
    stand.client.plan_fault(kind="error", **LOOKUP, **NOT_THERE, count=2 * RETRIES)
    stand.client.plan_fault(kind="error", **{**LOOKUP, "method": "DELETE"}, **UNKNOWN, count=RETRIES)
    stand.start()
    stand.run(12)
    return 0.0


def partial_exit(stand: Stand) -> float:
    """A limit exit fills in part and rests; the price falls through the stop behind it."""
    _begun(stand)
    stand.run_to(stand.plan["exit_ms"] + CANDLE_MS - 60_000)
    stand.client.plan_fault(kind="partial_fills", max_fill=100, refill_ms=100 * CANDLE_MS, for_ms=CANDLE_MS // 2)
    entry = next(filled(stand.orders(), "buy"))
    stop = float(entry["cost"]) / float(entry["filled"]) * 0.97
    for _ in range(12):
        stand.run(1)
        if stand.price() < stop * 0.995:
            stand.run(0.4)  # a loop, to notice
            if stand.price() < stop * 0.995:
                break
    return stop


def refused_stop(stand: Stand) -> float:
    """The exchange refuses every stop order."""
    stand.client.plan_fault(kind="error", **STOP, status=400, code=-2010, count=0,
                            message="Stop price would trigger immediately.")  # fmt: skip
    _begun(stand)
    stand.run(16)
    return 0.0


def database_locked(stand: Stand) -> float:
    """Something holds the database's lock while the order is sent."""
    _begun(stand)
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.closing(sqlite3.connect(stand.database(), isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            held.set()
            free.wait(30)
            database.execute("ROLLBACK")

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not list(filled(stand.orders(), "buy")):
        stand.run(0.2)
    time.sleep(7)  # longer than SQLite waits for a lock
    free.set()
    thread.join()
    stand.run(10)
    return 0.0


def cancel_race(stand: Stand) -> float:
    """An entry rests; its time-out comes; the exchange refuses the cancellation and does not find the order."""
    stand.client.plan_fault(kind="partial_fills", max_fill=300, refill_ms=6 * CANDLE_MS)
    _begun(stand)
    lags = {"kind": "error", **LOOKUP, **NOT_THERE, "count": RETRIES}
    stand.client.plan_fault(kind="error", **{**LOOKUP, "method": "DELETE"}, **UNKNOWN, count=1, then=[lags])
    stand.run(14)
    return 0.0


def two_bots(stand: Stand) -> float:
    """Two bots trade one account."""
    _begun(stand, "bot", "twin")
    stand.run(10)
    return 0.0


def _until_taken(stand: Stand) -> None:
    for _ in range(100):
        stand.run(0.05)
        if not stand.client.faults():
            return
    raise TimeoutError("no order came")


SCENARIOS = (
    Scenario("lost reply", "three orders executed, their answers lost", lost_reply, calm),
    Scenario("garbled reply", "two orders executed, answered with rubbish", garbled_reply, calm),
    Scenario("crash before commit", "killed between order and commit", crash_before_commit, calm),
    Scenario("not found at start", "a live order is not found at the start", not_found_at_start, calm),
    Scenario(
        "partial exit blocks stop",
        "a limit exit fills in part, then the price falls",
        partial_exit,
        fall,
        {"unfilledtimeout": {"entry": 360, "exit": 360, "unit": "minutes"}},
    ),
    Scenario(
        "refused stop",
        "every stop on the exchange is refused",
        refused_stop,
        calm,
        {"order_types": {"entry": "limit", "exit": "limit", "stoploss": "limit", "stoploss_on_exchange": True}},
    ),
    Scenario("database locked", "the database is locked after the order was sent", database_locked, calm),
    Scenario("cancel race", "cancelled, refused, not found - and filled", cancel_race, calm),
    Scenario("two bots on one account", "a second bot on the same account and pair", two_bots, calm),
)
