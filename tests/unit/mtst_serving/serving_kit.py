"""A small market, data set and model for tests of artifacts, sweeps and serving; everything real, only little."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import torch

from mtst.artifact import Artifact, save_artifact
from mtst.model import MTST, MTSTConfig
from mtst.panel import Scaler
from pipelines.candles import TIMESTAMP
from pipelines.frames import Enrichment, feature_frame, training_frame
from pipelines.spec import DatasetSpec, FeatureRef
from pipelines.store import pair_folder

PAIRS = ("BTC/USDT", "ETH/USDT")
START_MS = int(datetime(2024, 5, 1, tzinfo=UTC).timestamp() * 1000)
STEP_MS = 900_000


def small_spec(*, funding: bool = False) -> DatasetSpec:
    refs = [
        FeatureRef("log_return", {"n": 1}),
        FeatureRef("log_return", {"n": 4}),
        FeatureRef("log_vol_close", {"n": 8}),
        FeatureRef("rsi", {"n": 14}),
    ]
    if funding:
        refs.append(FeatureRef("funding"))
    return DatasetSpec(PAIRS, "15m", tuple(refs), (1, 4), 16)


def candles(rows: int, seed: int = 1, start_ms: int = START_MS) -> pl.DataFrame:
    """A random walk with changing volatility."""
    rng = np.random.default_rng(seed)
    volatility = 0.002 * np.exp(0.5 * np.sin(np.arange(rows) / 40))
    close = 100 * np.exp(np.cumsum(rng.standard_normal(rows) * volatility))
    open_ = np.concatenate([[100.0], close[:-1]])
    spread = np.abs(rng.standard_normal((2, rows))) * 0.001
    return pl.DataFrame(
        {
            "timestamp": start_ms + STEP_MS * np.arange(rows),
            "open": open_,
            "high": np.maximum(open_, close) * (1 + spread[0]),
            "low": np.minimum(open_, close) * (1 - spread[1]),
            "close": close,
            "volume": rng.uniform(1, 100, rows),
        }
    ).with_columns(pl.col("timestamp").cast(TIMESTAMP))


def market(rows: int) -> dict[str, pl.DataFrame]:
    return {pair: candles(rows, seed=number + 1) for number, pair in enumerate(PAIRS)}


def write_features(folder: Path, spec: DatasetSpec, rows: int) -> Path:
    target = folder / spec.hash
    target.mkdir(parents=True)
    for pair, table in market(rows).items():
        (target / pair_folder(pair)).mkdir()
        training_frame(table, spec, Enrichment()).write_parquet(target / pair_folder(pair) / "all.parquet")
    return folder


def small_model(spec: DatasetSpec, seed: int = 3) -> MTST:
    torch.manual_seed(seed)
    config = MTSTConfig(
        lookback=spec.lookback,
        n_channels=len(spec.columns),
        horizons=spec.horizons,
        patches=(4, 8),
        n_layers=1,
        d_model=8,
        n_heads=2,
        d_ff=16,
    )
    return MTST(config).eval()


def small_artifact(folder: Path, spec: DatasetSpec | None = None, **card: object) -> Artifact:
    spec = spec or small_spec()
    if spec.sources:
        width = len(spec.columns)
        scaler = Scaler(spec.columns, (0.0,) * width, (1.0,) * width)
    else:
        features = feature_frame(candles(300), spec).drop_nulls().select(spec.columns).to_numpy()
        scaler = Scaler.fit(features, spec.columns)
    card = {"name": "mtst", "absent": ["funding", "onchain"], **card}
    return save_artifact(folder, small_model(spec), scaler, spec, card)
