"""Volume against its own past, and with the direction of the price."""

from __future__ import annotations

import numpy as np

from pipelines.features.bars import Bars
from pipelines.features.formulas import ratio
from pipelines.features.registry import feature
from pipelines.features.windows import Array

_CONSTANT = 1e-12  # variance as a share of the squared mean below which only rounding moves


@feature(warmup=lambda n: n - 1)
def volume_z(bars: Bars, n: int) -> Array:
    """Standard score of the volume among the last n, clipped at +-10; 0 where it is constant."""
    volume = bars.column("volume")
    # Volumes spread as widely as they are large, so squares lose nothing that matters, and cost a third.
    squares = bars.made("squared volume", lambda: volume * volume)
    mean = bars.mean(volume, n)
    square = mean * mean
    variance = bars.mean(squares, n) - square
    still = variance <= _CONSTANT * square
    return ratio(volume - mean, np.sqrt(np.maximum(variance, 0.0) * (n / max(n - 1, 1))), still)


@feature(warmup=lambda n: n - 1)
def volume_ratio(bars: Bars, n: int) -> Array:
    """Log of the volume over its mean of n, with a floor of one hundredth of the mean; 0 where nothing is traded."""
    volume, mean = bars.column("volume"), bars.mean(bars.column("volume"), n)
    out = np.log(volume / mean + 0.01)
    out[mean == 0] = 0.0
    return out


@feature(warmup=lambda n: n)
def signed_volume(bars: Bars, n: int) -> Array:
    """Volume of rising candles less that of falling ones over n candles, as a share of all, in [-1, 1]."""
    volume = bars.column("volume")
    signed = bars.made("signed volume", lambda: np.sign(bars.returns) * volume)
    total = bars.total(volume, n)
    return ratio(bars.total(signed, n), total, total == 0)


@feature(warmup=lambda n: n - 1)
def vwap_gap(bars: Bars, n: int) -> Array:
    """ln(close) less its mean over n candles weighted by volume; 0 where nothing is traded."""
    volume, close = bars.column("volume"), bars.log("close")
    traded = bars.made("traded log close", lambda: volume * close)
    total = bars.total(volume, n)
    out = close - bars.total(traded, n) / total
    out[total == 0] = 0.0
    return out
