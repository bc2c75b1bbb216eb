"""Days of trading in live mode while something breaks every few candles, and what must hold nevertheless.

Four bots on accounts of their own, a risk manager and a prediction service beside them, each a process that can be
killed; a seed draws what breaks and when. Through every incident: nothing comes from nowhere, nobody buys what he holds
already, nobody enters while risk manager, forecasts or candles are missing or a person has halted, every position has
its stop again soon, and once a day the three books agree order by order.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.chaos_stand import BOTS, PAIRS, ChaosStand
from benchmarks.chaos_watch import Gap, Watch, history
from benchmarks.figures import Figure, Figures, Table
from benchmarks.loss_stand.stand import CANDLE_MS
from observability.progress import Progress
from trading.adapters.bot_books import read_book
from trading.adapters.fleet_books import ledger_lines
from trading.journal import Journal
from trading.reconcile import compare_books, journal_lines

DAY = 96  # candles
REST = (1, 2, 3)  # candles from the end of an incident to the next, drawn
CALM = 6  # candles without incidents before the books are compared
KILLS = 3  # how much likelier than another incident a kill -9 is
TOLERANCE = 1e-8


@dataclass
class Record:
    """What happened, in order: (virtual ms, incident); and what the books said."""

    incidents: list[tuple[int, str]] = field(default_factory=list)
    halts: list[str] = field(default_factory=list)
    books: list[str] = field(default_factory=list)
    compared: int = 0
    largest: float = 0.0
    seconds: float = 0.0


def run(
    progress: Progress, *, days: float = 1.0, seed: int = 1, replay: Path | None = None, minutes: float = 0.0
) -> Figures:
    """Play `days` virtual days from `seed`, or fewer, where `minutes` of real time are over first (0: no bound)."""
    record, rng, began = Record(), np.random.default_rng(seed), time.perf_counter()
    watch = Watch(patience_ms=4 * CANDLE_MS)
    market = {"trading_days": days + 1, "seed": seed, **({} if replay is None else {"replay": replay})}
    with tempfile.TemporaryDirectory() as folder, ChaosStand(seed=seed, market=market, folder=Path(folder)) as stand:
        names = [name for name in stand.incidents for _ in range(KILLS if name.startswith("kill") else 1)]
        stand.begin()
        start_ms = stand.client.now_ms()
        end_ms, next_day_ms = start_ms + int(days * DAY) * CANDLE_MS, start_ms + DAY * CANDLE_MS
        with progress.task("chaos", days * DAY) as task:
            while (now_ms := stand.client.now_ms()) < end_ms and not 0 < minutes * 60 < time.perf_counter() - began:
                incident = str(rng.choice(names))
                record.incidents.append((now_ms, incident))
                stand.incidents[incident](rng)
                for _ in range(int(rng.choice(REST))):
                    stand.run(1)
                    _look(stand, watch, record, incident)
                if now_ms > next_day_ms:
                    next_day_ms += DAY * CANDLE_MS
                    _compare(stand, watch, record)
                task.advance((stand.client.now_ms() - now_ms) / CANDLE_MS, incident)
        _compare(stand, watch, record)
        ledger = stand.client.ledger()
        watch.gaps += stand.damage.gaps
        watch.judge(ledger)
        watch.broken += stand.damage.broken + record.books
        record.seconds = time.perf_counter() - began
        played = (stand.client.now_ms() - start_ms) / CANDLE_MS / DAY
        return _figures(stand, watch, record, ledger, {"days": round(played, 3), "wanted_days": days, "seed": seed})


def _look(stand: ChaosStand, watch: Watch, record: Record, incident: str) -> None:
    """Every account, a candle after an incident; a halt by the system itself is lifted by hand, as a person would."""
    stand.settled()
    ledger = stand.client.ledger()
    prices = stand.prices()
    watch.look(ledger, {pair: prices[pair.replace("/", "")] for pair in PAIRS}, incident)
    latch = stand.risk.state()
    if latch.state.value != "active":
        record.halts.append(f"{incident}: {latch.reason}")
        watch.gaps.append(Gap(f"halted ({latch.reason})", BOTS, latch.since_ms, ledger["now_ms"]))
        stand.risk.resume("tester", "looked at, and lifted", True)


def _compare(stand: ChaosStand, watch: Watch, record: Record) -> None:
    """Calm, and then the three books of every bot, order by order."""
    stand.client.clear_faults()
    for _ in range(CALM):
        stand.run(1)
        _look(stand, watch, record, "calm")
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
    orders = [order for account in ledger["accounts"].values() for order in account["orders"]]
    entries = sum(order["side"] == "buy" and float(order["filled"]) > 0 for order in orders)
    counts, back = Counter(name for _, name in record.incidents), stand.damage.recovery_s
    bare = {name: watch.longest_bare_ms.get(name, 0) // CANDLE_MS for name in counts}
    rows = tuple(
        (name, str(count), *_spread(back.get(name, [])), str(bare[name])) for name, count in sorted(counts.items())
    )
    columns = ("incident", "times", "back after s, median", "worst", "longest without a stop, candles")
    at_most: dict[str, Any] = {"goal": 0, "at_most": True, "goal_of": "value"}
    figures = (
        Figure("invariants broken", len(watch.broken), "", **at_most),
        Figure("largest difference of the three books", record.largest, "USDT", goal=TOLERANCE, at_most=True,
               goal_of="value", note=f"{record.compared} comparisons of an order"),
        Figure("incidents", len(record.incidents), "", note=f"in {told['days']:g} virtual days"),
        Figure("orders", len(orders), "", note=f"{entries} entries filled"),
        Figure("halts by a breaker, lifted by hand", len(record.halts), ""),
        Figure("bots that ended by themselves", stand.ended, "", **at_most),
        Figure("slowest return", max((max(times) for times in back.values()), default=0.0), "s",
               note="until it has finished a loop, or answers; Freqtrade was imported before"),
        Figure("virtual speed-up", told["days"] * 86_400 / record.seconds, "x real time"),
    )  # fmt: skip
    facts = {
        **told, "seconds": record.seconds, "broken": watch.broken, "halts": record.halts,
        "incidents": record.incidents, "history": history(ledger), "recovery_s": dict(back),
    }  # fmt: skip
    return Figures(
        "chaos", figures, "two shared cores: Freqtrade's loop a candle, and its start after every kill", facts,
        (Table("Incidents", columns, rows),),
    )  # fmt: skip


def _spread(times: list[float]) -> tuple[str, str]:
    """Median and worst, empty where nothing was restarted."""
    return (f"{float(np.median(times)):.1f}", f"{max(times):.1f}") if times else ("", "")
