"""What feature functions read: the columns of one or several pairs' candles, and windows over them.

Series that several features share (log prices, returns, true range) are made once. Rows of several pairs lie one pair
after the other; a window at the start of a pair then reads rows of the pair before, which is why `make_features` blanks
every row whose declared warm-up does not lie within its own pair and behind its last gap.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property

import numpy as np
import polars as pl

from observability.errors import SpecError
from pipelines.candles import PAIR, timeframe_ms
from pipelines.features.windows import Array, Doublings, Spreads, change, extreme, floats, memory, weight

_KEPT_SUMS = 3  # more of them are seldom asked for again, and push each other out of the cache


class Bars:
    """Candles as float64 arrays of one length, oldest first.

    Args:
        table: candle table of one pair, or of several with a column `pair`, pair after pair.
        timeframe: its grid.
        pairs: the data set's pairs, whose closes the features of the whole market read.
    """

    def __init__(self, table: pl.DataFrame, timeframe: str, pairs: tuple[str, ...] = ()) -> None:
        self.table, self.pairs = table, pairs
        self.step_ms = timeframe_ms(timeframe)
        self._made: dict[object, Array] = {}
        # Keyed by identity; a key's array is held beside it, so that no other array can take its place.
        self._sums: OrderedDict[tuple[int, float], tuple[Array, Doublings]] = OrderedDict()

    def column(self, name: str) -> Array:
        """A column of the table; missing values are NaN.

        Raises:
            SpecError: if the table lacks it.
        """
        return self.made(name, lambda: self._column(name))

    def made(self, key: object, make: Callable[[], Array]) -> Array:
        """The array of that key, made when first asked for: for series that several features share."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def total(self, x: Array, n: int) -> Array:
        """Sum of the last n rows."""
        return self._doublings(x).total(n)

    def mean(self, x: Array, n: int) -> Array:
        """Mean of the last n rows."""
        return self.total(x, n) * (1 / n)

    def deviation(self, x: Array, n: int, *, ddof: int = 0) -> Array:
        """Standard deviation of the last n rows."""
        return np.sqrt(Spreads(self._doublings(x)).total(n) * (1 / max(n - ddof, 1)))

    def smooth(self, x: Array, keep: float, n: int = 0) -> Array:
        """Mean of the last n rows with weights keep^0, keep^1, ... from the newest on; all that matter if n is 0."""
        n = n or memory(keep)
        return self._doublings(x, keep).total(n) * (1 / weight(keep, n))

    def highest(self, x: Array, n: int) -> Array:
        """Largest of the last n rows."""
        return extreme(x, n, np.maximum)

    def lowest(self, x: Array, n: int) -> Array:
        """Smallest of the last n rows."""
        return extreme(x, n, np.minimum)

    def log(self, name: str) -> Array:
        """Natural logarithm of a column."""
        return self.made(("log", name), lambda: np.log(self.column(name)))

    @cached_property
    def times(self) -> Array:
        """Open times in ms, int64."""
        return self.table["timestamp"].to_physical().to_numpy()

    @cached_property
    def starts(self) -> Array:
        """Rows at which a pair starts or goes on after a gap, int64."""
        new = np.diff(self.times) != self.step_ms
        if PAIR in self.table.columns:
            new |= (self.table[PAIR][1:] != self.table[PAIR][:-1]).to_numpy()
        return np.concatenate([[0], np.flatnonzero(new) + 1]).astype(np.int64)

    @cached_property
    def returns(self) -> Array:
        """Log-return of one candle."""
        return change(self.log("close"), 1)

    @cached_property
    def squared_returns(self) -> Array:
        """Square of the log-return of one candle."""
        return self.returns * self.returns

    @cached_property
    def moves(self) -> Array:
        """Size of the log-return of one candle."""
        return np.abs(self.returns)

    @cached_property
    def ranges(self) -> Array:
        """ln(high / low)."""
        return self.log("high") - self.log("low")

    @cached_property
    def true_ranges(self) -> Array:
        """Wilder's true range as a log ratio of prices: the gap to the previous close counts."""
        before = np.empty_like(self.log("close"))
        before[:1], before[1:] = np.nan, self.log("close")[:-1]
        return np.maximum(self.log("high"), before) - np.minimum(self.log("low"), before)

    def _doublings(self, x: Array, keep: float = 1.0) -> Doublings:
        key = (id(x), keep)
        if key in self._sums:
            self._sums.move_to_end(key)
        else:
            self._sums[key] = (x, Doublings(x, keep))
            if len(self._sums) > _KEPT_SUMS:
                self._sums.popitem(last=False)
        return self._sums[key][1]

    def _column(self, name: str) -> Array:
        if name not in self.table.columns:
            raise SpecError(
                f"the features need a column {name!r}",
                where="make_features",
                todo="enrich the candles first (pipelines.frames.feature_frame does)",
            )
        return floats(self.table[name])
