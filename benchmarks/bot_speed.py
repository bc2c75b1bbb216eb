"""How soon a bot acts: from a candle's close to the end of the loop that sends its orders, and from kill -9 to trading.

A real fleet: Ray, the risk manager, one Freqtrade bot of plain rules, live mode with signed orders on the sandbox
exchange in lock step. A candle's time runs from the moment at which the clock lets it close until the bot sleeps
again, so it bounds the time to every order of that candle from above. Forecasts are not part of it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure, Figures
from cluster.ray_local import ray_session
from cluster.settings import Settings
from cluster.stages import trade as stage
from cluster.stages.bots import Forecasts, bot_specs
from cluster.stages.exchange import start_exchange
from observability.progress import NullProgress, Progress
from trading.adapters.fleet import Fleet

BOT = "swing"


def candle_seconds(fleet: Fleet, candles: int) -> list[float]:
    """Real seconds of each of the next candles, slept out to the end of the bot's loop."""
    times = []
    for _ in range(candles):
        started = time.perf_counter()
        fleet.run_candles(1, NullProgress())
        times.append(time.perf_counter() - started)
    return times


def run(progress: Progress, *, pairs: int = 50, candles: int = 20, kills: int = 3) -> Figures:
    """Goals: a candle within 1.0 s for 50 pairs, a killed bot back within 10 s."""
    names = tuple(f"C{number:02d}/USDT" for number in range(pairs))
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings().changed(
            workspace={"root": Path(folder)},
            market={"trading_days": 3, "history_days": 6, "pairs": names},
            trade={"strategies": (BOT,)},
            cluster={"dashboard": False},
        )
        settings.workspace.make()
        with ray_session(settings):
            handles = stage.prepare(settings)
            exchange = start_exchange(settings, NullProgress(), accounts=(BOT,))
            try:
                specs = bot_specs(settings, Forecasts(), exchange)
                fleet = stage.start_fleet(settings, NullProgress(), specs, handles=handles)
                try:
                    with progress.task(f"{candles} candles of {pairs} pairs"):
                        times = sorted(candle_seconds(fleet, candles))
                    with progress.task(f"kill -9, {kills} times"):
                        back = [fleet.kill_and_recover(BOT).seconds for _ in range(kills)]
                    orders = fleet.status()[BOT].orders
                finally:
                    stage.stop_fleet(settings, fleet)
            finally:
                exchange.stop()
    goal = {"at_most": True, "goal_of": "value"}
    figures = (
        Figure(
            f"candle to orders, {pairs} pairs, p50", statistics.median(times), "s", goal=1.0, **goal,  # type: ignore[arg-type]
            note=f"no forecast; {orders} orders filled",
        ),
        Figure(f"candle to orders, {pairs} pairs, worst", times[-1], "s", goal=1.0, **goal),  # type: ignore[arg-type]
        Figure("kill -9 to trading, median", statistics.median(back), "s", goal=10.0, **goal),  # type: ignore[arg-type]
        Figure("kill -9 to trading, worst", max(back), "s", goal=10.0, **goal),  # type: ignore[arg-type]
    )  # fmt: skip
    bound = (
        "a new candle costs one request and one run of Freqtrade's analysis a pair; a restart the import of Freqtrade"
    )
    return Figures("a bot's speed", figures, bound, {"candle_seconds": times, "restart_seconds": back})
