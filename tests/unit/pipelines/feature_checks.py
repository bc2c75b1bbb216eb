"""The checks that every feature passes, and that every planted leak must fail. Bits are compared, not numbers."""

from __future__ import annotations

import numpy as np
import polars as pl

from pipelines.features import make_features
from pipelines.spec import DatasetSpec


def assert_same_bits(left: pl.DataFrame, right: pl.DataFrame, columns: tuple[str, ...], complaint: str) -> None:
    """Equal in every bit, nulls included: a tolerance would let a small leak or a small skew through."""
    assert left.height == right.height
    for name in columns:
        here, there = (frame[name].to_numpy() for frame in (left, right))
        assert left[name].is_null().equals(right[name].is_null()), f"{name} {complaint}: other rows are missing"
        whole = ~np.isnan(here)
        assert np.array_equal(here[whole].view(np.int64), there[whole].view(np.int64)), f"{name} {complaint}"


def assert_causal(table: pl.DataFrame, changed: pl.DataFrame, spec: DatasetSpec, row: int) -> None:
    """Rows up to `row` do not know what follows: `changed` equals `table` up to there and differs behind it."""
    before, after = (make_features(frame, spec).slice(0, row + 1) for frame in (table, changed))
    assert_same_bits(before, after, spec.columns, "reads the future")


def assert_memory(table: pl.DataFrame, spec: DatasetSpec, first: int) -> None:
    """Every row whose declared warm-up lies at or behind `first` does without what was before `first`."""
    whole, cut = make_features(table, spec), make_features(table.slice(first), spec)
    for ref in spec.features:
        left, right = cut.slice(ref.warmup), whole.slice(first + ref.warmup)
        assert_same_bits(left, right, (ref.column,), "reads more than its declared warm-up")


def future_changed(table: pl.DataFrame, other: pl.DataFrame, row: int) -> pl.DataFrame:
    """The same table up to `row`, and the rows of quite another one behind it, at the same times."""
    rest = other.slice(row + 1).with_columns(timestamp=table["timestamp"][row + 1 :])
    return pl.concat([table.slice(0, row + 1), rest.select(table.columns)])
