"""Features of candles: one small function each, registered with the history that it needs.

Every feature is causal (row t reads rows <= t), has a finite memory (the value at row t depends on candles t - warm-up
.. t alone, bit for bit, so a live service with that much history computes what the batch computed) and is roughly free
of scale (no price or volume levels). After a gap in the candles a column is null until its whole window lies behind it.

To add one: write a function of `Bars` and its parameters beside its like, decorate it with `@feature(warmup=...)`, and
name it in a spec. It may return an array made with `Bars`, or a polars expression over the candle table.
"""

from pipelines.features import calendar, market, price, slow, ta, trend, volume
from pipelines.features.bars import Bars
from pipelines.features.make import make_features
from pipelines.features.registry import Feature, Param, feature, feature_names, get_feature

# The families register what they hold.
FAMILIES = (price, volume, trend, ta, calendar, market, slow)

__all__ = [
    "FAMILIES", "Bars", "Feature", "Param", "feature", "feature_names", "get_feature", "make_features",
]  # fmt: skip
