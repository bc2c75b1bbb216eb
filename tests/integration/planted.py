"""Candles with a relation planted in them, as files that the sandbox exchange replays, and bots that trade them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cluster.settings import Settings
from observability.progress import NullProgress
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


def write_pair(
    folder: Path, pair: str, log_close: Floats, *, funding: Floats | float = 1e-4, perpetual: Floats | None = None
) -> None:
    """Candles and funding payments of one pair from its log-closes, beginning at `OPEN_MS`.

    `perpetual`: log-closes of its perpetual, which has the prices of spot without them.
    """
    name = pair.replace("/", "_")
    _write_candles(folder / f"{name}-15m.parquet", log_close)
    if perpetual is not None:
        _write_candles(folder / f"{name}-perpetual-15m.parquet", perpetual)
    due = np.arange(-(-OPEN_MS // FUNDING_MS) * FUNDING_MS, OPEN_MS + STEP_MS * len(log_close), FUNDING_MS)
    rates = np.broadcast_to(np.asarray(funding, dtype=float), due.shape)
    pl.DataFrame({"timestamp": pl.Series(due).cast(TIMESTAMP), "funding_rate": rates}).write_parquet(
        folder / f"{name}-funding.parquet"
    )


def _write_candles(path: Path, log_close: Floats) -> None:
    close = np.round(np.exp(log_close), 2)
    opened = np.concatenate([close[:1], close[:-1]])
    times = OPEN_MS + STEP_MS * np.arange(len(close))
    high, low = np.maximum(opened, close) * 1.0003, np.minimum(opened, close) * 0.9997
    pl.DataFrame(
        {
            "timestamp": pl.Series(times).cast(TIMESTAMP),
            "open": opened,
            "high": np.round(high, 2),
            "low": np.round(low, 2),
            "close": close,
            "volume": np.full(len(close), 5_000.0),
        }
    ).write_parquet(path)


@contextmanager
def trading_on(candles: Path, pairs: tuple[str, ...], rows: int, **trade: Any) -> Iterator[dict[str, Any]]:
    """A fleet that trades the last `rows` candles of a folder on virtual time: fleet, exchange and settings."""
    from cluster.ray_local import ray_session
    from cluster.stages import trade as stage
    from cluster.stages.bots import Forecasts, bot_names, bot_specs
    from cluster.stages.exchange import start_exchange

    settings = Settings().changed(
        workspace={"root": candles.parent / "space"},
        market={"replay": candles, "pairs": pairs, "trading_days": rows / 96},
        trade=trade,
        cluster={"dashboard": False},
    )
    settings.workspace.make()
    with ray_session(settings):
        handles = stage.prepare(settings)
        exchange = start_exchange(settings, NullProgress(), accounts=tuple(bot_names(settings)))
        try:
            specs = bot_specs(settings, Forecasts(), exchange)
            fleet = stage.start_fleet(settings, NullProgress(), specs, handles=handles)
            try:
                yield {"fleet": fleet, "exchange": exchange, "settings": settings}
            finally:
                stage.stop_fleet(settings, fleet)
        finally:
            exchange.stop()
