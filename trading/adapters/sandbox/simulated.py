"""A seeded market with the habits of a real one and, if wanted, one honest opportunity planted in it.

Returns are the sum of a latent drift and noise. The noise has regime-switching, clustered volatility (a Markov chain
times a log-AR(1)), fat tails, common jumps and a common factor. The drift of each pair is an AR(1) of known share
(`edge`) of the variance: past returns reveal it, so a momentum model can learn it, and `edge=0` plants nothing.

Perpetuals have the prices of spot, or with `basis` above 0 prices of their own: ln(perpetual / spot) is then an
Ornstein-Uhlenbeck process around zero, and funding follows it. The spot market of a seed is the same with any basis.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from observability.errors import DataError
from trading.adapters.sandbox.market import Candles, Floats, Funding, Ints, Market
from trading.adapters.sandbox.rules import INTERVALS_MS, SymbolRules, lot_decimals_for, price_decimals_for

DAY_MS = 86_400_000
FUNDING_MS = 28_800_000
SUBSTEPS = 6
INTEREST, DAMPER = 1e-4, 5e-4  # of Binance's funding formula, per payment
START_PRICES = {"BTC": 60_000.0, "ETH": 3_000.0, "SOL": 150.0, "XRP": 0.55, "DOGE": 0.12, "LINK": 14.0}


@dataclass(frozen=True)
class SimulatedMarket:
    """Parameters of a simulated market.

    Attributes:
        edge: share of the return variance that is predictable drift (0 plants nothing).
        drift_half_life: candles after which half of the drift is gone.
        volatility: yearly volatility of a pair in the calm regime.
        correlation: share of the noise variance that all pairs have in common.
        jumps_per_day: common jumps, each about eight candle deviations.
        basis: deviation of ln(perpetual / spot); 0 gives perpetuals the prices of spot.
        basis_half_life: candles after which half of the basis is gone.
        open_ms: T0; rounded down to the timeframe.
    """

    pairs: tuple[str, ...]
    timeframe: str = "15m"
    history_days: float = 120.0
    trading_days: float = 30.0
    edge: float = 0.05
    drift_half_life: float = 8.0
    volatility: float = 0.35
    correlation: float = 0.5
    jumps_per_day: float = 0.3
    basis: float = 0.0
    basis_half_life: float = 32.0
    open_ms: int = 1_725_148_800_000  # 2024-09-01 00:00 UTC


def simulate(spec: SimulatedMarket, seed: int) -> Market:
    """Draw the market of `seed`: the same arguments give the same market, to the tick.

    Raises:
        DataError: a timeframe that the venue does not offer.
    """
    if spec.timeframe not in INTERVALS_MS:
        raise DataError(f"unknown timeframe {spec.timeframe!r}", todo=f"use one of {', '.join(INTERVALS_MS)}")
    step = INTERVALS_MS[spec.timeframe]
    before, after = (int(days * DAY_MS // step) for days in (spec.history_days, spec.trading_days))
    rows, open_ms = before + after, spec.open_ms // step * step
    first = open_ms - before * step
    rng = np.random.default_rng(seed)
    sigma = _volatility(rng, rows, len(spec.pairs), spec.volatility * np.sqrt(step / (365 * DAY_MS)))
    drift = _drift(rng, sigma, spec.edge, spec.drift_half_life)
    fine = _noise(rng, sigma * np.sqrt(1 - spec.edge), spec, step) + np.repeat(drift / SUBSTEPS, SUBSTEPS, axis=0)
    rules, candles, funding, perpetuals = {}, {}, {}, {}
    for column, pair in enumerate(spec.pairs):
        prices = _start_price(pair) * np.exp(np.concatenate([[0.0], np.cumsum(fine[:, column])]))
        rules[pair] = _rules(pair, prices)
        candles[pair] = _candles(rng, prices, sigma[:, column], rules[pair], (first, step))
        funding[pair] = _funding(rng, drift[:, column], sigma[:, column], first, step)
        if spec.basis > 0:
            own = np.random.default_rng([seed, zlib.crc32(pair.encode()), zlib.crc32(b"basis")])
            basis = _basis(own, len(prices), spec)
            perpetuals[pair] = _candles(own, prices * np.exp(basis), sigma[:, column], rules[pair], (first, step))
            funding[pair] = _premium_funding(funding[pair].time_ms, np.expm1(basis), first, step)
    name = "simulated"
    return Market(name, seed, spec.timeframe, first, open_ms, rows, rules, candles, funding, perpetuals)


def _volatility(rng: np.random.Generator, rows: int, pairs: int, calm: float) -> Floats:
    """Per-candle deviation, shape [rows, pairs]: common regimes (1x, 2x, 3.5x) times each pair's own slow swings."""
    levels, stay = np.array([1.0, 2.0, 3.5]), 0.995
    switches = np.flatnonzero(rng.random(rows) > stay)
    states = rng.choice(3, size=len(switches) + 1, p=[0.65, 0.27, 0.08])
    regime = levels[states[np.searchsorted(switches, np.arange(rows), side="right")]]
    swings = _ar1(0.97, 0.08 * rng.standard_normal((rows, pairs)))
    scale = rng.uniform(0.8, 1.4, pairs)
    return np.asarray(calm * regime[:, None] * np.exp(swings) * scale, dtype=np.float64)


