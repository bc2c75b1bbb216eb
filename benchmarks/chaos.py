"""Days of trading in live mode while something breaks every couple of virtual hours, and what must hold nevertheless.

Four bots on accounts of their own and one risk manager beside them; a seed draws what breaks and when. After every
incident the books are looked at: nothing may come from nowhere, no account may buy what it holds already, nothing may
be entered while the risk manager is gone, and soon after every incident each position must have its stop on the
exchange.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, Figures, Table
from benchmarks.loss_stand.stand import CANDLE_MS, DUST, PAIR, Stand
from observability.progress import Progress
from trading.adapters.bot_books import read_book
from trading.adapters.fleet_books import ledger_lines
from trading.adapters.sandbox.market import Market

BOTS = ("bot", "anna", "bert", "carl")
ORDER = {"method": "POST", "path": "/api/v3/order"}
FAULTS: dict[str, dict[str, Any]] = {
    "lost reply": {"kind": "timeout_after", **ORDER, "hold_s": 0.1},
    "order never arrives": {"kind": "timeout_before", **ORDER, "hold_s": 0.1},
    "cut connection": {"kind": "drop_after", **ORDER},
    "garbled reply": {"kind": "garble", **ORDER},
    "exchange down": {"kind": "error", "path": "/api/v3", "status": 503, "code": -1001, "count": 8},
    "rate limit": {"kind": "error", "path": "/api/v3", "status": 429, "code": -1003, "count": 4},
    "stale candles": {"kind": "stale_candles", "lag_ms": 4 * CANDLE_MS, "for_ms": 3 * CANDLE_MS},
    "frozen feed": {"kind": "frozen_feed", "for_ms": 3 * CANDLE_MS},
    "garbage candles": {"kind": "garbage_candles", "how": "nan", "count": 4},
    "revised candles": {"kind": "revised_candles", "lag_ms": CANDLE_MS, "for_ms": 4 * CANDLE_MS},
    "partial fills": {"kind": "partial_fills", "max_fill": 200, "refill_ms": CANDLE_MS, "for_ms": 2 * CANDLE_MS},
    "stops refused": {**ORDER, "kind": "error", "params": {"type": "STOP"}, "status": 400, "code": -2010,
                      "message": "Stop price would trigger immediately.", "count": 2},
}  # fmt: skip
INCIDENTS = (*FAULTS, "kill -9 bot", "kill -9 bot", "kill -9 bot", "kill -9 risk manager")
REST, CLEARING = 4, 4  # candles between incidents, and until protection must be back


@dataclass
class Record:
    """What happened: incidents by kind, violations in words, real seconds until what was killed worked again."""

    incidents: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    broken: list[str] = field(default_factory=list)
    recovery_s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    away: list[tuple[int, int]] = field(default_factory=list)


def run(progress: Progress, *, days: float = 1.0, seed: int = 1, replay: Path | None = None) -> Figures:
    """Play `days` virtual days from `seed`."""
    record, rng, began = Record(), np.random.default_rng(seed), time.perf_counter()
    market = {"trading_days": days + 1, "seed": seed, **({} if replay is None else {"replay": replay})}
    with Stand(ours=True, seed=seed, plan=_busy, accounts=BOTS, market=market) as stand:
        for name in BOTS:
            stand.start(name)
        end_ms = stand.client.now_ms() + int(days * 96) * CANDLE_MS
        with progress.task("chaos", days * 96) as task:
            while (now := stand.client.now_ms()) < end_ms:
                incident = str(rng.choice(INCIDENTS))
                record.incidents[incident] += 1
                _break(stand, incident, rng, record)
                stand.run(REST + CLEARING)
                _look(stand, incident, record)
                task.advance((stand.client.now_ms() - now) / CANDLE_MS, incident)
        orders = _finish(stand, record)
    return _figures(record, orders, days, seed, time.perf_counter() - began)


def _busy(market: Market) -> dict[str, Any]:
    """In for a quarter of an hour to three, out for one, for ever: see `scheduled`."""
    return {"enter_from_ms": market.open_ms, "enter_until_ms": market.end_ms, "exit_ms": market.end_ms, "cycle": 8}


def _break(stand: Stand, incident: str, rng: np.random.Generator, record: Record) -> None:
    began = time.perf_counter()
    if incident == "kill -9 bot":
        name = str(rng.choice(BOTS))
        stand.kill(name)
        stand.start(name)
        loops = stand.client.health()["participants"]
        assert name in loops
    elif incident == "kill -9 risk manager":
        port, since = stand.kill_risk(), stand.client.now_ms()
        stand.run(2)
        record.away.append((since, stand.client.now_ms()))
        stand.start_risk(port)
    else:
        stand.client.plan_fault(**FAULTS[incident])
        return
    record.recovery_s[incident].append(time.perf_counter() - began)


def _look(stand: Stand, incident: str, record: Record) -> None:
    """Every account after an incident; faults that nobody met are taken back."""
    stand.client.clear_faults()
    ledger, price = stand.client.ledger(), stand.price()
    record.broken += [f"{incident}: {problem}" for problem in ledger["problems"]]
    base = PAIR.partition("/")[0]
    for name in BOTS:
        account = ledger["accounts"][name]
        held = float(account["balances"].get(base, {"total": 0})["total"])
        stops = [order for order in account["orders"] if "stop" in order["type"] and order["status"] == "new"]
        resting = sum(float(order["amount"]) for order in stops)
        working = any(order["status"] == "partially_filled" for order in account["orders"])
        if (held - resting) * price > DUST and not working:
            record.broken.append(f"{incident}: {name} holds {held:.4g}, stops cover {resting:.4g}")
        if held * price > 2_000:
            record.broken.append(f"{incident}: {name} bought twice: {held:.4g}")


def _finish(stand: Stand, record: Record) -> int:
    """The three-way look at the end: every filled order is in its bot's database, none came without approval."""
    stand.run(CLEARING)
    ledger, count = stand.client.ledger(), 0
    for name in BOTS:
        theirs = {key: line for key, line in ledger_lines(ledger, name).items() if line.filled > 0}
        mine = read_book(stand.database(name))
        count += len(theirs)
        record.broken += [f"the database of {name} lacks order {key}" for key in theirs if key not in mine]
        record.broken += [
            f"order {key} of {name} differs" for key in theirs.keys() & mine.keys()
            if abs(theirs[key].cost - mine[key].cost) > 1e-6
        ]  # fmt: skip
        for order in ledger["accounts"][name]["orders"]:
            if order["side"] == "buy" and any(a + 1_000 < order["created_ms"] < b for a, b in record.away):
                record.broken.append(f"{name} entered while the risk manager was gone: order {order['order_id']}")
    return count


