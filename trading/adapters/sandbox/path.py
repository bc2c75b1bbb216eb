"""The price at every millisecond: one deterministic way through each candle that keeps its four prices.

The price rests at the open for the first twentieth of a candle, then runs straight to one extreme, to the other, and to
the close. Which extreme comes first is a coin of the seed, independent of the candle: were it chosen by the candle's
colour, the first seconds would tell how the candle ends.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from trading.adapters.sandbox.market import Market
from trading.adapters.sandbox.rules import UNIT

HOLD, FIRST, SECOND = 0.05, 0.35, 0.70  # shares of a candle at which the path leaves the open and meets the extremes


class PricePath:
    """Prices between candles' four; all prices in ticks, all times in ms UTC."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._step = market.step_ms
        self._offsets = tuple(int(share * self._step) for share in (0.0, HOLD, FIRST, SECOND, 1.0))
        self._high_first = {
            pair: np.random.default_rng([market.seed, zlib.crc32(pair.encode())]).random(market.rows) < 0.5
            for pair in market.pairs
        }

    def row(self, at_ms: int) -> int:
        """Index of the candle that `at_ms` lies in, clipped to the market."""
        return min(max((at_ms - self._market.first_ms) // self._step, 0), self._market.rows - 1)

    def price(self, pair: str, at_ms: int) -> int:
        """The last traded price at `at_ms`; after the market's end, its last close."""
        if at_ms >= self._market.end_ms:
            return int(self._market.candles[pair].close[-1])
        row = self.row(at_ms)
        return self._within(self._knots(pair, row), at_ms - self._market.first_ms - row * self._step)

    def knots(self, after_ms: int, until_ms: int) -> Iterator[int]:
        """Times in (after_ms, until_ms] at which a path may turn, the same for all pairs, and `until_ms` itself."""
        for row in range(self.row(after_ms), self.row(until_ms) + 1):
            opened = self._market.first_ms + row * self._step
            # the last millisecond of a candle, too: between it and the next open the price may jump
            yield from (
                at
                for at in (*(opened + offset for offset in self._offsets[:-1]), opened + self._step - 1)
                if after_ms < at < until_ms
            )
        if until_ms > after_ms:
            yield until_ms

    def forming(self, pair: str, at_ms: int) -> tuple[int, int, int, int, float]:
        """Open, high, low, last and volume so far of the candle that `at_ms` lies in."""
        row = self.row(at_ms)
        inside = at_ms - self._market.first_ms - row * self._step
        knots = self._knots(pair, row)
        last = self._within(knots, inside)
        seen = [last, *(knots[k] for k in range(4) if self._offsets[k] <= inside)]
        running = max(0.0, inside - self._offsets[1]) / (self._step - self._offsets[1])
        volume = float(self._market.candles[pair].volume[row]) * running
        return knots[0], max(seen), min(seen), last, max(volume, 1.0 / UNIT)

    def first_below(self, pair: str, after_ms: int, until_ms: int, level: int) -> int | None:
        """First millisecond in (after_ms, until_ms] at which the price is under `level`, else None."""
        return self._first(pair, after_ms, until_ms, level, -1)

    def first_above(self, pair: str, after_ms: int, until_ms: int, level: int) -> int | None:
        """First millisecond in (after_ms, until_ms] at which the price is over `level`, else None."""
        return self._first(pair, after_ms, until_ms, level, 1)

    def _first(self, pair: str, after_ms: int, until_ms: int, level: int, sign: int) -> int | None:
        table, first = self._market.candles[pair], self._market.first_ms
        begin, end = max(after_ms + 1, first), min(until_ms, self._market.end_ms - 1)
        if begin > end:
            return None
        start, stop = self.row(begin), self.row(end) + 1
        reach = table.high[start:stop] > level if sign > 0 else table.low[start:stop] < level
        for row in np.flatnonzero(reach) + start:
            opened = first + int(row) * self._step
            inside = self._first_inside(
                self._knots(pair, int(row)), max(begin - opened, 0), min(end - opened, self._step - 1), level, sign
            )
            if inside is not None:
                return opened + inside
        return None

    def _first_inside(
        self, knots: tuple[int, int, int, int, int], begin: int, end: int, level: int, sign: int
    ) -> int | None:
        """First offset in [begin, end] beyond `level`; between two knots the price is monotone, so bisect there."""
        for k in range(4):
            low, high = max(begin, self._offsets[k]), min(end, self._offsets[k + 1] - 1)
            if low > high:
                continue
            if sign * (self._within(knots, low) - level) > 0:
                return low
            if sign * (self._within(knots, high) - level) <= 0:
                continue
            while low < high:
                middle = (low + high) // 2
                beyond = sign * (self._within(knots, middle) - level) > 0
                low, high = (low, middle) if beyond else (middle + 1, high)
            return low
        return None

    def _knots(self, pair: str, row: int) -> tuple[int, int, int, int, int]:
        table = self._market.candles[pair]
        opened, high, low = int(table.open[row]), int(table.high[row]), int(table.low[row])
        first, second = (high, low) if self._high_first[pair][row] else (low, high)
        return opened, opened, first, second, int(table.close[row])

    def _within(self, knots: tuple[int, int, int, int, int], inside: int) -> int:
        for k in range(3, -1, -1):
            begin = self._offsets[k]
            if inside >= begin:
                span = self._offsets[k + 1] - begin
                return knots[k] + (knots[k + 1] - knots[k]) * (inside - begin) // span
        return knots[0]
