"""Candles with a relation planted in them, as files that the sandbox exchange replays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.candles import TIMESTAMP

STEP_MS, OPEN_MS = 900_000, 1_725_148_800_000
FUNDING_MS = 28_800_000
Floats = NDArray[np.float64]


def reverting(rng: np.random.Generator, rows: int, phi: float, sigma: float) -> Floats:
    """A first-order autoregression around zero."""
    values = np.zeros(rows)
    for row in range(1, rows):
        values[row] = phi * values[row - 1] + rng.normal(0.0, sigma)
    return values


def write_pair(folder: Path, pair: str, log_close: Floats, *, funding: Floats | float = 1e-4) -> None:
    """Candles and funding payments of one pair from its log-closes, beginning at `OPEN_MS`."""
    close = np.round(np.exp(log_close), 2)
    opened = np.concatenate([close[:1], close[:-1]])
    times = OPEN_MS + STEP_MS * np.arange(len(close))
    high, low = np.maximum(opened, close) * 1.0003, np.minimum(opened, close) * 0.9997
    name = pair.replace("/", "_")
    pl.DataFrame(
        {
            "timestamp": pl.Series(times).cast(TIMESTAMP),
            "open": opened,
            "high": np.round(high, 2),
            "low": np.round(low, 2),
            "close": close,
            "volume": np.full(len(close), 5_000.0),
        }
    ).write_parquet(folder / f"{name}-15m.parquet")
    due = np.arange(-(-OPEN_MS // FUNDING_MS) * FUNDING_MS, times[-1] + STEP_MS, FUNDING_MS)
    rates = np.broadcast_to(np.asarray(funding, dtype=float), due.shape)
    pl.DataFrame({"timestamp": pl.Series(due).cast(TIMESTAMP), "funding_rate": rates}).write_parquet(
        folder / f"{name}-funding.parquet"
    )
