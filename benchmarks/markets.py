"""Markets to be judged on: simulated with and without an edge, real, and real with its time shuffled in blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from mtst.panel import Panel, make_panel
from pipelines.candles import timeframe_ms
from pipelines.frames import Enrichment, training_frame
from pipelines.spec import DatasetSpec, default_spec
from trading.adapters.sandbox.market import Market
from trading.adapters.sandbox.replay import replay
from trading.adapters.sandbox.simulated import SimulatedMarket, simulate, simulated_pairs

Candles = Mapping[str, pl.DataFrame]
DAY_MS = 86_400_000
PRICES = ("open", "high", "low", "close")


def simulated_candles(seed: int, edge: float, days: float = 120.0) -> Candles:
    """Six pairs at 15m; `edge` is the share of the variance that is drift."""
    spec = SimulatedMarket(simulated_pairs(), history_days=days, trading_days=1 / 96, edge=edge)
    return candles_of(simulate(spec, seed))


def real_candles(folder: Path, timeframe: str = "15m", days: float = 120.0) -> Candles:
    """The newest `days` (0: all) that all pairs of a folder share."""
    market = candles_of(replay(folder, timeframe, 0.0))
    rows = int(days * DAY_MS / timeframe_ms(timeframe)) or next(iter(market.values())).height
    return {pair: table.tail(rows) for pair, table in market.items()}


def candles_of(market: Market) -> Candles:
    """A market's whole life as candle tables."""
    times = pl.Series("timestamp", market.first_ms + market.step_ms * np.arange(market.rows))
    times = times.cast(pl.Datetime("ms", "UTC"))
    tables = {}
    for pair, known in market.candles.items():
        tick = 10.0 ** -market.rules[pair].price_decimals
        prices = {name: getattr(known, name) * tick for name in PRICES}
        tables[pair] = pl.DataFrame({"timestamp": times, **prices, "volume": known.volume})
    return tables


def shuffled(candles: Candles, seed: int, block: int = 16) -> Candles:
    """The same candles, relative to the close before them, in another order: blocks of time, all pairs alike.

    What happens inside a block and between pairs stays; what one block could tell of the next is gone.
    """
    rows = next(iter(candles.values())).height - 1
    order = np.random.default_rng(seed).permutation(rows // block)
    at = 1 + (order[:, None] * block + np.arange(block)).ravel()
    tables = {}
    for pair, table in candles.items():
        prices = table.select(PRICES).to_numpy()
        before = np.concatenate([prices[:1, 3], prices[:-1, 3]])
        ratios = (prices / before[:, None])[at]
        start = prices[0, 3] * np.concatenate([[1.0], np.cumprod(ratios[:-1, 3])])
        moved = ratios * start[:, None]
        moved[:, 1], moved[:, 2] = moved.max(1), moved.min(1)  # rounding must not put a high below its close
        columns = dict(zip(PRICES, moved.T, strict=True))
        volume = table["volume"].to_numpy()[at]
        tables[pair] = pl.DataFrame({"timestamp": table["timestamp"][1 : 1 + len(at)], **columns, "volume": volume})
    return tables


def panel_of(candles: Candles, timeframe: str = "15m") -> tuple[Panel, DatasetSpec]:
    """Features and labels by the code that training and serving use."""
    spec = default_spec(tuple(candles), timeframe)
    frames = {pair: training_frame(table, spec, Enrichment()) for pair, table in candles.items()}
    return make_panel(frames, spec.columns, spec.horizons, timeframe, spec.lookback), spec


def with_shuffled_labels(panel: Panel, seed: int) -> Panel:
    """Every label at another time, all pairs alike: nothing is left to forecast but the labels' distribution."""
    times = np.unique(panel.timestamps)
    known = times[: len(times) - max(panel.horizons)]
    order = np.random.default_rng(seed).permutation(len(known))
    labels = panel.labels.reshape(len(panel.pairs), len(times), -1).copy()
    labels[:, : len(known)] = labels[:, order]
    return replace(panel, labels=labels.reshape(panel.labels.shape))
