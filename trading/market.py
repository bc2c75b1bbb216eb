"""What the market's own past says of risk: how much assets move, how far together, and whether today is wild.

Estimated from stored candles (`estimate`) and, between two estimates, from the marks that bots report. Both live in the
book, so a replayed journal knows exactly what a live decision knew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trading.orders import Reader, to_plain

DAY_MS = 86_400_000
LEAST_ROWS = 100  # common returns; with fewer a correlation says next to nothing
Z95 = 1.645  # one-sided 95 % of the normal distribution
# expected shortfall at 97.5 % of a Student t with 4 degrees of freedom, scaled to unit variance (McNeil, Frey and
# Embrechts 2015, section 2.3.4); crypto returns have tails at least that heavy
SHORTFALL_SIGMAS = 2.8239
SAMPLE_MS = 240_000  # marks closer together than this are one observation
FAST_MS, SLOW_MS = 2 * 3_600_000, 3 * DAY_MS  # memories of the two volatilities
FAST_SAMPLES, SLOW_SAMPLES = 8, 96  # observations before they count


@dataclass(frozen=True, slots=True)
class MarketRisk:
    """Estimate of a moment.

    Attributes:
        as_of_ms: newest candle behind it.
        sigma: asset -> standard deviation of its daily log-return.
        correlation: "A|B" (sorted) -> (lower, upper) bound of the correlation with 95 % confidence each.
        rows: common returns behind the correlations.
    """

    as_of_ms: int = 0
    sigma: Mapping[str, float] = field(default_factory=dict)
    correlation: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rows: int = 0

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return dict(to_plain(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MarketRisk:
        """Read `to_dict` back; raises OrderError."""
        read = Reader(data, "market risk")
        sigma = {str(asset): float(value) for asset, value in read.table("sigma").items()}
        pairs = {str(key): (float(low), float(high)) for key, (low, high) in read.table("correlation").items()}
        return cls(read.whole("as_of_ms"), sigma, pairs, read.whole("rows"))


NO_MARKET = MarketRisk()


@dataclass(frozen=True, slots=True)
class MarkStat:
    """The run of one pair's reported marks: variances are per day, `samples` counts observations."""

    at_ms: int
    mark: float
    fast: float = 0.0
    slow: float = 0.0
    samples: int = 0

    def seen(self, at_ms: int, mark: float) -> MarkStat:
        """With one more mark; one too soon after the last, or older, changes nothing."""
        passed = at_ms - self.at_ms
        if passed < SAMPLE_MS:
            return self
        if passed > DAY_MS:  # a long silence: a new beginning, with what was learnt before
            return replace(self, at_ms=at_ms, mark=mark)
        now = math.log(mark / self.mark) ** 2 * DAY_MS / passed
        if not self.samples:
            return MarkStat(at_ms, mark, now, now, 1)
        fast = self.fast + (now - self.fast) * -math.expm1(-passed / FAST_MS)
        slow = self.slow + (now - self.slow) * -math.expm1(-passed / SLOW_MS)
        return MarkStat(at_ms, mark, fast, slow, self.samples + 1)

    def ratio(self, usual: float | None) -> float:
        """Volatility of the last hours over the usual one; 0 while too little is known.

        Args:
            usual: the daily standard deviation by stored candles; None takes these marks' own last days.
        """
        if self.samples < FAST_SAMPLES:
            return 0.0
        if usual is None:
            return math.sqrt(self.fast / self.slow) if self.samples >= SLOW_SAMPLES and self.slow > 0 else 0.0
        return math.sqrt(self.fast) / usual


def seen(stats: Mapping[str, MarkStat], marks: Mapping[str, float], at_ms: int) -> Mapping[str, MarkStat]:
    """`stats` with a report's marks."""
    fresh = {}
    for pair, mark in marks.items():
        before = stats.get(pair)
        after = MarkStat(at_ms, mark) if before is None else before.seen(at_ms, mark)
        if after is not before:
            fresh[pair] = after
    return {**stats, **fresh} if fresh else stats


def estimate(closes: Mapping[str, tuple[Iterable[int], Iterable[float]]]) -> MarketRisk:
    """Daily volatilities, and bounds of the correlations by Fisher's z, from closes.

    Args:
        closes: asset -> (times in ms, closes) on one regular grid; gaps are allowed, only common steps are compared.

    Returns:
        The estimate; an asset or a pair of assets with fewer than `LEAST_ROWS` returns is left out, and whoever asks
        for it gets the cautious fallback.
    """
    returns: dict[str, dict[int, float]] = {}
    sigma: dict[str, float] = {}
    newest = 0
    for asset, (times, values) in closes.items():
        at, log = np.asarray(list(times), dtype=np.int64), np.log(np.asarray(list(values), dtype=float))
        if len(at) <= LEAST_ROWS:
            continue
        step = int(np.median(np.diff(at)))
        whole = np.diff(at) == step  # a gap is no return of one step
        moves = np.diff(log)[whole]
        if len(moves) < LEAST_ROWS or not np.isfinite(moves).all() or not moves.any():
            continue
        newest = max(newest, int(at[-1]))
        sigma[asset] = float(moves.std() * math.sqrt(DAY_MS / step))
        returns[asset] = dict(zip(at[1:][whole].tolist(), moves.tolist(), strict=True))
    correlation, rows = _correlations(returns)
    return MarketRisk(newest, sigma, correlation, rows)


def pair_key(one: str, other: str) -> str:
    """Key of two assets in `MarketRisk.correlation`."""
    return f"{one}|{other}" if one < other else f"{other}|{one}"


def spread_of(weights: Mapping[str, float], market: MarketRisk, fallback: float) -> float:
    """sqrt(w' C w) of signed weights by asset, in the weights' unit.

    Cautious on both sides: positions on one side of the market fall together as much as the upper bound says, and
    positions on opposite sides shelter each other only as much as the lower one does. Unknown pairs take `fallback`,
    or no shelter at all.
    """
    items, known = list(weights.items()), market.correlation
    total = 0.0
    for number, (one, left) in enumerate(items):
        total += left * left
        for other, right in items[:number]:
            product = left * right
            bounds = known.get(f"{one}|{other}" if one < other else f"{other}|{one}")
            if product > 0:
                total += 2.0 * product * (fallback if bounds is None else bounds[1])
            elif bounds is not None:
                total += 2.0 * product * max(0.0, bounds[0])
    return math.sqrt(max(0.0, total))


def _correlations(returns: Mapping[str, Mapping[int, float]]) -> tuple[dict[str, tuple[float, float]], int]:
    found: dict[str, tuple[float, float]] = {}
    most = 0
    assets = sorted(returns)
    for number, one in enumerate(assets):
        for other in assets[number + 1 :]:
            common = sorted(returns[one].keys() & returns[other].keys())
            if len(common) < LEAST_ROWS:
                continue
            left, right = ([returns[name][at] for at in common] for name in (one, other))
            rho = float(np.corrcoef(left, right)[0, 1])
            if not math.isfinite(rho):
                continue
            z, width = math.atanh(max(-0.9999, min(0.9999, rho))), Z95 / math.sqrt(len(common) - 3)
            found[pair_key(one, other)] = (math.tanh(z - width), math.tanh(z + width))
            most = max(most, len(common))
    return found, most
