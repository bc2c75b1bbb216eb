"""The two contenders as processes: plain Freqtrade's own worker, and our runner with gate and risk manager."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import freqtrade.freqtradebot  # noqa: F401 - imported once, in the process that all bots are forked from
from freqtrade.commands import Arguments
from freqtrade.worker import Worker

import trading.adapters.worker  # noqa: F401 - as above
from benchmarks.loss_stand.risk_wire import RemoteRisk
from trading.adapters import bot_spec, freqtrade_config
from trading.adapters.bot_runner import BotRunner
from trading.adapters.venue_clock import VirtualSleep

PR_SET_PDEATHSIG = 1
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
    """Our runner, told by `<folder>/begun.json`; the strategies are the benchmark's own."""
    _quiet(folder)
    freqtrade_config.STRATEGY_FOLDER = STRATEGIES
    bot_spec.STRATEGIES = {**bot_spec.STRATEGIES, "swing": "OursScheduled"}
    freqtrade_config.STRATEGIES = bot_spec.STRATEGIES
    runner = BotRunner(Path(folder), lambda: RemoteRisk(risk_url))
    while True:
        time.sleep(0.2)
        (Path(folder) / "status.json").write_text(json.dumps({"phase": runner._phase, "error": runner._error}))


def _quiet(folder: str) -> None:
    """Words into files; the end of the benchmark is the end of the bot."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    out = os.open(f"{folder}/output.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.argv = ["bot"]