def _drift(rng: np.random.Generator, sigma: Floats, edge: float, half_life: float) -> Floats:
    """Latent AR(1) drift with `edge` of the variance, shape [rows, pairs]."""
    phi = 0.5 ** (1.0 / half_life)
    latent = _ar1(phi, np.sqrt(1 - phi * phi) * rng.standard_normal(sigma.shape))
    return np.asarray(np.sqrt(edge) * sigma * latent, dtype=np.float64)


def _noise(rng: np.random.Generator, sigma: Floats, spec: SimulatedMarket, step: int) -> Floats:
    """Sub-step log-returns, shape [rows * SUBSTEPS, pairs]: Student-t, a common factor, and common jumps."""
    rows, pairs = sigma.shape[0] * SUBSTEPS, sigma.shape[1]
    own, common = rng.standard_t(4, (rows, pairs)), rng.standard_t(4, (rows, 1))
    unit = np.sqrt(2.0)  # deviation of Student's t with 4 degrees of freedom
    mixed = (np.sqrt(1 - spec.correlation) * own + np.sqrt(spec.correlation) * common) / unit
    jumps = rng.random((rows, 1)) < spec.jumps_per_day * step / DAY_MS / SUBSTEPS
    mixed += jumps * rng.normal(0.0, 8.0, (rows, 1)) * rng.uniform(0.5, 1.5, (rows, pairs))
    return np.asarray(mixed * np.repeat(sigma, SUBSTEPS, axis=0) / np.sqrt(SUBSTEPS), dtype=np.float64)


def _ar1(phi: float, shocks: Floats) -> Floats:
    """x[t] = phi x[t-1] + shocks[t] along the first axis."""
    values, state = np.empty_like(shocks), np.zeros(shocks.shape[1])
    for row, shock in enumerate(shocks):
        state = phi * state + shock
        values[row] = state
    return values


def _start_price(pair: str) -> float:
    base = pair.split("/", maxsplit=1)[0]
    return START_PRICES.get(base, float(10.0 ** ((zlib.crc32(base.encode()) % 400) / 100.0 - 1.0)))


def _rules(pair: str, prices: Floats) -> SymbolRules:
    middle = float(np.median(prices))
    lots = lot_decimals_for(middle)
    return SymbolRules(pair, price_decimals_for(middle, lots), lots)


def _candles(
    rng: np.random.Generator, prices: Floats, sigma: Floats, rules: SymbolRules, grid: tuple[int, int]
) -> Candles:
    first, step = grid
    ticks = np.maximum(np.rint(prices * 10**rules.price_decimals), 1).astype(np.int64)
    inside = np.lib.stride_tricks.sliding_window_view(ticks, SUBSTEPS + 1)[::SUBSTEPS]
    opened, closed = inside[:, 0].copy(), inside[:, -1].copy()
    moved = np.abs(np.log(closed / opened)) / sigma
    hour = (first + step * np.arange(len(opened))) % DAY_MS / DAY_MS
    rhythm = 1.0 + 0.4 * np.sin(2 * np.pi * (hour - 0.35))
    turnover = 2e6 * rhythm * (0.4 + moved) * np.exp(0.3 * rng.standard_normal(len(opened)))
    volume = np.round(turnover / (opened / 10**rules.price_decimals), rules.lot_decimals)
    return Candles(opened, inside.max(axis=1), inside.min(axis=1), closed, volume)


def _funding(rng: np.random.Generator, drift: Floats, sigma: Floats, first: int, step: int) -> Funding:
    """Rates that lean with the drift before them, so crowded sides pay."""
    start = -(-first // FUNDING_MS) * FUNDING_MS
    times = np.arange(start, first + len(drift) * step, FUNDING_MS, dtype=np.int64)
    rows = np.minimum((times - first) // step, len(drift) - 1)
    wander = _ar1(0.9, 0.3 * rng.standard_normal((len(times), 1)))[:, 0]
    rate = 1e-4 * (1.0 + 0.5 * wander + drift[rows] / sigma[rows])
    return Funding(times, np.round(rate, 8))


def _basis(rng: np.random.Generator, points: int, spec: SimulatedMarket) -> Floats:
    """ln(perpetual / spot) at every sub-step, shape [points]: stationary from the first on."""
    phi = 0.5 ** (1.0 / (spec.basis_half_life * SUBSTEPS))
    shocks = np.sqrt(1 - phi * phi) * rng.standard_normal((points, 1))
    shocks[0] /= np.sqrt(1 - phi * phi)
    return np.asarray(spec.basis * _ar1(phi, shocks)[:, 0], dtype=np.float64)


def _premium_funding(times: Ints, premium: Floats, first: int, step: int) -> Funding:
    """Rates that pull the perpetual back to spot: P + clamp(I - P, -0.05 %, 0.05 %).

    P is the mean premium over the eight hours before a payment, later ones weighing more (1, 2, ... n), I the interest
    of 0.01 %. From "Introduction to Binance Futures Funding Rates" in Binance's support centre, without its caps.
    """
    count = max(1, FUNDING_MS * SUBSTEPS // step)
    weights = np.arange(1, count + 1, dtype=np.float64)
    last = np.minimum((times - first) * SUBSTEPS // step, len(premium) - 1)
    padded = np.concatenate([np.full(count - 1, premium[0]), premium])
    mean = np.array([padded[row : row + count] @ weights for row in last]) / weights.sum()
    return Funding(times, np.round(mean + np.clip(INTEREST - mean, -DAMPER, DAMPER), 8))


def simulated_pairs(names: Sequence[str] | None = None) -> tuple[str, ...]:
    """The given pairs, or the six that the sandbox knows prices for."""
    return tuple(names) if names else tuple(f"{base}/USDT" for base in START_PRICES)
