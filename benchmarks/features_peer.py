"""The same columns in pandas and TA-Lib as users of FreqAI write them, pair by pair, and both timed in one process.

    python -m benchmarks.features_peer ROWS ROUNDS

prints CPU nanoseconds a row as JSON. It is run as a process of its own, with one thread and the settings of a worker.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import talib.abstract as ta

from pipelines.candles import CANDLE_SCHEMA
from pipelines.features import make_features
from pipelines.frames import Enrichment, enrich, market_closes
from pipelines.spec import DatasetSpec, FeatureRef, default_spec

PAIRS = tuple(f"P{number:02}/USDT" for number in range(10))
START, STEP = 1_577_836_800_000, 900_000  # 2020-01-01, 15m


def simulated(rows: int, seed: int) -> pl.DataFrame:
    """A random walk with ranges and volumes."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.003, rows)))
    opened = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(opened, close) * (1 + 0.002 * rng.random(rows))
    low = np.minimum(opened, close) * (1 - 0.002 * rng.random(rows))
    columns = (START + STEP * np.arange(rows), opened, high, low, close, rng.lognormal(3, 1, rows))
    table = pl.DataFrame(dict(zip(CANDLE_SCHEMA, columns, strict=True)))
    return table.with_columns(pl.col("timestamp").cast(CANDLE_SCHEMA["timestamp"]))


def wide_spec() -> DatasetSpec:
    """The default columns, TA-Lib's, and the rest of what candles and the market give."""
    more = [
        *(FeatureRef(name, {"n": 48}) for name in ("log_vol_parkinson", "log_vol_yang_zhang", "volume_ratio")),
        *(FeatureRef(name, {"n": 48}) for name in ("channel_position", "signed_volume", "vwap_gap")),
        *(FeatureRef(name, {"n": 14}) for name in ("ta_rsi", "ta_natr", "ta_adx", "ta_plus_di", "ta_minus_di")),
        FeatureRef("ta_macd", {"fast": 12, "slow": 26}),
        FeatureRef("ta_bbands", {"n": 20}),
        FeatureRef("market_return", {"n": 4}),
        FeatureRef("market_beta", {"n": 96}),
        FeatureRef("return_rank", {"n": 16}),
        FeatureRef("lead_lag", {"leader": PAIRS[0], "n": 96}),
    ]
    base = default_spec(PAIRS, "15m")
    return DatasetSpec(PAIRS, "15m", (*base.features, *more), base.horizons, base.lookback)


def pandas_default(df: pd.DataFrame) -> pd.DataFrame:
    """The default columns, in the order of `default_spec`."""
    change = np.log(df["close"] / df["close"].shift(1))
    for n in (1, 4, 16):
        df[f"%-return-{n}"] = np.log(df["close"] / df["close"].shift(n))
    for n in (16, 96):
        df[f"%-volatility-{n}"] = 0.5 * np.log((change**2).rolling(n).mean())
    spread, body = np.log(df["high"] / df["low"]), np.log(df["close"] / df["open"])
    df["%-garman-klass"] = 0.5 * np.log((0.5 * spread**2 - (2 * np.log(2) - 1) * body**2).rolling(16).mean())
    df["%-range"] = np.log(spread / spread.rolling(48).mean())
    volume = df["volume"]
    df["%-volume-z"] = (volume - volume.rolling(96).mean()) / volume.rolling(96).std()
    df["%-rsi"] = change.rolling(14).sum() / change.abs().rolling(14).sum()
    before = df["close"].shift(1)
    true_range = np.log(np.maximum(df["high"], before) / np.minimum(df["low"], before))
    df["%-atr"] = np.log(true_range.rolling(14).mean() / true_range.rolling(96).mean())
    close = np.log(df["close"])
    spread = close.ewm(span=12).mean() - close.ewm(span=26).mean()
    df["%-macd"] = spread / true_range.rolling(26).mean()
    df["%-bollinger"] = (close - close.rolling(20).mean()) / (2 * close.rolling(20).std())
    day = (df["date"].dt.hour + df["date"].dt.minute / 60) / 24
    week = (df["date"].dt.day_of_week + day) / 7
    for name, place in (("hour", day), ("weekday", week)):
        df[f"%-{name}-sin"], df[f"%-{name}-cos"] = np.sin(2 * np.pi * place), np.cos(2 * np.pi * place)
    return df


