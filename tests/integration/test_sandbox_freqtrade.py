"""Unmodified Freqtrade, live mode, signed orders: the sandbox must carry a bot through whole round trips."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.settings import Settings
from cluster.stages.exchange import start_exchange
from observability.progress import NullProgress
from tests import books_kit
from trading.adapters.api_key import read_key
from trading.adapters.sandbox.client import ccxt_urls

STRATEGY = """
from freqtrade.strategy import IStrategy

class AlwaysBuy(IStrategy):
    timeframe = "15m"
    minimal_roi = {"0": 0.004, "120": -1}
    stoploss = -0.03
    startup_candle_count = 5
    order_types = {"entry": "limit", "exit": "limit", "stoploss": "limit", "stoploss_on_exchange": True}

    def populate_indicators(self, dataframe, metadata):
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        dataframe["enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        return dataframe
"""

BOT = """
import sys, time
import httpx, time_machine
from trading.adapters.sandbox.client import SandboxClient
from freqtrade.commands import Arguments
from freqtrade.worker import Worker

config, userdir, url, hours = sys.argv[1:]
clock = SandboxClient(url)
start = clock.join("bot")
end = start + int(float(hours) * 3_600_000)
traveller = time_machine.travel(start / 1000, tick=True)
traveller.start()
worker = Worker(Arguments(["trade", "-c", config, "--userdir", userdir]).get_parsed_arg())

def sleep(seconds):
    global traveller
    now = clock.sleep("bot", int((time.time() + max(seconds, 1)) * 1000))
    traveller.stop()
    traveller = time_machine.travel(now / 1000, tick=True)
    traveller.start()

worker._sleep = sleep
state = None
while time.time() * 1000 < end:
    state = worker._worker(old_state=state)
clock.leave("bot")
worker.exit()
traveller.stop()
"""


def _config(folder: Path, url: str, key_file: Path, pairs: tuple[str, ...]) -> Path:
    key = read_key(key_file)
    ccxt_config = {"enableRateLimit": False, "urls": {"api": ccxt_urls(url)}}
    content = {
        "dry_run": False,
        "max_open_trades": 2,
        "stake_currency": "USDT",
        "stake_amount": 1000,
        "trading_mode": "spot",
        "db_url": f"sqlite:///{folder}/trades.sqlite",
        "entry_pricing": {"price_side": "other", "use_order_book": True, "order_book_top": 1},
        "exit_pricing": {"price_side": "other", "use_order_book": True, "order_book_top": 1},
        "exchange": {
            "name": "binance",
            "key": key.key,
            "secret": key.secret,
            "pair_whitelist": list(pairs),
            "ccxt_config": ccxt_config,
            "enable_ws": False,
            "markets_refresh_interval": 100_000,
            "_ft_has_params": {"ohlcv_candle_limit": 120},
        },
        "pairlists": [{"method": "StaticPairList"}],
        "internals": {"process_throttle_secs": 60},
        "initial_state": "running",
        "strategy": "AlwaysBuy",
    }
    path = folder / "config.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(content))
    (folder / "strategies").mkdir()
    (folder / "strategies" / "always_buy.py").write_text(STRATEGY)
    (folder / "bot.py").write_text(BOT)
    return path


@pytest.mark.slow
def test_freqtrade_trades_live_without_knowing_that_time_and_money_are_play(tmp_path: Path, repo_root: Path) -> None:
    settings = Settings().changed(
        workspace={"root": tmp_path / "space"},
        market={"pairs": ("BTC/USDT", "ETH/USDT"), "history_days": 5.0, "trading_days": 2.0},
    )
    exchange = start_exchange(settings, NullProgress(), accounts=("bot",))
    try:
        config = _config(tmp_path, exchange.url, exchange.key_files["bot"], exchange.pairs)
        command = [sys.executable, str(tmp_path / "bot.py"), str(config), str(tmp_path), exchange.url, "8"]
        environment = {**os.environ, "PYTHONPATH": str(repo_root), "XDG_CONFIG_HOME": str(tmp_path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        with contextlib.closing(exchange.client()) as client:
            books = client.ledger()
    finally:
        exchange.stop()
    books_kit.require_freqtrade_agrees(tmp_path / "trades.sqlite", books, "bot")
    account = books["accounts"]["bot"]
    bought = {order["pair"] for order in account["orders"] if order["side"] == "buy" and order["status"] == "filled"}
    sold = {order["pair"] for order in account["orders"] if order["side"] == "sell" and order["status"] == "filled"}
    assert bought & sold, "no pair went in and out again"
    assert any(order["type"] == "stop_loss_limit" for order in account["orders"])
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    assert books["now_ms"] - exchange.open_ms >= 8 * 3_600_000
