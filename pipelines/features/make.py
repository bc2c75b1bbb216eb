"""The one function that batch and live share: candles in, feature columns out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from pipelines.candles import CANDLE_SCHEMA, PAIR, check_schema
from pipelines.features.bars import Bars
from pipelines.features.registry import get_feature
from pipelines.features.windows import Array

if TYPE_CHECKING:
    from pipelines.spec import DatasetSpec


def make_features(candles: pl.DataFrame, spec: DatasetSpec) -> pl.DataFrame:
    """Features of one pair, or of several at once.

    A row's bits depend on the candles from `spec.warmup` before it up to itself and on nothing else: neither on where
    the table starts nor on which other pairs are in it.

    Args:
        candles: candle table on the spec's grid, with enrichment columns where the spec needs them; of several pairs
            if it has a column `pair`, pair after pair, each sorted by time.
        spec: which features.

    Returns:
        As many rows as `candles`: `pair` if given, `timestamp`, `close` and `spec.columns` (Float64). Null where the
        history is too short (start of a pair, after a gap) or the enrichment is missing; never NaN or infinite.

    Raises:
        CandleError: if a candle column is missing.
        SpecError: if an enrichment column that the spec needs is missing.
    """
    check_schema(candles, CANDLE_SCHEMA, "make_features")
    bars = Bars(candles, spec.timeframe, spec.pairs)
    columns = {}
    # Rows without a whole window hold NaN on purpose, and a silent market divides by zero.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for ref in spec.features:
            values = get_feature(ref.name).values(bars, ref.params)
            columns[ref.column] = _column(values, bars.starts, ref.warmup)
    keys = [candles[name] for name in (PAIR, "timestamp", "close") if name in candles.columns]
    made = pl.from_arrow(pa.table(columns), rechunk=False)
    assert isinstance(made, pl.DataFrame)
    return pl.DataFrame(keys).hstack(made)


def _column(values: Array, starts: Array, warmup: int) -> pa.Array:
    """Values as they are and a bit each for what is usable: a column with nulls, without a copy."""
    usable = np.isfinite(values)
    for start in starts:
        usable[start : start + warmup] = False
    bits = np.packbits(usable, bitorder="little")
    buffers = [pa.py_buffer(bits), pa.py_buffer(np.ascontiguousarray(values, dtype=np.float64))]
    return pa.Array.from_buffers(pa.float64(), len(values), buffers)
