"""Freqtrade's own checks of every strategy: does it look ahead, and do its indicators depend on where candles begin?

Both are run as the real command line on the candles of a random walk, with an exchange on loopback for the markets.
They cannot see leakage inside a model: for that, forecasts say until when their model learned, and are refused else.
"""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.bias_legs import depending
from benchmarks.figures import Figure, Figures
from cluster.settings import Settings
from cluster.stages.exchange import start_exchange
from observability.errors import StartError
from observability.progress import NullProgress, Progress
from pipelines.candles import TIMESTAMP
from trading.adapters.backtest.candles import write_candles, write_funding
from trading.adapters.bot_spec import ARBITRAGES, STRATEGIES, BotSpec
from trading.adapters.freqtrade_config import write_config
from trading.arbitrage.coordinator import LegName
from trading.arbitrage.standing import LONG, SHORT

START_MS, STEP_MS, ROWS = 1_704_067_200_000, 900_000, 2_400
CONSOLE = {
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "standard"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
NO_CANDLE = "reads no candle: lookahead-analysis has no signal to try, other candles give the same columns"
ALLOWED_VARIANCE = 1e-3  # percent: below it an exponential mean's forgotten past moves no decision
Tables = dict[str, pl.DataFrame]


@dataclass(frozen=True)
class Case:
    """What a bot is checked on.

    Attributes:
        startup: candles that it wants before its first signal.
        strategy: the bot's; "" for that of its name. leg: of an arbitrage, which trades the first pair alone.
    """

    pairs: tuple[str, str] = ("BTC/USDT", "ETH/USDT")
    startup: int = 400
    settings: Mapping[str, Any] = field(default_factory=dict)
    strategy: str = ""
    leg: LegName | None = None

    @property
    def traded(self) -> tuple[str, ...]:
        """The pairs of the bot."""
        return self.pairs if self.leg is None else self.pairs[:1]


PERPETUALS = ("BTC/USDT:USDT", "ETH/USDT:USDT")
LEGS = {"legs": PERPETUALS, "leg_timeout": ROWS}
CASES = {
    **{name: Case() for name in STRATEGIES},
    # The check plays one pair at a time, and a leg without its partner is closed after the leg time-out: that exit is
    # right and looks like a bias, so it is put off; what is judged is the signals. Its own tests play the time-out.
    "stat_arb": Case(PERPETUALS, 600, LEGS),
    **{f"{name}-long": Case(startup=30, settings={"leg": LONG}, strategy=name, leg=LONG) for name in ARBITRAGES},
    **{f"{name}-short": Case(PERPETUALS, 30, {"leg": SHORT}, name, SHORT) for name in ARBITRAGES},
}
CLASSES = {**STRATEGIES, **ARBITRAGES}


def random_walk(seed: int, rows: int = ROWS) -> pl.DataFrame:
    """Candles with trends, shocks and bursts of volume, so that every strategy finds something to trade."""
    rng = np.random.default_rng(seed)
    drift = np.repeat(rng.normal(0.0, 0.0006, rows // 100 + 1), 100)[:rows]
    moves = drift + rng.normal(0.0, 0.003, rows)
    shocks = rng.random(rows) < 0.02
    moves[shocks] += rng.normal(0.0, 0.015, shocks.sum())
    return candles(100.0 * np.exp(np.cumsum(moves)), rng, shocks)


def partner(table: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Another pair's candles that stray from these and come back, so that the two can be traded against each other."""
    rng = np.random.default_rng(seed)
    error = np.zeros(table.height)
    for row in range(1, table.height):
        error[row] = 0.9 * error[row - 1] + rng.normal(0.0, 0.003)
    return candles(table["close"].to_numpy() ** 1.2 * np.exp(error), rng, np.zeros(table.height, dtype=bool))


def candles(close: npt.NDArray[np.float64], rng: np.random.Generator, shocks: npt.NDArray[np.bool_]) -> pl.DataFrame:
    """The candle table around these closes."""
    opened = np.concatenate([close[:1], close[:-1]])
    wick = 1.0 + np.abs(rng.normal(0.0, 0.001, len(close)))
    return pl.DataFrame(
        {
            "timestamp": pl.Series(START_MS + STEP_MS * np.arange(len(close))).cast(TIMESTAMP),
            "open": opened,
            "high": np.maximum(opened, close) * wick,
            "low": np.minimum(opened, close) / wick,
            "close": close,
            "volume": rng.uniform(5.0, 10.0, len(close)) * (1.0 + 3.0 * shocks),
        }
    )


def forecasts(path: Path, tables: Tables) -> Path:
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


def market(data: Path, pairs: tuple[str, str]) -> Tables:
    """Both pairs' candles, written where Freqtrade reads them; a perpetual's funding is zero."""
    first, second = pairs
    walk = random_walk(0)
    perpetual = ":" in first
    tables = {first: partner(walk, 2), second: walk} if perpetual else {first: walk, second: random_walk(1)}
    write_candles(data, tables, "15m")
    if perpetual:
        hours = walk.filter(pl.col("timestamp").dt.truncate("8h") == pl.col("timestamp")).select("timestamp")
        for pair, table in tables.items():
            write_funding(data, pair, hours.with_columns(funding_rate=0.0), table)
    return tables


def prepare(folder: Path, url: str, strategy: str) -> list[str]:
    """Candles and configuration of one strategy; returns Freqtrade's arguments for them."""
    case, home = CASES[strategy], folder / "checked" / strategy
    tables = market(home / "candles", case.pairs)
    known = {"forecasts": str(forecasts(home / "forecasts.parquet", tables))} if strategy == "nn_predictor" else {}
    spec = BotSpec(
        name=strategy, strategy=case.strategy or strategy, account=strategy, venue="sandbox", mode="dry-run",
        pairs=case.traded,
        timeframe="15m", folder=str(home), url=url, api_server=False,
        settings={"max_history": case.startup, **case.settings, **known},
    )  # fmt: skip
    layer = home / "data.json"
    paths = write_config(spec)
    layer.write_text(json.dumps({"log_config": CONSOLE}))
    return [*(part for path in (*paths, layer) for part in ("-c", str(path))), "--datadir", str(home / "candles")]


def freqtrade(verb: str, *arguments: str, timeout_s: float = 300.0) -> str:
    """Freqtrade's own command; raises StartError when it fails."""
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "freqtrade", verb, *arguments],
        check=False, capture_output=True, text=True, timeout=timeout_s, env=environment,
    )  # fmt: skip
    if done.returncode:
        raise StartError(f"it failed: {(done.stdout + done.stderr)[-2000:]}", where=f"freqtrade {verb}")
    return done.stdout + done.stderr


def lookahead(configs: list[str], strategy: str) -> dict[str, str] | None:
    """What `freqtrade lookahead-analysis` writes of a strategy; None when it found too few trades to try."""
    out = Path(configs[-1]).parent / "lookahead.csv"
    span = f"{_at(CASES[strategy].startup)}-{_at(ROWS)}"
    said = freqtrade(
        "lookahead-analysis", *configs, "--timerange", span, "--strategy", _class(strategy),
        "--minimum-trade-amount", "5", "--targeted-trade-amount", "10", "--lookahead-analysis-exportfilename", str(out),
    )  # fmt: skip
    if not out.exists():
        raise StartError(f"lookahead-analysis judged nothing: {said[-1500:]}", where=strategy)
    with out.open() as file:
        row = next(iter(csv.DictReader(file)), None)
    if row is None and "less than minimum_trade_amount" not in said:
        raise StartError(f"lookahead-analysis judged nothing: {said[-1500:]}", where=strategy)
    return row


def recursive(configs: list[str], strategy: str, startup: int) -> tuple[float, bool]:
    """Largest variance, in percent, of an indicator that has seen only `startup` candles; and if one looks ahead."""
    said = freqtrade(
        "recursive-analysis", *configs, "--timerange", f"{_at(1000)}-{_at(1400)}", "--strategy", _class(strategy),
        "--startup-candle", str(startup), "--pairs", CASES[strategy].pairs[0],
    )  # fmt: skip
    return largest_variance(said), "found lookahead" in said


def largest_variance(said: str) -> float:
    """Of recursive-analysis' table, in percent; infinite where one of two runs has no value at all ("nan")."""
    # of the table alone: the log tells the fee in percent, too
    rows = [line.split("\u2502")[2:] for line in said.splitlines() if line.startswith("\u2502")]
    found = [text.strip().removesuffix("%") for row in rows for text in row if text.strip() not in ("", "-")]
    sizes = [abs(float(text)) for text in found]
    return max((math.inf if math.isnan(size) else size for size in sizes), default=0.0)


def check(folder: Path, url: str, strategy: str) -> dict[str, float]:
    """Both checks of one strategy; raises StartError where there was nothing to try, and it does read candles."""
    configs, case = prepare(folder, url, strategy), CASES[strategy]
    found = lookahead(configs, strategy)
    variance, ahead = recursive(configs, strategy, case.startup)
    if found is None:
        if case.leg is None:
            raise StartError("lookahead-analysis found too few trades", where=strategy)
        read = depending(random_walk(4), random_walk(5), case.leg)
        return {"signals": 0.0, "biased": float(len(read) + ahead), "variance": variance}
    biased = int(found["biased_entry_signals"]) + int(found["biased_exit_signals"])
    named = found["biased_indicators"] not in ("", "nan")
    return {
        "signals": float(found["total_signals"]),
        "biased": float(biased + (found["has_bias"] != "False") + named + ahead),
        "variance": variance,
    }


def run(progress: Progress, *, strategies: tuple[str, ...] = tuple(CASES)) -> Figures:
    """Both checks of every strategy, of an arbitrage's on each of its legs."""
    rows, facts = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = CASES["swing"].pairs  # the exchange has each as a perpetual, too
        settings = Settings().changed(workspace={"root": folder}, market={"history_days": 1.0, "pairs": pairs})
        exchange = start_exchange(settings, NullProgress(), accounts=("checks",))
        try:
            for strategy in strategies:
                with progress.task(strategy):
                    facts[strategy] = found = check(folder, exchange.url, strategy)
                leg = CASES[strategy].leg is not None and not found["signals"]
                note = NO_CANDLE if leg else f"{found['signals']:.0f} signals tried"
                rows += [
                    Figure(f"{strategy}: biased signals and indicators", found["biased"], "", goal=0, at_most=True,
                           goal_of="value", note=note),
                    Figure(f"{strategy}: variance by the start", found["variance"], "%", goal=ALLOWED_VARIANCE,
                           at_most=True, goal_of="value"),
                ]  # fmt: skip
        finally:
            exchange.stop()
    return Figures("bias of the strategies", tuple(rows), "leakage inside a model is not seen by these checks", facts)


def _class(strategy: str) -> str:
    """Of a case's strategy, as Freqtrade resolves it."""
    return CLASSES[CASES[strategy].strategy or strategy]


def _at(row: int) -> int:
    """Open time of a candle in seconds, as Freqtrade's time ranges want it."""
    return (START_MS + row * STEP_MS) // 1000
