"""What is exported is what the real `freqtrade` reads: its command line lists it and backtests on it, bit by bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from cluster.commands import data
from cluster.settings import Settings
from cluster.stages.data import backfill, open_store
from cluster.stages.exchange import RunningExchange, start_exchange
from observability.progress import NullProgress
from pipelines.store import SeriesKey
from trading.adapters.sandbox.client import ccxt_urls

pytestmark = pytest.mark.slow
PAIR, PERP = "BTC/USDT", "BTC/USDT:USDT"

# Trades a little, and writes down every candle that Freqtrade showed it.
STRATEGY = """
import os
from freqtrade.strategy import IStrategy

class Witness(IStrategy):
    timeframe = "15m"
    minimal_roi = {"0": 0.01}
    stoploss = -0.05
    can_short = False

    def populate_indicators(self, dataframe, metadata):
        name = metadata["pair"].replace("/", "_").replace(":", "_")
        dataframe.to_parquet(os.path.join(os.environ["WITNESS"], name + ".parquet"))
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        dataframe.loc[dataframe["date"].dt.hour == 3, "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        dataframe.loc[dataframe["date"].dt.hour == 21, "exit_long"] = 1
        return dataframe
"""


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, RunningExchange]]:
    settings = Settings().changed(
        workspace={"root": tmp_path_factory.mktemp("space")},
        market={"pairs": (PAIR,), "history_days": 12.0, "trading_days": 1.0},
    )
    running = start_exchange(settings, NullProgress())
    backfill(settings, NullProgress(), base_url=running.url, kinds=("ohlcv", "funding", "mark"))
    yield settings, running
    running.stop()


def freqtrade(folder: Path, url: str, mode: str, *words: str) -> str:
    """The command line of Freqtrade, pointed at the sandbox for what it wants to know of the market."""
    pair = PAIR if mode == "spot" else PERP
    config: dict[str, Any] = {
        "dry_run": True,
        "stake_currency": "USDT",
        "stake_amount": 1000,
        "dry_run_wallet": 10_000,
        "max_open_trades": 1,
        "trading_mode": mode,
        "margin_mode": "isolated" if mode == "futures" else "",
        "timeframe": "15m",
        "strategy": "Witness",
        "entry_pricing": {"price_side": "same", "use_order_book": True, "order_book_top": 1},
        "exit_pricing": {"price_side": "same", "use_order_book": True, "order_book_top": 1},
        "exchange": {
            "name": "binance",
            "pair_whitelist": [pair],
            "ccxt_config": {"enableRateLimit": False, "urls": {"api": ccxt_urls(url)}},
            "enable_ws": False,
        },
        "pairlists": [{"method": "StaticPairList"}],
    }
    user = folder / "user"
    for name in ("strategies", "data", "backtest_results", "hyperopt_results", "witness"):
        (user / name).mkdir(parents=True, exist_ok=True)
    (user / "strategies" / "witness.py").write_text(STRATEGY)
    (folder / "config.json").write_text(json.dumps(config))
    shared = ["--config", str(folder / "config.json"), "--userdir", str(user), "--datadir", str(folder / "data")]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FREQTRADE__")}
    done = subprocess.run(
        [sys.executable, "-m", "freqtrade", words[0], *shared, *words[1:]],
        env={**kept, "WITNESS": str(user / "witness"), "COLUMNS": "200", "XDG_CONFIG_HOME": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_freqtrade_lists_and_backtests_what_was_exported(exchange, tmp_path):
    settings, running = exchange
    store = open_store(settings)
    shown = CliRunner().invoke(data.app, ["export", str(tmp_path / "data"), "--json"], obj=settings)
    names = {item["file"] for item in json.loads(shown.stdout)["files"]}
    assert names == {
        "BTC_USDT-15m.feather",
        "futures/BTC_USDT_USDT-15m-mark.feather",
        "futures/BTC_USDT_USDT-1h-mark.feather",
        "futures/BTC_USDT_USDT-1h-funding_rate.feather",
    }
    # Freqtrade takes the perpetual's candles for futures: here they are those of spot.
    spot = tmp_path / "data" / "BTC_USDT-15m.feather"
    (tmp_path / "data/futures/BTC_USDT_USDT-15m-futures.feather").write_bytes(spot.read_bytes())

    candles = store.read(SeriesKey("sandbox", "ohlcv", PAIR, "15m"))
    first, last = (f"{time:%Y-%m-%d %H:%M:%S}" for time in (candles["timestamp"][0], candles["timestamp"][-1]))
    listed = freqtrade(tmp_path, running.url, "spot", "list-data", "--show-timerange")
    (line,) = [line for line in listed.splitlines() if PAIR in line]
    assert first in line
    assert last in line
    assert str(candles.height) in line.replace(",", "")

    span = f"{candles['timestamp'][0]:%Y%m%d}-"
    for mode, pair in (("spot", PAIR), ("futures", PERP)):
        told = freqtrade(tmp_path, running.url, mode, "backtesting", "--timerange", span, "--cache", "none")
        assert "Witness" in told
        assert "No history" not in told, told[-3000:]
        seen = pl.read_parquet(tmp_path / "user/witness" / f"{pair.replace('/', '_').replace(':', '_')}.parquet")
        same = seen.select(pl.col("date").alias("timestamp"), *candles.columns[1:])
        assert same.height > candles.height - 100
        assert same["timestamp"][0] >= datetime(2000, 1, 1, tzinfo=UTC)
        overlap = candles.join(same, on="timestamp", suffix="_seen")
        assert overlap.height == same.height
        for name in candles.columns[1:]:
            assert overlap[name].equals(overlap[f"{name}_seen"].alias(name)), name

    wish = ("--hyperopt-loss", "SharpeHyperOptLoss", "--epochs", "2", "--spaces", "roi", "--job-workers", "2")
    freqtrade(tmp_path, running.url, "spot", "hyperopt", *wish, "--timerange", span)
    (results,) = (tmp_path / "user" / "hyperopt_results").glob("*.fthypt")
    assert len(results.read_text().splitlines()) == 2
