"""What asking the risk manager costs: the pure decision, the durable one, and the one through its Ray actor.

Peer in the same run: a bare 4 kB append with fsync on the same disk, the least that a durable answer can cost. The same
with the journal in memory tells how much of it is the disk's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.figures import Figure
from trading.adapters.risk_actor import RiskActorConfig, start_risk_actor
from trading.adapters.risk_port import RayRisk, RiskPort
from trading.book import Book, replay
from trading.clock import FixedClock, WallClock
from trading.events import AccountReport, Decided
from trading.kill_switch import FILE_NAME, KillSwitch
from trading.limits import RiskLimits
from trading.manager import RiskManager
from trading.orders import Approved, ForecastRef, OrderIntent
from trading.risk import decide

Times: TypeAlias = dict[str, dict[str, float]]
CANDLE = 900_000
LIMITS = RiskLimits(
    accounts={"acc": "sandbox"}, max_entries=10**9, max_pair_entries=10**9, max_open_positions=99, max_shortfall=0.9,
    # at a thousand entries a second these windows hold some dozens, as an account's hour does
    entries_window_ms=50, pair_entries_window_ms=50, max_report_age_ms=3_600_000, lease_ttl_ms=3_600_000,
)  # fmt: skip
REMEMBERED = 3_000  # entries of a day: ten accounts at the default twelve an hour
PAIRS = ("BTC/USDT", *(f"A{number}/USDT" for number in range(7)))
MEMORY = Path("/dev/shm")
ON_DISK, IN_MEMORY = "actor, ", "actor, journal in memory, "  # how the actor's rows begin


def now() -> int:
    return WallClock().now_ms()


def intent(name: str) -> OrderIntent:
    at_ms = now()
    forecast = ForecastRef(at_ms - CANDLE, "mtst:1", "champion", 0.004, 0.01)
    return OrderIntent(
        name, "nn", "acc", "sandbox", "BTC/USDT", "buy", "entry", 0.01, 50_000.0, 49_000.0, 1, at_ms, at_ms - CANDLE,
        forecast, CANDLE,
    )  # fmt: skip


def opened(risk: RiskPort) -> RiskPort:
    """The risk manager with a lease and a report, so that it is active."""
    risk.acquire_lease("acc", "nn")
    risk.report(AccountReport("acc", "nn", 1, now(), 10_000.0, 10_000.0, (), dict.fromkeys(PAIRS, 50_000.0)))
    return risk


def remembering(book: Book, count: int) -> Book:
    """The book after so many approved and cancelled entries earlier in the day."""
    events = []
    for number in range(count):
        asked = intent(f"earlier-{number}")
        approved = Approved(asked.intent_id, f"r-{number}", asked.amount, asked.price)
        events.append(Decided(asked, approved, now() - 7_200_000 + number))
    return replace(replay(events, book), reservations={})


def milliseconds(
    call: Callable[[int], Any], rounds: int, between: Callable[[int], Any] | None = None
) -> dict[str, float]:
    times = []
    for number in range(rounds):
        started = time.perf_counter()
        call(number)
        times.append((time.perf_counter() - started) * 1e3)
        if between is not None:
            between(number)
    times.sort()
    return {"p50": round(times[rounds // 2], 4), "p99": round(times[int(rounds * 0.99)], 4)}


def bare_fsync(folder: Path, rounds: int) -> dict[str, float]:
    with (folder / "peer").open("ab", buffering=0) as file:

        def append(_number: int) -> None:
            file.write(b"x" * 4096)
            os.fsync(file.fileno())

        return milliseconds(append, rounds)


def in_process(folder: Path, rounds: int) -> Times:
    result = {"bare fsync": bare_fsync(folder, rounds)}
    manager = RiskManager(folder / "journal.db", LIMITS, WallClock())
    opened(manager)
    book = remembering(manager.book(), REMEMBERED)
    at = FixedClock(now())
    result["pure decide"] = milliseconds(lambda n: decide(intent(f"p{n}"), book, LIMITS, at), rounds)
    result["approved, journalled"] = milliseconds(
        lambda n: approve(manager, f"a{n}"), rounds, lambda n: manager.settle(f"r-a{n}", "cancelled")
    )
    bad = replace(intent("bad"), amount=float("nan"))
    result["refused, journalled"] = milliseconds(lambda _: manager.decide(bad), rounds)
    result["in process, eight at a time"] = {"per_s": at_a_time(manager, rounds)}
    result["recovery, whole journal"] = recovery(manager, folder)
    again = RiskManager(folder / "journal.db", LIMITS, WallClock())
    again.snapshot(1)
    result["recovery, from a snapshot"] = recovery(again, folder)
    return result


def approve(risk: RiskPort, name: str, pair: str = PAIRS[0]) -> None:
    """Ask for an entry that every rule passes; anything but an approval would be measured as something else."""
    decision = risk.decide(replace(intent(name), pair=pair))
    if not isinstance(decision, Approved):
        raise TypeError(f"refused: {decision}")


def at_a_time(risk: RiskPort, rounds: int, threads: int = 8) -> float:
    """Approved, durable entries a second when so many bots ask at once; they share syncs of the disk."""

    def ask(thread: int) -> None:
        for number in range(rounds // threads):
            name = f"t{thread}-{number}"
            approve(risk, name, PAIRS[thread])
            risk.settle(f"r-{name}", "cancelled")

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(ask, range(threads)))
    return round(rounds / (time.perf_counter() - started))


def recovery(manager: RiskManager, folder: Path) -> dict[str, float]:
    """Seconds until a manager with this journal decides again."""
    rows = int(manager.ping()["last_id"])
    manager.close()
    started = time.perf_counter()
    RiskManager(folder / "journal.db", LIMITS, WallClock()).close()
    return {"seconds": round(time.perf_counter() - started, 3), "rows": rows}


def kill_switch(folder: Path, rounds: int = 5) -> dict[str, dict[str, float]]:
    """From the shell to a pulled switch, with nobody alive; peer: a Python that does nothing."""
    var = folder / "home" / "var"
    KillSwitch(var / FILE_NAME).install()
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "MTST_HOME": str(var.parent)}
    halt = [str(root / "tools" / "start.sh"), "trade", "halt", "--who", "bench"]

    def call(words: list[str]) -> None:
        subprocess.run(words, env=environment, cwd=folder, check=True, capture_output=True, timeout=60)

    return {
        "trade halt": milliseconds(lambda _: call(halt), rounds, lambda _: call([sys.executable, "-c", "pass"])),
        "bare Python": milliseconds(lambda _: call([sys.executable, "-c", "pass"]), rounds),
    }


@contextmanager
def in_memory() -> Iterator[Path | None]:
    """A folder that no disk slows down; None where the system has none."""
    if not MEMORY.is_dir():
        yield None
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        yield Path(name)


def through_actor(folder: Path, rounds: int) -> Times:
    """The same questions to the Ray actor, as bots ask them, inside a Ray session: on the disk and in memory."""
    times = {f"{ON_DISK}{what}": took for what, took in _ask_actor(folder, "bench", rounds).items()}
    with in_memory() as memory:
        if memory is not None:
            beside = _ask_actor(memory, "bench-memory", rounds)
            times |= {f"{IN_MEMORY}{what}": took for what, took in beside.items()}
    return times


def _ask_actor(folder: Path, name: str, rounds: int) -> Times:
    import ray

    handle = start_risk_actor(RiskActorConfig(folder / "actor.db", LIMITS, WallClock(), name=name))
    risk = opened(RayRisk(handle))
    first = milliseconds(lambda n: approve(risk, f"f{n}"), 1)
    risk.settle("r-f0", "cancelled")
    times = {
        "bare fsync": bare_fsync(folder, rounds),
        "first": first,
        "ping": milliseconds(lambda _: ray.get(handle.ping.remote()), rounds),
        "approved": milliseconds(
            lambda n: approve(risk, f"a{n}"), rounds, lambda n: risk.settle(f"r-a{n}", "cancelled")
        ),
        "eight at a time": {"per_s": at_a_time(risk, rounds)},
    }
    ray.get(handle.close.remote())
    ray.kill(handle)
    return times


def rows(times: Times) -> list[Figure]:
    """Goals: 20 us for the pure decision, 3 ms p99 through the actor, 1,000 decisions a second."""
    pure, halt, bare = times["pure decide"], times["trade halt"], times["bare Python"]
    whole, kept = times["recovery, whole journal"], times["recovery, from a snapshot"]
    goal: dict[str, Any] = {"at_most": True, "goal_of": "value"}
    return [
        *(
            Figure(f"pure decide, {part}", pure[part] * 1e3, "us", goal=20 if part == "p50" else None,
                   note=f"{REMEMBERED:,} entries of the day remembered", **goal)
            for part in ("p50", "p99")
        ),
        *_beside_fsync(times, goal),
        Figure(
            "recovery from a snapshot", kept["seconds"], "s", f"replay of {whole['rows']} rows", whole["seconds"],
            kept["seconds"] / max(1e-9, whole["seconds"]),
        ),
        Figure("trade halt from the shell, worst", halt["p99"] / 1e3, "s", "bare Python", bare["p99"] / 1e3,
               halt["p99"] / bare["p99"], goal=1.0, **goal),
    ]  # fmt: skip


def _beside_fsync(times: Times, goal: dict[str, Any]) -> Iterator[Figure]:
    """Everything durable beside bare fsyncs of the same minute in the same folder."""
    for name, took in times.items():
        if name.endswith("bare fsync") or name in ("pure decide", "trade halt", "bare Python"):
            continue
        place = next(each for each in (IN_MEMORY, ON_DISK, "") if name.startswith(each))
        fsync = times[f"{place}bare fsync"]
        for part in ("p50", "p99") if "p99" in took else ():
            wanted = 3.0 if (name, part) == ("actor, approved", "p99") else None
            yield Figure(f"{name}, {part}", took[part], "ms", f"bare fsync {part}", fsync[part],
                         took[part] / fsync[part], goal=wanted, **goal)  # fmt: skip
        if "per_s" in took:
            row = 1e3 / fsync["p50"]
            yield Figure(f"decisions, {name}", took["per_s"], "1/s", "bare fsyncs in a row", row, took["per_s"] / row,
                         goal=None if place == IN_MEMORY else 1000, goal_of="value",
                         note="each of them settled, too: two durable writes")  # fmt: skip
