"""Days of trading in live mode while something breaks every few minutes, and what must hold nevertheless.

Four bots on accounts of their own, a risk manager and a prediction service beside them, each a process that can be
killed; a seed draws what breaks and when. Through every incident: nothing comes from nowhere, nobody buys what he holds
already, nobody enters while risk manager, forecasts or candles are missing or a person has halted, every position has
its stop again soon, and once a day the three books agree order by order.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.chaos_plan import BETWEEN, CANDLE_MS, DAY, SLOTS, Incident, draw, moment_ms
from benchmarks.chaos_stand import BOTS, ChaosStand
from benchmarks.chaos_watch import Gap, Watch, history
from benchmarks.figures import Figure, Figures, Table
from benchmarks.loss_stand.stand import filled
from observability.progress import Progress
from trading.adapters.bot_books import read_book
from trading.adapters.fleet_books import ledger_lines
from trading.journal import Journal
from trading.reconcile import compare_books, journal_lines

TOLERANCE = 1e-8


@dataclass
class Record:
    """What was broken so far, and what the books said."""

    incidents: list[Incident] = field(default_factory=list)
    halts: list[str] = field(default_factory=list)
    books: list[str] = field(default_factory=list)
    compared: int = 0
    largest: float = 0.0
    seconds: float = 0.0


def run(
    progress: Progress, *, days: float = 1.0, seed: int = 1, replay: Path | None = None, minutes: float = 0.0
) -> Figures:
    """Play `days` virtual days from `seed`, or fewer, where `minutes` of real time are over first (0: no bound)."""
    record, began, slots = Record(), time.perf_counter(), int(days * DAY)
    watch, plan = Watch(patience_ms=4 * CANDLE_MS), deque(draw(seed, slots, BOTS))
    market = {"trading_days": days + 1, "seed": seed, **({} if replay is None else {"replay": replay})}
    with tempfile.TemporaryDirectory() as folder, ChaosStand(seed=seed, market=market, folder=Path(folder)) as stand:
        start_ms, slot = stand.begin(), 0
        with progress.task("chaos", days * DAY / SLOTS) as task:
            while slot < slots and not 0 < minutes * 60 < time.perf_counter() - began:
                stand.pass_to(slot, start_ms + moment_ms(slot))
                while plan and plan[0].slot == slot:
                    record.incidents.append(plan.popleft())
                    stand.do(record.incidents[-1])
                last = record.incidents[-1].name if record.incidents else ""
                slot += 1
                if slot % SLOTS == 0:
                    _look(stand, watch, record, last)
                    task.advance(1, last)
                if slot % DAY == 0 or slot == slots:
                    _compare(stand, watch, record)
        record.seconds = time.perf_counter() - began
        ledger = stand.client.ledger()
        watch.gaps += stand.damage.gaps
        watch.judge(ledger)
        watch.broken += stand.damage.broken + record.books
        return _figures(stand, watch, record, ledger, {"days": slot / DAY, "wanted_days": days, "seed": seed})


def _look(stand: ChaosStand, watch: Watch, record: Record, incident: str) -> None:
    """Every account, once a candle; a halt by the system itself is lifted by hand, as a person would."""
    ledger = stand.client.ledger()
    watch.look(ledger, stand.prices(), incident)
    if stand.halted or stand.risk_away:
        return
    latch = stand.risk.state()
    if latch.state.value != "active":
        record.halts.append(f"{incident}: {latch.reason}")
        watch.gaps.append(Gap(f"halted ({latch.reason})", BOTS, latch.since_ms, ledger["now_ms"]))
        stand.risk.resume("tester", "looked at, and lifted", True)


def _compare(stand: ChaosStand, watch: Watch, record: Record) -> None:
    """The three books of every bot, order by order; things have been calm for a while."""
    ledger = stand.client.ledger()
    with closing(Journal(stand.journal, read_only=True)) as journal:
        fills = list(journal.read("fill"))
    for name in BOTS:
        found = compare_books(
            read_book(stand.database(name)), journal_lines(fills, name), ledger_lines(ledger, name), TOLERANCE
        )
        record.compared, record.largest = record.compared + found.orders, max(record.largest, found.cost)
        if not found.agree or found.cost > TOLERANCE:
            record.books.append(f"the books of {name} differ: {found.text}")


def _figures(
    stand: ChaosStand, watch: Watch, record: Record, ledger: dict[str, Any], told: dict[str, float]
) -> Figures:
    books = {name: account["orders"] for name, account in ledger["accounts"].items()}
    entries = {name: len(list(filled(orders, "buy"))) for name, orders in books.items()}
    back, hits = stand.damage.recovery_s, {**stand.client.struck(), **stand.damage.struck}
    struck = Counter(item.name for item in record.incidents if strikes(item, hits))
    caught = sum(item.label in hits for item in record.incidents if item.name == BETWEEN)
    every = told["days"] * 24 * 60 / max(1, struck.total())
    at_most: dict[str, Any] = {"goal": 0, "at_most": True, "goal_of": "value"}
    figures = (
        Figure("invariants broken", len(watch.broken), "", **at_most),
        Figure("largest difference of the three books", record.largest, "USDT", goal=TOLERANCE, at_most=True,
               goal_of="value", note=f"{record.compared} comparisons of an order"),
        Figure("incidents that struck", struck.total(), "",
               note=f"of {len(record.incidents)} planned, in {told['days']:g} virtual days"),
        Figure("virtual minutes from one to the next", every, "min"),
        Figure("kill -9", sum(item.kills for item in record.incidents), "",
               note=f"{caught} of a bot that waited for the answer to its order"),
        Figure("orders", sum(map(len, books.values())), "", note=f"entries filled: {_told(entries)}"),
        Figure("halts by a breaker, lifted by hand", len(record.halts), ""),
        Figure("bots that ended by themselves", stand.ended, "", **at_most),
        Figure("slowest return", max((max(times) for times in back.values()), default=0.0), "s",
               note="until it has finished a loop, or answers; Freqtrade was imported before"),
        Figure("virtual speed-up", told["days"] * 86_400 / record.seconds, "x real time"),
    )  # fmt: skip
    facts = {
        **told, "seconds": record.seconds, "broken": watch.broken, "halts": record.halts,
        "incidents": [(item.slot, item.name, item.who, item.slots) for item in record.incidents],
        "struck": dict(struck), "entries": entries, "history": history(ledger), "recovery_s": dict(back),
    }  # fmt: skip
    return Figures(
        "chaos", figures, "two shared cores: Freqtrade's loop a candle, and its start after every kill", facts,
        (_table(stand, watch, record, struck),),
    )  # fmt: skip


def _table(stand: ChaosStand, watch: Watch, record: Record, struck: Mapping[str, int]) -> Table:
    """An incident a row."""
    planned = Counter(item.name for item in record.incidents)
    back, bare = stand.damage.recovery_s, watch.longest_bare_ms
    rows = tuple(
        (name, str(planned[name]), str(struck.get(name, 0)), *_spread(back.get(name, [])),
         str(bare.get(name, 0) // CANDLE_MS))
        for name in sorted(planned)
    )  # fmt: skip
    columns = ("incident", "planned", "struck", "back after s, median", "worst", "longest without a stop, candles")
    return Table("Incidents", columns, rows)


def strikes(incident: Incident, hits: Mapping[str, int]) -> bool:
    """Whether it met anything: a kill always does, a fault or a lie when a request or an order came across it.

    A kill between order and commit that met no order was a plain one, and does not count.
    """
    return (incident.kills and incident.name != BETWEEN) or hits.get(incident.label, 0) > 0


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _spread(times: list[float]) -> tuple[str, str]:
    """Median and worst, empty where nothing was restarted."""
    return (f"{float(np.median(times)):.1f}", f"{max(times):.1f}") if times else ("", "")