def _figures(record: Record, orders: int, days: float, seed: int, took_s: float) -> Figures:
    worst = max((max(times) for times in record.recovery_s.values()), default=0.0)
    rows = tuple((name, str(count), *_spread(record.recovery_s.get(name, []))) for name, count in _counted(record))
    figures = (
        Figure("invariants broken", len(record.broken), "", goal=0, at_most=True, goal_of="value"),
        Figure("incidents", sum(record.incidents.values()), "", note=f"{orders} orders in {days:g} virtual days"),
        Figure(
            "slowest restart", worst, "s", note="until it takes part in the clock again; Freqtrade was imported before"
        ),
        Figure("virtual speed-up", days * 86_400 / took_s, "x real time"),
    )
    return Figures(
        "chaos",
        figures,
        "two shared cores and Freqtrade's own start",
        {"seed": seed, "days": days, "broken": record.broken, "incidents": dict(record.incidents)},
        (Table("Incidents", ("incident", "times", "restart s, median", "worst"), rows),),
    )


def _counted(record: Record) -> list[tuple[str, int]]:
    return sorted(record.incidents.items())


def _spread(times: list[float]) -> tuple[str, str]:
    """Median and worst, empty where nothing was restarted."""
    return (f"{float(np.median(times)):.1f}", f"{max(times):.1f}") if times else ("", "")
