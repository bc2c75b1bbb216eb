"""Real perpetuals through the sandbox and unmodified ccxt arrive as they were recorded, funding and marks too."""

from __future__ import annotations

import polars as pl
import pytest

from cluster.settings import Settings
from cluster.stages.exchange import start_exchange
from observability.progress import NullProgress
from pipelines.adapters.exchange import backfill, open_exchange
from pipelines.backfill_summary import explain
from pipelines.store import CandleStore, SeriesKey

pytestmark = [pytest.mark.slow, pytest.mark.realdata]
DAY_MS = 86_400_000
SPOT, PERPETUAL = "BTC/USDT", "BTC/USDT:USDT"


def milliseconds(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.col("timestamp").dt.epoch("ms"))


def test_perpetuals_arrive_as_they_were_recorded(shared_data, tmp_path):
    folder = shared_data / "market" / "binanceusdm"
    market = {"pairs": (SPOT, "ETH/USDT"), "replay": folder, "trading_days": 2.0}
    running = start_exchange(Settings().changed(workspace={"root": tmp_path / "x"}, market=market), NullProgress())
    try:
        store, source = CandleStore(str(tmp_path / "store")), open_exchange("sandbox", running.url)
        span = {"since_ms": running.first_ms - DAY_MS, "until_ms": running.open_ms}
        kinds = ("ohlcv", "funding", "mark")
        pairs, frames = (PERPETUAL, "ETH/USDT:USDT"), ("15m", "1h")
        summary = backfill(source, store, pairs, frames, progress=NullProgress(), kinds=kinds, **span)
    finally:
        running.stop()
    assert len(summary.series) == 2 * (2 + 1 + 2)
    assert "BTC/USDT:USDT 15m: listed at" in " ".join(explain(summary))

    recorded = milliseconds(pl.read_parquet(folder / "BTC_USDT-15m.parquet"))
    stored = milliseconds(store.read(SeriesKey("sandbox", "ohlcv", PERPETUAL, "15m")))
    there = recorded.filter(pl.col("timestamp").is_between(running.first_ms, running.open_ms - 900_000))
    both = stored.join(there, on="timestamp", suffix="_file")
    assert stored.height == (running.open_ms - running.first_ms) // 900_000
    assert both.height == there.height
    for name in ("open", "high", "low", "close"):
        assert (both[name] - both[f"{name}_file"]).abs().max() < 1e-6

    rates = milliseconds(pl.read_parquet(folder / "BTC_USDT-funding.parquet"))
    told = milliseconds(store.read(SeriesKey("sandbox", "funding", PERPETUAL)))
    paid = rates.filter(pl.col("timestamp").is_between(running.first_ms, running.open_ms - 1))
    assert told["timestamp"].to_list() == paid["timestamp"].to_list()
    assert (told["funding_rate"] - paid["funding_rate"]).abs().max() <= 5e-9  # Binance writes eight decimals

    marks = store.read(SeriesKey("sandbox", "mark", PERPETUAL, "1h"))
    assert marks.height >= (running.open_ms - running.first_ms) // 3_600_000 - 1
    assert "volume" not in marks.columns
