"""Freqtrade's own checks of every strategy: does it look ahead, and do its indicators depend on where candles begin?

Both are run as the real command line on the candles of a random walk, with an exchange on loopback for the markets.
They cannot see leakage inside a model: for that, forecasts say until when their model learned, and are refused else.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.figures import Figure, Figures
from cluster.settings import Settings
from cluster.stages.exchange import start_exchange
from observability.progress import NullProgress, Progress
from pipelines.candles import TIMESTAMP
from trading.adapters.backtest.candles import write_candles
from trading.adapters.bot_spec import STRATEGIES, BotSpec
from trading.adapters.freqtrade_config import write_config

START_MS, STEP_MS, ROWS = 1_704_067_200_000, 900_000, 2_400
SPOT = tuple(name for name in STRATEGIES if name != "stat_arb")  # perpetuals: its own test asks the same of its core
PAIRS = ("BTC/USDT", "ETH/USDT")
STARTUP = 400
CONSOLE = {
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "standard"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
ALLOWED_VARIANCE = 1e-3  # percent: below it an exponential mean's forgotten past moves no decision


def random_walk(seed: int, rows: int = ROWS) -> pl.DataFrame:
    """Candles with trends, shocks and bursts of volume, so that every strategy finds something to trade."""
    rng = np.random.default_rng(seed)
    drift = np.repeat(rng.normal(0.0, 0.0006, rows // 100 + 1), 100)[:rows]
    moves = drift + rng.normal(0.0, 0.003, rows)
    shocks = rng.random(rows) < 0.02
    moves[shocks] += rng.normal(0.0, 0.015, shocks.sum())
    close = 100.0 * np.exp(np.cumsum(moves))
    opened = np.concatenate([[100.0], close[:-1]])
    wick = 1.0 + np.abs(rng.normal(0.0, 0.001, rows))
    return pl.DataFrame(
        {
            "timestamp": pl.Series(START_MS + STEP_MS * np.arange(rows)).cast(TIMESTAMP),
            "open": opened,
            "high": np.maximum(opened, close) * wick,
            "low": np.minimum(opened, close) / wick,
            "close": close,
            "volume": rng.uniform(5.0, 10.0, rows) * (1.0 + 3.0 * shocks),
        }
    )


def forecasts(path: Path, tables: dict[str, pl.DataFrame]) -> Path:
    """Random forecasts: the checks ask whether the strategy reads them in their time, not whether they are good."""
    rng, parts = np.random.default_rng(3), []
    for pair, table in tables.items():
        centre = rng.normal(0.0, 0.01, table.height)
        levels = {f"q_4_{level}": centre + (level - 0.5) * 0.02 for level in (0.1, 0.5, 0.9)}
        keys = {"timestamp": table["timestamp"], "pair": [pair] * table.height}
        parts.append(pl.DataFrame({**keys, **levels}))
    trained = pl.lit(START_MS - STEP_MS).cast(TIMESTAMP).alias("trained_until")
    pl.concat(parts).with_columns(trained).write_parquet(path)
    return path


def prepare(folder: Path, url: str, strategy: str) -> list[str]:
    """Candles and configuration of one strategy; returns Freqtrade's arguments for them."""
    tables = {pair: random_walk(seed) for seed, pair in enumerate(PAIRS)}
    data = folder / "data"
    if not data.exists():
        write_candles(data, tables, "15m")
    known = {"forecasts": str(forecasts(folder / "forecasts.parquet", tables))}
    settings = known if strategy == "nn_predictor" else {}
    spec = BotSpec(
        name=strategy, strategy=strategy, account=strategy, venue="sandbox", mode="dry-run", pairs=PAIRS,
        timeframe="15m", folder=str(folder / strategy), url=url, api_server=False, settings=settings,
    )  # fmt: skip
    layer = folder / strategy / "data.json"
    paths = write_config(spec)
    layer.write_text(json.dumps({"log_config": CONSOLE}))
    return [*(part for path in (*paths, layer) for part in ("-c", str(path))), "--datadir", str(data)]


def freqtrade(verb: str, *arguments: str, timeout_s: float = 120.0) -> str:
    """Freqtrade's own command; raises when it fails."""
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "freqtrade", verb, *arguments],
        check=False, capture_output=True, text=True, timeout=timeout_s, env=environment,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"freqtrade {verb} failed: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout + done.stderr


def lookahead(folder: Path, configs: list[str], strategy: str) -> dict[str, str]:
    """What `freqtrade lookahead-analysis` writes of a strategy; raises when it found too few trades to judge."""
    out = folder / f"lookahead-{strategy}.csv"
    span = f"{(START_MS + STARTUP * STEP_MS) // 1000}-{(START_MS + ROWS * STEP_MS) // 1000}"
    said = freqtrade(
        "lookahead-analysis", *configs, "--timerange", span, "--strategy", STRATEGIES[strategy],
        "--minimum-trade-amount", "5", "--targeted-trade-amount", "10", "--lookahead-analysis-exportfilename", str(out),
    )  # fmt: skip
    if not out.exists():
        raise RuntimeError(f"lookahead-analysis judged nothing of {strategy}: {said[-1500:]}")
    with out.open() as file:
        return next(row for row in csv.DictReader(file))


def recursive(configs: list[str], strategy: str) -> tuple[float, bool]:
    """Largest variance, in percent, that fewer startup candles than ours make, at ours; and whether it looks ahead."""
    span = f"{(START_MS + 1000 * STEP_MS) // 1000}-{(START_MS + 1400 * STEP_MS) // 1000}"
    said = freqtrade(
        "recursive-analysis", *configs, "--timerange", span, "--strategy", STRATEGIES[strategy],
        "--startup-candle", str(STARTUP), "--pairs", PAIRS[0],
    )  # fmt: skip
    variances = [float(found) for found in re.findall(r"(-?\d+\.\d+)%", said)]
    return max((abs(value) for value in variances), default=0.0), "found lookahead" in said


def check(folder: Path, url: str, strategy: str) -> dict[str, float]:
    """Both checks of one strategy."""
    configs = prepare(folder, url, strategy)
    found = lookahead(folder, configs, strategy)
    variance, ahead = recursive(configs, strategy)
    biased = int(found["biased_entry_signals"]) + int(found["biased_exit_signals"])
    named = found["biased_indicators"] not in ("", "nan")
    return {
        "signals": float(found["total_signals"]),
        "biased": float(biased + (found["has_bias"] != "False") + named + ahead),
        "variance": variance,
    }


def run(progress: Progress, *, strategies: tuple[str, ...] = SPOT) -> Figures:
    """Both checks of every strategy."""
    rows, facts = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings().changed(workspace={"root": folder}, market={"history_days": 1.0, "pairs": PAIRS})
        exchange = start_exchange(settings, NullProgress(), accounts=("checks",))
        try:
            for strategy in strategies:
                with progress.task(strategy):
                    facts[strategy] = found = check(folder, exchange.url, strategy)
                note = f"{found['signals']:.0f} signals tried"
                rows += [
                    Figure(f"{strategy}: biased signals and indicators", found["biased"], "", goal=0, at_most=True,
                           goal_of="value", note=note),
                    Figure(f"{strategy}: variance by the start", found["variance"], "%", goal=ALLOWED_VARIANCE,
                           at_most=True, goal_of="value"),
                ]  # fmt: skip
        finally:
            exchange.stop()
    return Figures("bias of the strategies", tuple(rows), "leakage inside a model is not seen by these checks", facts)
