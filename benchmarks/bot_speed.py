"""How soon a bot acts: from a candle's close to the end of the loop that sends its orders, from kill -9 to trading.

A real fleet: Ray, the risk manager, one Freqtrade bot that trades the forecasts of a served Bento, live mode with
signed orders on the sandbox exchange in lock step. A candle's time runs from the moment at which the clock lets it
close until the bot sleeps again: candles fetched, forecasts asked for and given, orders decided, sent and booked. It
bounds the time to every order of that candle from above. The network is as it was drawn: what it costs does not depend
on what it knows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.loss_stand.network import untrained
from cluster import processes
from cluster.settings import Settings
from cluster.stages import trade as stage
from cluster.stages.bots import Forecasts, bot_specs
from cluster.stages.exchange import start_exchange
from mtst.adapters.bento import ServeOptions, build_bento, serve_bento
from observability.ports import free_port
from observability.progress import NullProgress, Progress
from pipelines.spec import default_spec
from trading.adapters.fleet import Fleet

BOT = "nn_predictor"
WARM = 3  # candles before the first that counts
FREE = {"policy": {"horizon": 4, "fee_rate": 0.0, "slippage": 0.0}}  # so that an untrained network wants to trade


def configured(settings: Settings, pairs: int) -> Settings:
    """The settings of this benchmark."""
    names = tuple(f"C{number:02d}/USDT" for number in range(pairs))
    return settings.changed(
        market={"trading_days": 3, "history_days": 6, "pairs": names},
        trade={"strategies": (BOT,), "options": {BOT: FREE}},
        risk={"max_entries": 1_000, "max_pair_entries": 1_000},
    )


def rows(settings: Settings, progress: Progress, *, candles: int, kills: int) -> list[Figure]:
    """Candle to order and kill to trading, inside a Ray session; `settings` come from `configured`."""
    pairs = len(settings.market.pairs)
    handles = stage.prepare(settings)
    exchange = start_exchange(settings, NullProgress(), accounts=(BOT,))
    try:
        with _served(settings) as forecasts:
            fleet = stage.start_fleet(
                settings, NullProgress(), bot_specs(settings, forecasts, exchange), handles=handles
            )
            try:
                _candle_seconds(fleet, WARM)
                with progress.task(f"{candles} candles of {pairs} pairs"):
                    times = sorted(_candle_seconds(fleet, candles))
                status = fleet.status()[BOT]
                with progress.task(f"kill -9, {kills} times"):
                    back = [fleet.kill_and_recover(BOT).seconds for _ in range(kills)]
            finally:
                stage.stop_fleet(settings, fleet)
    finally:
        exchange.stop()
    note = (
        f"{status.forecasts} requests of {pairs} forecasts, p50 {status.forecast_p50_ms:.0f} ms; {status.orders} orders"
    )
    goal: dict[str, Any] = {"at_most": True, "goal_of": "value"}
    return [
        Figure(f"candle to orders, {pairs} pairs, p50", statistics.median(times), "s", goal=1.0, note=note, **goal),
        Figure(f"candle to orders, {pairs} pairs, worst of {candles}", times[-1], "s", goal=1.0, **goal),
        Figure("kill -9 to trading, median", statistics.median(back), "s", goal=10.0, **goal),
        Figure("kill -9 to trading, worst", max(back), "s", goal=10.0, **goal),
    ]


def _candle_seconds(fleet: Fleet, candles: int) -> list[float]:
    """Real seconds of each of the next candles, slept out to the end of the bot's loop."""
    times = []
    for _ in range(candles):
        started = time.perf_counter()
        fleet.run_candles(1, NullProgress())
        times.append(time.perf_counter() - started)
    return times


@contextmanager
def _served(settings: Settings) -> Iterator[Forecasts]:
    """The real prediction service with a network of the usual shape."""
    space = settings.workspace
    artifact = untrained(space.var / "model", default_spec(settings.market.pairs, "15m"))

    def spawn(argv: Sequence[str], *, env: Mapping[str, str], ready: Callable[[], bool]) -> processes.Process:
        log = space.logs / "forecasts.log"
        return processes.spawn("forecasts", argv, run_dir=space.run_dir, log=log, env=env, ready=ready, timeout_s=90.0)

    options = ServeOptions(free_port(), Path(space.secrets / "serve.token"), "champion")
    served = serve_bento(build_bento(artifact, space.var / "home" / "serve"), options, spawn)
    try:
        yield Forecasts.at(served.url, served.token_file)
    finally:
        served.stop()
