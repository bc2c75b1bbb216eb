"""Sums, means and extremes over the last n rows whose value depends on those n rows alone, to the last bit.

A running sum keeps a rounding residue of everything that ever left its window, so its bits depend on where the history
starts, and a live window of a few hundred candles never equals the batch. Here a window is put together by doubling:
the sum of 2k rows is the sum of the last k rows plus that of the k rows before, so a window of n rows takes about
log2 n whole-column additions, always in the same order relative to the row. Nothing is ever subtracted from a sum,
which also makes sums of squares safe. Exponential means are windows too, with geometric weights, cut off where the
weights no longer matter.

Every function takes and returns float64 arrays of one length; rows without a whole window are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

Array = np.ndarray[Any, Any]
NEGLIGIBLE = 1e-13  # weight of everything that a cut-off exponential mean leaves out


def floats(column: pl.Series) -> Array:
    """A column as float64, without a copy where it is one already; missing values are NaN."""
    if column.dtype != pl.Float64 or column.null_count():
        column = column.cast(pl.Float64).fill_null(float("nan"))
    return column.to_numpy()


def lag(x: Array, n: int) -> Array:
    """The value n rows before."""
    out = np.empty_like(x)
    out[:n] = np.nan
    out[n:] = x[: max(len(x) - n, 0)]
    return out


def change(x: Array, n: int) -> Array:
    """x[t] - x[t-n]."""
    return _with_lag(np.subtract, x, x, n)


class Doublings:
    """Sums of the last 1, 2, 4, ... rows of one column, made when first asked for and shared by all windows over it.

    Args:
        x: the column.
        keep: weight of a row relative to the next newer one; 1 for a plain sum.
    """

    def __init__(self, x: Array, keep: float = 1.0) -> None:
        self._keep, self._sums = keep, [x]

    def total(self, n: int) -> Array:
        """Sum over i < n of keep^i * x[t-i]."""
        total, size = None, 0
        for level in _levels(n):
            part = self._power(level)
            total = part if total is None else self._joined(total, part, size)
            size += 1 << level
        assert total is not None
        return total

    def _power(self, level: int) -> Array:
        while len(self._sums) <= level:
            last = self._sums[-1]
            self._sums.append(self._joined(last, last, 1 << (len(self._sums) - 1)))
        return self._sums[level]

    def _joined(self, newer: Array, older: Array, size: int) -> Array:
        """A window of `size` rows and the one before it."""
        if self._keep == 1.0:
            return _with_lag(np.add, newer, older, size)
        out = np.empty_like(newer)
        out[:size] = np.nan
        np.multiply(older[: max(len(older) - size, 0)], self._keep**size, out=out[size:])
        np.add(newer[size:], out[size:], out=out[size:])
        return out


class Spreads:
    """Sums of squared deviations from the window's own mean, joined by Chan's formula (Chan, Golub, LeVeque 1983).

    Exactly 0 where a window of a power of two is constant; never the small difference of two large numbers.

    Args:
        sums: plain sums of the column.
    """

    def __init__(self, sums: Doublings) -> None:
        self._sums = sums
        self._squares: list[Array] = []

    def total(self, n: int) -> Array:
        """Sum over the last n rows of (x - their mean)^2."""
        total, size = None, 0
        for level in _levels(n):
            part = self._power(level)
            total = part if total is None else self._joined((self._sums.total(size), total, size), (1 << level, part))
            size += 1 << level
        assert total is not None
        return total

    def _power(self, level: int) -> Array:
        if not self._squares:
            self._squares.append(np.zeros_like(self._sums.total(1)))
        while len(self._squares) <= level:
            size, last = 1 << (len(self._squares) - 1), self._squares[-1]
            self._squares.append(self._joined((self._sums.total(size), last, size), (size, last)))
        return self._squares[level]

    def _joined(self, newer: tuple[Array, Array, int], older: tuple[int, Array]) -> Array:
        (newer_sum, newer_squares, size), (older_size, older_squares) = newer, older
        older_sum = self._sums.total(older_size)
        if size == older_size:
            between = _with_lag(np.subtract, newer_sum, older_sum, size)
            between *= between
            between *= 1 / (2 * size)
        else:
            between = _with_lag(np.subtract, newer_sum / size, older_sum / older_size, size)
            between *= between
            between *= size * older_size / (size + older_size)
        between += _with_lag(np.add, newer_squares, older_squares, size)
        return between


def extreme(x: Array, n: int, pick: Callable[..., Array]) -> Array:
    """Highest (`np.maximum`) or lowest (`np.minimum`) of the last n rows; windows may overlap."""
    best, size = x, 1
    while 2 * size <= n:
        best, size = _with_lag(pick, best, best, size), 2 * size
    return best if size == n else _with_lag(pick, best, best, n - size)


def memory(keep: float) -> int:
    """Rows after which geometric weights are negligible, rounded up to three binary digits to save additions."""
    if keep <= 0:
        return 1
    rows = math.ceil(math.log(NEGLIGIBLE) / math.log(keep))
    unit = 1 << max(rows.bit_length() - 3, 0)
    return -(-rows // unit) * unit


def weight(keep: float, n: int) -> float:
    """Sum over i < n of keep^i."""
    return (1 - keep**n) / (1 - keep)


def _levels(n: int) -> list[int]:
    """Binary digits of n that are set, lowest first: the newest rows form the smallest window."""
    return [level for level in range(n.bit_length()) if n >> level & 1]


def _with_lag(operate: Callable[..., Array], newer: Array, older: Array, n: int) -> Array:
    out = np.empty_like(newer)
    out[:n] = np.nan
    operate(newer[n:], older[: max(len(older) - n, 0)], out=out[n:])
    return out
