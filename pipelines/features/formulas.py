"""Small shapes that features share."""

from __future__ import annotations

import numpy as np

from pipelines.features.windows import Array

TINY = 1e-6  # a log-volatility floor: one millionth of the price in a candle is below every exchange's tick
FLAT = 1e-9  # mean true range below which the price counts as constant
CLIP = 10.0


def log_volatility(variance: Array) -> Array:
    """Half the log of a variance a candle, with a floor."""
    return 0.5 * np.log(np.maximum(variance, TINY * TINY))


def ratio(value: Array, base: Array, flat: Array) -> Array:
    """value / base clipped at +-10, and 0 where `flat`."""
    out = np.divide(value, base)
    np.clip(out, -CLIP, CLIP, out=out)
    out[flat] = 0.0
    return out