def pandas_wide(df: pd.DataFrame, closes: pd.DataFrame) -> pd.DataFrame:
    """The further columns of `wide_spec`; `closes` holds every pair's, as FreqAI merges correlated pairs."""
    df = pandas_default(df)
    opened, high, low, close = (np.log(df[name]) for name in ("open", "high", "low", "close"))
    df["%-parkinson"] = 0.5 * np.log(((high - low) ** 2).rolling(48).mean() / (4 * np.log(2)))
    share = 0.34 / (1.34 + 49 / 47)
    measure = ((high - close) * (high - opened) + (low - close) * (low - opened)).rolling(48).mean()
    jumps, bodies = (opened - close.shift(1)).rolling(48).var(), (close - opened).rolling(48).var()
    df["%-yang-zhang"] = 0.5 * np.log(jumps + share * bodies + (1 - share) * measure)
    volume, change = df["volume"], close.diff()
    df["%-volume-ratio"] = np.log(volume / volume.rolling(48).mean() + 0.01)
    top, bottom = df["high"].rolling(48).max(), df["low"].rolling(48).min()
    df["%-channel"] = (2 * df["close"] - top - bottom) / (top - bottom)
    df["%-signed"] = (np.sign(change) * volume).rolling(48).sum() / volume.rolling(48).sum()
    df["%-vwap"] = close - (close * volume).rolling(48).sum() / volume.rolling(48).sum()
    df["%-rsi-ta"], df["%-natr"] = ta.RSI(df, timeperiod=14), ta.NATR(df, timeperiod=14)
    df["%-adx"], df["%-plus"] = ta.ADX(df, timeperiod=14), ta.PLUS_DI(df, timeperiod=14)
    df["%-minus"] = ta.MINUS_DI(df, timeperiod=14)
    df["%-macd-ta"] = ta.MACD(df, fastperiod=12, slowperiod=26, signalperiod=9)["macd"] / df["close"]
    bands = ta.BBANDS(df, timeperiod=20, nbdevup=2.0, nbdevdn=2.0)
    df["%-bands"] = (df["close"] - bands["middleband"]) / (bands["upperband"] - bands["middleband"])
    logs = np.log(closes)
    df["%-market"] = logs.diff(4).mean(axis=1)
    market = logs.diff().mean(axis=1)
    df["%-beta"] = change.rolling(96).cov(market) / market.rolling(96).var()
    df["%-rank"] = logs.diff(16).rank(axis=1)[PAIRS[1]]
    leader = logs[PAIRS[0]].diff().shift(1)
    df["%-lead"] = change.rolling(96).cov(leader) / leader.rolling(96).var()
    return df


def in_pandas(table: pl.DataFrame) -> pd.DataFrame:
    """A candle table as Freqtrade hands it to a strategy."""
    return table.rename({"timestamp": "date"}).to_pandas()


def columns(rows: int, rounds: int) -> dict[str, dict[str, float]]:
    """CPU nanoseconds a row of both, for the default and for the wide set; best of interleaved rounds."""
    tables = {pair: simulated(rows, number) for number, pair in enumerate(PAIRS)}
    table, closes = tables[PAIRS[1]], market_closes(tables)
    frame = in_pandas(table)
    side = pd.DataFrame({pair: one["close"].to_numpy() for pair, one in tables.items()})
    wide, base = wide_spec(), default_spec(PAIRS, "15m")
    joined = enrich(table, wide, Enrichment(market=closes))
    # Pieces as the pipeline makes them; the history before each counts as work.
    return {
        "default": _both(lambda: _pieces(table, base), lambda: pandas_default(frame.copy()), rows, rounds),
        "wide": _both(lambda: _pieces(joined, wide), lambda: pandas_wide(frame.copy(), side), rows, rounds),
    }


def _pieces(table: pl.DataFrame, spec: DatasetSpec, size: int = 35_040) -> list[pl.DataFrame]:
    starts = range(0, table.height, size)
    return [
        make_features(table[max(start - spec.warmup, 0) : start + size], spec)[min(start, spec.warmup) :]
        for start in starts
    ]


def _both(ours: Callable[[], Any], theirs: Callable[[], Any], rows: int, rounds: int) -> dict[str, float]:
    best = {"ours": float("inf"), "pandas": float("inf")}
    for _ in range(rounds):
        for name, work in (("ours", ours), ("pandas", theirs)):
            started = time.process_time()
            work()
            best[name] = min(best[name], (time.process_time() - started) / rows * 1e9)
    return best


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(columns(int(sys.argv[1]), int(sys.argv[2]))))
