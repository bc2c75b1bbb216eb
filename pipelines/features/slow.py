"""Features of slower series: funding, the basis to the mark price, on-chain metrics. All as known at the close."""

from __future__ import annotations

import numpy as np

from pipelines.features.bars import Bars
from pipelines.features.registry import feature
from pipelines.features.windows import Array


@feature(warmup=lambda: 0, source="funding")
def funding(bars: Bars) -> Array:
    """Last settled funding rate in basis points, clipped at +-100."""
    return np.clip(bars.column("funding_rate") * 1e4, -100.0, 100.0)


@feature(warmup=lambda n: n - 1, source="funding")
def funding_mean(bars: Bars, n: int) -> Array:
    """Mean over n candles of the last settled funding rate, in basis points, clipped at +-100."""
    return np.clip(bars.mean(bars.column("funding_rate"), n) * 1e4, -100.0, 100.0)


@feature(warmup=lambda: 0, source="mark")
def basis(bars: Bars) -> Array:
    """ln(close / last closed mark price) in basis points, clipped at +-1000."""
    return np.clip((bars.log("close") - bars.log("mark_close")) * 1e4, -1000.0, 1000.0)


@feature(warmup=lambda metric: 0, source="onchain")
def onchain_change(bars: Bars, metric: str) -> Array:
    """Log change of an on-chain metric over seven days, both values as they were known then."""
    return np.log(bars.column(metric) / bars.column(f"{metric}_7d_ago"))


@feature(warmup=lambda metric: 0, source="onchain")
def onchain_log(bars: Bars, metric: str) -> Array:
    """Log of an on-chain metric that is a ratio already, such as market value to realised value."""
    return bars.log(metric)


@feature(warmup=lambda: 0, source="onchain")
def onchain_netflow(bars: Bars) -> Array:
    """Flow into exchanges less flow out of them, as a share of both."""
    inflow, outflow = bars.column("exchange_inflow"), bars.column("exchange_outflow")
    out: Array = (inflow - outflow) / (inflow + outflow)
    return out
