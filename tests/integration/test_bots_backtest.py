"""Freqtrade's engine behind the risk manager: what it may not trade, it does not; what it did, the journal tells."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cluster.settings import Settings
from cluster.stages.backtest import BacktestOptions, BacktestSummary, backtest
from cluster.stages.trade_report import judge_journal, report
from observability.errors import ForecastError
from observability.progress import NullProgress
from pipelines.candles import TIMESTAMP
from trading.journal import Journal

pytestmark = pytest.mark.slow
START_MS, STEP_MS, ROWS = 1_704_067_200_000, 900_000, 1_100
PAIRS = ("BTC/USDT", "ETH/USDT")


def _candles(seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.004, ROWS)))
    opened = np.concatenate([[100.0], close[:-1]])
    wick = 1.0 + np.abs(rng.normal(0.0, 0.001, ROWS))
    return pl.DataFrame(
        {
            "timestamp": pl.Series(START_MS + STEP_MS * np.arange(ROWS)).cast(TIMESTAMP),
            "open": opened,
            "high": np.maximum(opened, close) * wick,
            "low": np.minimum(opened, close) / wick,
            "close": close,
            "volume": rng.uniform(1.0, 10.0, ROWS),
        }
    )


def _forecasts(path: Path, tables: dict[str, pl.DataFrame], trained_ms: int) -> Path:
    """Forecasts that know the next four candles: only a planted edge shows whether the predictor trades it."""
    parts = []
    for pair, table in tables.items():
        ahead = (table["close"].shift(-4) / table["close"]).log().fill_null(0.0)
        levels = {f"q_4_{level}": ahead + (level - 0.5) * 0.01 for level in (0.1, 0.5, 0.9)}
        parts.append(pl.DataFrame({"timestamp": table["timestamp"], "pair": [pair] * ROWS, **levels}))
    trained = pl.lit(trained_ms).cast(TIMESTAMP).alias("trained_until")
    whole = pl.concat(parts).filter(pl.col("timestamp").dt.epoch("ms") > START_MS + 500 * STEP_MS)
    whole.with_columns(trained).write_parquet(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("candles")
    for seed, pair in enumerate(PAIRS):
        _candles(seed).write_parquet(made / f"{pair.replace('/', '_')}-15m.parquet")
    return made


def _run(root: Path, candles: Path, strategy: str, forecasts: Path | None = None, **risk: float) -> BacktestSummary:
    market = {"pairs": PAIRS, "timeframe": "15m"}
    settings = Settings().changed(workspace={"root": root}, market=market, trade={"horizon": 4}, risk=risk)
    return backtest(settings, BacktestOptions(strategy, candles=candles, forecasts=forecasts), NullProgress())


def test_books_of_engine_and_journal_are_one(tmp_path: Path, folder: Path) -> None:
    found = _run(tmp_path, folder, "swing")
    assert found.trades > 3
    account = judge_journal(found.journal).performance.accounts["swing"]
    assert found.end_equity - found.start_equity == pytest.approx(account.total.profit, abs=1e-8)
    assert found.by_rule["APPROVED"] == found.trades, "every trade was approved, and every approval traded"
    again = _run(tmp_path / "again", folder, "swing")
    assert replace(again, folder=found.folder, journal=found.journal, report=found.report) == found
    page = report(Settings().changed(workspace={"root": tmp_path}), folder=found.folder).page.read_text()
    assert "Backtest in swing" in page
    assert not re.search(r"(src|href)=\"http|@import|<script", page), "the page loads nothing"


def test_the_risk_manager_stands_before_the_engine(tmp_path: Path, folder: Path) -> None:
    found = _run(tmp_path, folder, "swing", max_notional=20.0)
    assert found.trades == 0
    assert set(found.by_rule) == {"NOTIONAL_MAX"}
    with closing(Journal(found.journal, read_only=True)) as journal:
        assert not list(journal.read("fill"))
    assert found.text.startswith("swing never traded")


def test_the_predictor_trades_forecasts_made_before_their_time_and_no_others(tmp_path: Path, folder: Path) -> None:
    tables = {pair: pl.read_parquet(folder / f"{pair.replace('/', '_')}-15m.parquet") for pair in PAIRS}
    good = _forecasts(tmp_path / "good.parquet", tables, START_MS)
    found = _run(tmp_path, folder, "nn_predictor", good)
    assert found.since_ms > START_MS + 500 * STEP_MS, "nothing is traded where nothing is forecast"
    assert found.trades > 10
    assert found.profit_ratio > 0.05, "an oracle earns"
    bad = _forecasts(tmp_path / "bad.parquet", tables, START_MS + 700 * STEP_MS)
    with pytest.raises(ForecastError, match="in sample"):
        _run(tmp_path, folder, "nn_predictor", bad)
