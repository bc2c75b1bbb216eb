"""Candles for tests: seeded random walks with the ugly parts of markets in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from hypothesis import strategies as st

from pipelines.candles import CANDLE_SCHEMA, TIMESTAMP
from pipelines.spec import DatasetSpec, FeatureRef

STEP = 900_000
START = 1_704_067_200_000  # Monday 2024-01-01 00:00 UTC

PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")

# Small windows, so that short tables reach every branch. Every registered feature must be here.
EXAMPLES: dict[str, dict[str, int | str]] = {
    "log_return": {"n": 3},
    "log_vol_close": {"n": 5},
    "log_vol_parkinson": {"n": 5},
    "log_vol_garman_klass": {"n": 5},
    "range_ratio": {"n": 6},
    "volume_z": {"n": 7},
    "volume_ratio": {"n": 5},
    "rsi": {"n": 4},
    "atr_ratio": {"fast": 3, "slow": 8},
    "macd_norm": {"fast": 2, "slow": 4},
    "bollinger": {"n": 6},
    "log_vol_yang_zhang": {"n": 6},
    "close_position": {},
    "channel_position": {"n": 5},
    "signed_volume": {"n": 5},
    "vwap_gap": {"n": 5},
    "ta_rsi": {"n": 2},
    "ta_macd": {"fast": 2, "slow": 3},
    "ta_macd_signal": {"fast": 2, "slow": 3, "signal": 2},
    "ta_natr": {"n": 2},
    "ta_bbands": {"n": 6},
    "ta_plus_di": {"n": 2},
    "ta_minus_di": {"n": 2},
    "ta_adx": {"n": 2},
    "weekend": {},
    "session": {"region": "asia"},
    "market_return": {"n": 2},
    "market_beta": {"n": 6},
    "market_residual": {"n": 5},
    "return_rank": {"n": 3},
    "leader_return": {"leader": "ETH/USDT", "n": 2},
    "lead_lag": {"leader": "ETH/USDT", "n": 6},
    "funding_mean": {"n": 3},
    "basis": {},
    "hour_sin": {},
    "hour_cos": {},
    "weekday_sin": {},
    "weekday_cos": {},
    "funding": {},
    "onchain_change": {"metric": "tx_count"},
    "onchain_log": {"metric": "mvrv"},
    "onchain_netflow": {},
}


def spec_of(*names: str, timeframe: str = "15m") -> DatasetSpec:
    refs = tuple(FeatureRef(name, EXAMPLES[name]) for name in names or sorted(EXAMPLES))
    return DatasetSpec(PAIRS, timeframe, refs, (1, 4), 8)


@dataclass(frozen=True)
class Walk:
    """What to draw: `flat` and `silent` are shares of candles without movement or volume."""

    seed: int
    rows: int = 120
    price: float = 100.0
    sigma: float = 0.01
    flat: float = 0.0
    silent: float = 0.0


def candles(walk: Walk) -> pl.DataFrame:
    rng = np.random.default_rng(walk.seed)
    move = rng.normal(0, walk.sigma, walk.rows) * (rng.random(walk.rows) >= walk.flat)
    close = walk.price * np.exp(np.cumsum(move))
    open_ = np.concatenate([[walk.price], close[:-1]])
    wick = walk.sigma * (move != 0)
    high = np.maximum(open_, close) * np.exp(wick * rng.random(walk.rows))
    low = np.minimum(open_, close) * np.exp(-wick * rng.random(walk.rows))
    volume = np.exp(rng.normal(3, 1, walk.rows)) * (rng.random(walk.rows) >= walk.silent)
    times = START + STEP * np.arange(walk.rows)
    columns = (times, open_, high, low, close, volume)
    return pl.DataFrame(dict(zip(CANDLE_SCHEMA, columns, strict=True))).with_columns(
        pl.col("timestamp").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    )


def enriched(walk: Walk) -> pl.DataFrame:
    """Candles with enrichment columns of their own, as if joined."""
    rng = np.random.default_rng(walk.seed + 1)
    names = ("tx_count", "tx_count_7d_ago", "mvrv", "exchange_inflow", "exchange_outflow")
    extra = {name: np.exp(rng.normal(0, 1, walk.rows)) for name in names}
    others = {f"close:{pair}": np.exp(np.cumsum(rng.normal(0, 0.01, walk.rows))) for pair in PAIRS[1:]}
    table = candles(walk)
    return table.with_columns(
        funding_rate=pl.Series(rng.normal(1e-4, 1e-4, walk.rows)),
        mark_close=table["close"] * np.exp(rng.normal(0, 1e-3, walk.rows)),
        **{k: pl.Series(v) for k, v in (extra | others).items()},
        **{f"close:{PAIRS[0]}": pl.col("close")},
    )


def when(ms: int) -> pl.Expr:
    return pl.lit(ms).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")


def onchain(rows: list[tuple[int, int, float]]) -> pl.DataFrame:
    """On-chain rows of (day, hours after the day's start at which it is known, value)."""
    day = 86_400_000
    times = [START + d * day for d, _, _ in rows]
    known = [START + d * day + h * 3_600_000 for d, h, _ in rows]
    return pl.DataFrame({"timestamp": times, "available_at": known, "tx_count": [v for _, _, v in rows]}).with_columns(
        pl.col("timestamp", "available_at").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC").cast(TIMESTAMP)
    )


WALKS = st.builds(
    Walk,
    seed=st.integers(0, 2**31),
    rows=st.integers(110, 200),
    price=st.sampled_from([1e-5, 0.3, 100.0, 60_000.0]),
    sigma=st.sampled_from([1e-4, 3e-3, 0.05]),
    flat=st.sampled_from([0.0, 0.3, 0.95]),
    silent=st.sampled_from([0.0, 0.3, 0.95]),
)
