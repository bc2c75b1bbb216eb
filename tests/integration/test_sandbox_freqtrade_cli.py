"""`freqtrade trade` as it is installed, its own client, its own REST API: spot and perpetuals, live and dry."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from freqtrade_client import FtRestClient

from cluster.settings import Settings
from cluster.stages.exchange import RunningExchange, start_exchange
from observability.ports import free_port
from observability.progress import NullProgress
from tests import books_kit
from trading.adapters.api_key import read_key
from trading.adapters.sandbox.client import ccxt_streams, ccxt_urls

pytestmark = pytest.mark.slow
PASSWORD = "a-password-of-the-test"
STRATEGY = """
from freqtrade.strategy import IStrategy

class AlwaysIn(IStrategy):
    timeframe = "1m"
    minimal_roi = {{"0": 10}}
    stoploss = -0.2
    startup_candle_count = 5
    can_short = {short}
    order_types = {{"entry": "limit", "exit": "limit", "stoploss": "{stop}", "stoploss_on_exchange": True}}

    def leverage(self, *args, **kwargs):
        return 3.0

    def populate_indicators(self, dataframe, metadata):
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        side = "enter_short" if {short} and metadata["pair"].startswith("ETH") else "enter_long"
        dataframe[side] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        return dataframe
"""


def _config(folder: Path, exchange: RunningExchange, mode: str, *, dry_run: bool, port: int) -> Path:
    key, perpetual = read_key(exchange.key_files["bot"]), mode == "futures"
    price = {"price_side": "other", "use_order_book": True, "order_book_top": 1}
    urls = {**ccxt_urls(exchange.url), "ws": ccxt_streams(exchange.url)}
    content: dict[str, Any] = {
        "dry_run": dry_run,
        "max_open_trades": 2,
        "stake_currency": "USDT",
        "stake_amount": 1000,
        "dry_run_wallet": 10_000,
        "trading_mode": mode,
        "margin_mode": "isolated" if perpetual else "",
        "db_url": f"sqlite:///{folder}/trades.sqlite",
        "entry_pricing": price,
        "exit_pricing": price,
        "exchange": {
            "name": "binance",
            "key": key.key,
            "secret": key.secret,
            "pair_whitelist": [f"{pair}:USDT" if perpetual else pair for pair in exchange.pairs],
            "ccxt_config": {"enableRateLimit": False, "urls": {"api": urls}},
            "enable_ws": True,
        },
        "pairlists": [{"method": "StaticPairList"}],
        "internals": {"process_throttle_secs": 1},
        "initial_state": "running",
        "strategy": "AlwaysIn",
        "api_server": {
            "enabled": True,
            "listen_ip_address": "127.0.0.1",
            "listen_port": port,
            "username": "tester",
            "password": PASSWORD,
            "jwt_secret_key": "j" * 40,
            "ws_token": "w" * 30,
            "verbosity": "error",
        },
    }
    path = folder / "config.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(content))
    (folder / "strategies").mkdir()
    strategy = STRATEGY.format(short=perpetual, stop="market" if perpetual else "limit")
    (folder / "strategies" / "always_in.py").write_text(strategy)
    return path


@contextlib.contextmanager
def _freqtrade(folder: Path, config: Path, port: int) -> Iterator[FtRestClient]:
    """The command line as it is installed; ended with Ctrl-C."""
    command = [str(Path(sys.executable).parent / "freqtrade"), "trade", "-c", str(config), "--userdir", str(folder)]
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder)}
    with (folder / "freqtrade.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield FtRestClient(f"http://127.0.0.1:{port}", "tester", PASSWORD)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) in (0, 130), "as Freqtrade ends on Ctrl-C"
        finally:
            process.kill()
            process.wait()


def _until(reached: Any, timeout_s: float = 90.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if (found := reached()) is not None:
            return found
        time.sleep(0.5)
    pytest.fail("not reached in time")


@pytest.mark.parametrize(("mode", "dry_run"), [("spot", False), ("futures", False), ("futures", True)])
def test_freqtrades_own_command_and_client_trade_here(tmp_path: Path, mode: str, dry_run: bool) -> None:
    settings = Settings().changed(
        workspace={"root": tmp_path / "space"},
        market={"pairs": ("BTC/USDT", "ETH/USDT"), "history_days": 2.0, "trading_days": 1.0, "timeframe": "1m"},
    )
    exchange, port = start_exchange(settings, NullProgress(), accounts=("bot",), mode="wall"), free_port()
    try:
        config = _config(tmp_path, exchange, mode, dry_run=dry_run, port=port)
        with _freqtrade(tmp_path, config, port) as bot:

            def protected() -> Any:
                trades = bot.status() or []
                stops = [o for t in trades for o in t["orders"] if o["ft_order_side"] == "stoploss" and o["is_open"]]
                return trades if len(trades) == 2 and (dry_run or len(stops) == 2) else None

            opened = {trade["pair"]: trade for trade in _until(protected)}
            if mode == "futures":
                assert {(pair[:3], trade["is_short"], trade["leverage"]) for pair, trade in opened.items()} == {
                    ("BTC", False, 3.0),
                    ("ETH", True, 3.0),
                }
                assert all(trade["liquidation_price"] or dry_run for trade in opened.values())
            bot.stopbuy()
            assert bot.forceexit("all")["result"].startswith("Created exit orders")
            _until(lambda: True if bot.status() == [] else None)
            profit = sum(trade["close_profit_abs"] for trade in bot.trades()["trades"])
        words = (tmp_path / "freqtrade.log").read_text()
        assert "continuously_async_watch_ohlcv" not in words, "the WebSocket failed"
        with contextlib.closing(exchange.client()) as client:
            ledger = client.ledger()
    finally:
        exchange.stop()
    account = ledger["futures" if mode == "futures" else "accounts"]["bot"]
    if dry_run:
        assert account["orders"] == []
        return
    books_kit.require_freqtrade_agrees(tmp_path / "trades.sqlite", ledger, "bot", futures=mode == "futures")
    if mode == "futures":
        gained = float(account["balances"]["USDT"]["total"]) - float(account["initial"]["USDT"])
        assert gained == pytest.approx(profit, abs=1e-6), "eight decimals a trade"
