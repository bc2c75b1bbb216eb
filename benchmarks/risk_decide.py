"""What asking the risk manager costs: the pure decision, the durable one, and the one through its Ray actor.

Peer in the same run: a bare 4 kB append with fsync on the same disk, the least that a durable answer can cost.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from trading.adapters.risk_actor import RiskActorConfig, start_risk_actor
from trading.clock import FixedClock
from trading.events import AccountReport
from trading.kill_switch import FILE_NAME, KillSwitch
from trading.limits import RiskLimits
from trading.manager import RiskManager
from trading.orders import ForecastRef, OrderIntent
from trading.risk import decide

NOW, CANDLE = 1_700_000_100_000, 900_000
LIMITS = RiskLimits(
    accounts={"acc": "sandbox"}, max_entries=10**9, max_pair_entries=10**9, max_open_positions=99, max_shortfall=0.9
)
PAIRS = ("BTC/USDT", *(f"A{number}/USDT" for number in range(7)))
REPORT = AccountReport("acc", "nn", 1, NOW, 10_000.0, 10_000.0, (), dict.fromkeys(PAIRS, 50_000.0))


def intent(name: str) -> OrderIntent:
    forecast = ForecastRef(NOW - CANDLE, "mtst:1", "champion", 0.004, 0.01)
    return OrderIntent(
        name, "nn", "acc", "sandbox", "BTC/USDT", "buy", "entry", 0.01, 50_000.0, 49_000.0, 1, NOW, NOW - CANDLE,
        forecast, CANDLE,
    )  # fmt: skip


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


def in_process(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    result = {}
    with (folder / "peer").open("ab", buffering=0) as file:

        def append(_number: int) -> None:
            file.write(b"x" * 4096)
            os.fsync(file.fileno())

        result["bare fsync"] = milliseconds(append, rounds)
    manager = RiskManager(folder / "journal.db", LIMITS, FixedClock(NOW))
    manager.acquire_lease("acc", "nn")
    manager.report(REPORT)
    book = manager.book()
    result["pure decide"] = milliseconds(lambda n: decide(intent(f"p{n}"), book, LIMITS, FixedClock(NOW)), rounds)
    result["approved, journalled"] = milliseconds(
        lambda n: manager.decide(intent(f"a{n}")), rounds, lambda n: manager.settle(f"r-a{n}", "cancelled")
    )
    bad = replace(intent("bad"), amount=float("nan"))
    result["refused, journalled"] = milliseconds(lambda _: manager.decide(bad), rounds)
    result["in process, eight at a time"] = {
        "per_s": at_a_time(manager.decide, lambda key: manager.settle(key, "cancelled"), rounds)
    }
    result["recovery, whole journal"] = recovery(manager, folder)
    again = RiskManager(folder / "journal.db", LIMITS, FixedClock(NOW))
    again.snapshot(1)
    result["recovery, from a snapshot"] = recovery(again, folder)
    return result


def at_a_time(
    decide: Callable[[OrderIntent], Any], settle: Callable[[str], Any], rounds: int, threads: int = 8
) -> float:
    """Approved, durable entries a second when so many bots ask at once; they share syncs of the disk."""

    def ask(thread: int) -> None:
        for number in range(rounds // threads):
            name = f"t{thread}-{number}"
            decide(replace(intent(name), pair=PAIRS[thread]))
            settle(f"r-{name}")

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(ask, range(threads)))
    return round(rounds / (time.perf_counter() - started))


def recovery(manager: RiskManager, folder: Path) -> dict[str, float]:
    """Seconds until a manager with this journal decides again."""
    rows = int(manager.ping()["last_id"])
    manager.close()
    started = time.perf_counter()
    RiskManager(folder / "journal.db", LIMITS, FixedClock(NOW)).close()
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


def through_actor(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """The same questions to the Ray actor, inside a Ray session."""
    import ray

    handle = start_risk_actor(RiskActorConfig(folder / "actor.db", LIMITS, FixedClock(NOW), name="bench"))
    ray.get([handle.acquire_lease.remote("acc", "nn")])
    ray.get(handle.report.remote(REPORT))
    first = milliseconds(lambda n: ray.get(handle.decide.remote(intent(f"f{n}"))), 1)
    ray.get(handle.settle.remote("r-f0", "cancelled"))
    times = {
        "actor, first": first,
        "actor, ping": milliseconds(lambda _: ray.get(handle.ping.remote()), rounds),
        "actor, approved": milliseconds(
            lambda n: ray.get(handle.decide.remote(intent(f"a{n}"))),
            rounds,
            lambda n: ray.get(handle.settle.remote(f"r-a{n}", "cancelled")),
        ),
        "actor, eight at a time": {
            "per_s": at_a_time(
                lambda asked: ray.get(handle.decide.remote(asked)),
                lambda key: ray.get(handle.settle.remote(key, "cancelled")),
                rounds,
            )
        },
    }
    ray.get(handle.close.remote())
    ray.kill(handle)
    return times


def rows(times: dict[str, dict[str, float]]) -> list[Figure]:
    """Goals: 20 us for the pure decision, 3 ms p99 through the actor, 1,000 decisions a second."""
    fsync, pure = times["bare fsync"], times["pure decide"]
    whole, kept = times["recovery, whole journal"], times["recovery, from a snapshot"]
    halt, bare = times["trade halt"], times["bare Python"]
    row = 1e3 / fsync["p50"]
    goal: dict[str, Any] = {"at_most": True, "goal_of": "value"}
    return [
        *(Figure(f"pure decide, {name}", pure[name] * 1e3, "us", goal=20, **goal) for name in ("p50", "p99")),
        *(
            Figure(f"{name}, {part}", took[part], "ms", f"bare fsync {part}", fsync[part], took[part] / fsync[part],
                   goal=3.0 if (name, part) == ("actor, approved", "p99") else None, **goal)
            for name, took in times.items()
            if "p99" in took and name not in ("bare fsync", "pure decide", "trade halt", "bare Python")
            for part in ("p50", "p99")
        ),
        *(
            Figure(f"decisions, {name}", took["per_s"], "1/s", "bare fsyncs in a row", row, took["per_s"] / row,
                   goal=1000, goal_of="value", note="each of them settled, too: two durable writes")
            for name, took in times.items() if "per_s" in took
        ),
        Figure(
            "recovery from a snapshot", kept["seconds"], "s", f"replay of {whole['rows']} rows", whole["seconds"],
            kept["seconds"] / max(1e-9, whole["seconds"]),
        ),
        Figure("trade halt from the shell, worst", halt["p99"] / 1e3, "s", "bare Python", bare["p99"] / 1e3,
               halt["p99"] / bare["p99"], goal=1.0, **goal),
    ]  # fmt: skip
