"""Two real bots on a Ray node that is killed while they hold positions; Ray brings them back on another one.

A program of its own, since Ray keeps one token a process. Argument: a folder. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.chaos_watch import doubled
from benchmarks.raylets import Raylets
from cluster.settings import Settings
from cluster.stages import trade as stage
from cluster.stages.bots import Forecasts, bot_folders, bot_specs, risk_limits
from cluster.stages.exchange import RunningExchange, start_exchange
from observability.progress import NullProgress
from tests import books_kit
from tests.fault.fail_closed_driver import Handler, Oracle
from trading.adapters.bot_actor import BotActor
from trading.adapters.bot_actors import CONCURRENCY, actor_name
from trading.adapters.fleet import Fleet
from trading.adapters.risk_actor import ACTOR_NAME, NAMESPACE, RiskActorConfig, start_risk_actor
from trading.adapters.venue_clock import VenueClock
from trading.kill_switch import KillSwitch

QUIET = NullProgress()
BOTS = ("nn_predictor", "swing")
BACK_S = 120.0


def main(root: Path) -> None:
    settings = Settings().changed(
        workspace={"root": root},
        market={"trading_days": 6, "history_days": 6, "pairs": ("BTC/USDT", "ETH/USDT", "SOL/USDT")},
        trade={"strategies": BOTS, "horizon": 4},
        cluster={"dashboard": False},
    )
    settings.workspace.make()
    oracle = Oracle(("127.0.0.1", 0), Handler)
    threading.Thread(target=oracle.serve_forever, daemon=True).start()
    with Raylets(settings, nodes=0) as nodes:
        exchange = start_exchange(settings, QUIET, accounts=BOTS)
        try:
            specs = bot_specs(settings, Forecasts(f"http://127.0.0.1:{oracle.server_port}"), exchange)
            # while there is no other node than the head: the risk manager shall live
            risk = RiskActorConfig(
                settings.workspace.journal, risk_limits(settings, specs), VenueClock(exchange.url),
                switch=settings.workspace.kill_switch,
            )  # fmt: skip
            KillSwitch(settings.workspace.kill_switch).install()
            manager = start_risk_actor(risk)  # held, since Ray ends an actor that nobody holds
            nodes.add(bots=len(BOTS))
            fleet = stage.start_fleet(settings, QUIET, specs, handles=_placed(settings))
            try:
                sys.stdout.write(json.dumps(_play(fleet, nodes, exchange)) + "\n")
            finally:
                stage.stop_fleet(settings, fleet)
                del manager
        finally:
            exchange.stop()
            oracle.shutdown()


def _placed(settings: Settings) -> dict[str, Any]:
    """Bot actors that only a node for bots can run: the first, and the second when that is gone."""
    import ray

    made = {}
    for name, folder in bot_folders(settings).items():
        folder.mkdir(parents=True)
        options: dict[str, Any] = {
            "name": actor_name(name), "namespace": NAMESPACE, "num_cpus": 0, "max_restarts": -1, "max_task_retries": 0,
            "max_concurrency": CONCURRENCY, "resources": {"bots": 1},
        }  # fmt: skip
        made[name] = ray.remote(BotActor).options(**options).remote(str(folder), ACTOR_NAME, NAMESPACE)
    return made


def _play(fleet: Fleet, nodes: Raylets, exchange: RunningExchange) -> dict[str, Any]:
    nodes.add(bots=len(BOTS))
    fleet.run_candles(6, QUIET)
    before = fleet.status()
    fleet.hold()
    began = time.monotonic()
    nodes.kill()
    after = fleet.status()
    while any(after[name].pid in (0, before[name].pid) or after[name].loops < 1 for name in BOTS):
        if time.monotonic() - began > BACK_S:
            raise TimeoutError(f"not back: {after}")
        time.sleep(0.5)
        after = fleet.status()
    seconds = time.monotonic() - began
    fleet.run_candles(8, QUIET)
    books = fleet.books()
    with closing(exchange.client()) as client:
        ledger = client.ledger()
    return {
        "seconds": seconds,
        "held": {name: before[name].open_trades for name in BOTS},
        "held_after": {name: after[name].open_trades for name in BOTS},
        "doubled": [list(doubled(account)) for account in ledger["accounts"].values()],
        "loops": {name: fleet.status()[name].loops for name in BOTS},
        "agree": books_kit.agreed(books.by_bot),
        "orders": books.orders,
    }  # fmt: skip


if __name__ == "__main__":
    with books_kit.compared():
        main(Path(sys.argv[1]))
