"""What a market is to the sandbox: candles of several pairs on one complete time grid, all of them known in advance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from observability.errors import SettingsError
from trading.adapters.sandbox.rules import INTERVALS_MS, SymbolRules

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candles:
    """One pair's candles: prices in ticks, volume in base asset; all arrays of shape [rows]."""

    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Floats


@dataclass(frozen=True, slots=True)
class Funding:
    """One pair's funding payments: `time_ms` ascending, `rate` per interval; both of shape [payments]."""

    time_ms: Ints
    rate: Floats


@dataclass(frozen=True)
class Market:
    """Everything that has happened and will happen; `open_ms` (T0) is where trading, and the virtual clock, starts.

    A pair whose `funding` is known has a perpetual, which `rules` hold for too. Its candles are those of `perpetuals`;
    without any of its own it has the prices of spot.
    """

    name: str
    seed: int
    timeframe: str
    first_ms: int
    open_ms: int
    rows: int
    rules: Mapping[str, SymbolRules]
    candles: Mapping[str, Candles]
    funding: Mapping[str, Funding] = field(default_factory=dict)
    perpetuals: Mapping[str, Candles] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.timeframe not in INTERVALS_MS:
            raise SettingsError(f"unknown timeframe {self.timeframe!r}", todo=f"use one of {', '.join(INTERVALS_MS)}")
        if not self.first_ms <= self.open_ms <= self.end_ms:
            raise SettingsError("trading would open outside the market's data", where=self.name)
        strange = sorted(set(self.perpetuals) - set(self.funding)) + sorted(set(self.funding) - set(self.candles))
        if strange:
            raise SettingsError("a perpetual needs funding, and spot candles of its pair", where=", ".join(strange))
        for pair, table in (*self.candles.items(), *self.perpetuals.items()):
            for column in (table.open, table.high, table.low, table.close, table.volume):
                if len(column) != self.rows:
                    raise SettingsError("candles of different lengths in one market", where=pair)

    @property
    def step_ms(self) -> int:
        """Length of a candle."""
        return INTERVALS_MS[self.timeframe]

    @property
    def end_ms(self) -> int:
        """Close of the last candle: the clock stops here."""
        return self.first_ms + self.rows * self.step_ms

    @property
    def pairs(self) -> tuple[str, ...]:
        """Pairs in their configured order."""
        return tuple(self.candles)

    @cached_property
    def futures(self) -> Market:
        """The same market as its perpetuals see it: their pairs, their candles."""
        candles = {pair: self.perpetuals.get(pair, spot) for pair, spot in self.candles.items() if pair in self.funding}
        rules = {pair: replace(self.rules[pair], perpetual=True) for pair in candles}
        return replace(self, rules=rules, candles=candles, perpetuals={})

    def rebased(self, now_ms: int) -> Market:
        """The same market moved in time by whole candles so that `now_ms` lies in the first trading candle."""
        shift = (now_ms - self.open_ms) // self.step_ms * self.step_ms
        funding = {pair: Funding(table.time_ms + shift, table.rate) for pair, table in self.funding.items()}
        return replace(self, first_ms=self.first_ms + shift, open_ms=self.open_ms + shift, funding=funding)
