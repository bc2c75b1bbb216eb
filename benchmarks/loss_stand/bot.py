"""The two contenders as processes: plain Freqtrade's own worker, and our runner with gate and risk manager."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import freqtrade.exchange.common
import freqtrade.freqtradebot
from freqtrade.commands import Arguments
from freqtrade.worker import Worker

import trading.adapters.worker  # noqa: F401 - as above
from benchmarks.loss_stand.helpers import quiet
from benchmarks.loss_stand.risk_wire import RemoteRisk
from trading.adapters import bot_spec, freqtrade_config
from trading.adapters.bot_runner import BotRunner
from trading.adapters.venue_clock import VirtualSleep

BACKOFF_S = 0.05  # in place of Freqtrade's 2 to 17 s between two tries, during which virtual time stands still
STRATEGIES = Path(__file__).with_name("strategies")


def run_plain(folder: str, url: str, name: str) -> None:
    """Freqtrade as it comes, with `<folder>/config.json`; only its sleep follows the exchange's clock."""
    _quiet(folder)
    sleeper = VirtualSleep(url, name)
    sleeper.join()
    arguments = ["trade", "-c", f"{folder}/config.json", "--userdir", folder, "--logfile", f"{folder}/freqtrade.log"]
    worker: Any = Worker(Arguments(arguments).get_parsed_arg())
    worker._sleep = sleeper.sleep
    sleeper.join()
    state = None
    while True:
        state = worker._worker(old_state=state)


def run_ours(folder: str, risk_url: str) -> None:
    """Our runner, told by `<folder>/begun.json`; with a plan in it, the benchmark's strategy in place of the swing."""
    _quiet(folder)
    if "plan" in json.loads((Path(folder) / "begun.json").read_text())["settings"]:
        freqtrade_config.STRATEGY_FOLDER = STRATEGIES
        bot_spec.STRATEGIES = {**bot_spec.STRATEGIES, "swing": "OursScheduled"}
        freqtrade_config.STRATEGIES = bot_spec.STRATEGIES
    runner = BotRunner(Path(folder), lambda: RemoteRisk(risk_url))
    while True:
        time.sleep(0.2)
        (Path(folder) / "status.json").write_text(json.dumps({"phase": runner._phase, "error": runner._error}))


def _quiet(folder: str) -> None:
    """Words into files; the end of the benchmark is the end of the bot; no waiting by the wall in virtual time."""
    freqtrade.exchange.common.calculate_backoff = lambda *_: BACKOFF_S
    quiet(Path(folder) / "output.log")
    sys.argv = ["bot"]
