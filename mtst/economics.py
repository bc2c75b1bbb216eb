"""What a forecast is worth after costs: a plain rule traded over non-overlapping holding periods. Pure numpy.

The rule: at every h-th candle, enter a pair in the direction of the expected return when it exceeds the cost of a
round trip; stay while the sign holds; leave otherwise. Every pair gets an equal share of the capital. Orders are filled
at the open of the candle after the one that the forecast has seen, as no order can be filled at a close already past.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtst.panel import Array, Panel
from observability.errors import DataError

YEAR_MS = 365.25 * 86_400_000
FUNDING_MS = 8 * 3_600_000


@dataclass(frozen=True, slots=True)
class CostPolicy:
    """Costs as fractions of the traded value, a side; `cash_rate` is what idle money earns a year.

    `perpetual` positions also pay (or, short, receive) the funding rate every eight hours.
    """

    fee: float = 0.001
    half_spread: float = 0.0002
    allow_short: bool = False
    cash_rate: float = 0.04
    perpetual: bool = False

    @property
    def side(self) -> float:
        """Cost of one order."""
        return self.fee + self.half_spread


@dataclass(frozen=True)
class PeriodReturns:
    """Portfolio by holding period, each [T]: start time, net and gross return, traded share; and entries in all."""

    times_ms: Array
    net: Array
    gross: Array
    turnover: Array
    entries: int


@dataclass(frozen=True, slots=True)
class EconomicValue:
    """A year-free summary: returns over the whole time, Sharpe a year, worst fall from a peak, turnover a period."""

    name: str
    net_return: float
    gross_return: float
    sharpe: float
    max_drawdown: float
    turnover: float
    entries: int
    periods: int


def trade(
    expected: Array,
    actual: Array,
    times_ms: Array,
    pair: Array,
    *,
    costs: CostPolicy,
    step_ms: int,
    carry: Array | None = None,
) -> PeriodReturns:
    """Trade the rule on forecasts of one horizon.

    Args:
        expected, actual: log-returns over the horizon, the actual one from fill to fill, [n].
        times_ms: decision times, [n]; pair: pair number, [n].
        carry: what holding long over the horizon costs, as a fraction, [n]; see `holding_cost`.
        step_ms: the horizon's length; only times on its grid (from the first on) are used, so periods do not overlap.

    Returns:
        one row a period; the last one pays for closing what is open. Rebalancing between pairs is taken as free.

    Raises:
        DataError: no decision time at all.
    """
    times, e, a, c = _on_grid((expected, actual, carry), times_ms, pair, step_ms)
    held, positions, entries = np.zeros(e.shape[1]), np.zeros_like(e), 0
    for t, edge in enumerate(e):
        sign = np.sign(edge)
        want = np.where(np.abs(edge) > 2 * costs.side, sign, np.where(sign == held, held, 0.0))
        want = want if costs.allow_short else np.maximum(want, 0.0)
        entries += int(((want != held) & (want != 0)).sum())
        positions[t] = held = want
    return _account(times, positions, a, c, (costs, entries))


def buy_and_hold(
    actual: Array, times_ms: Array, pair: Array, *, costs: CostPolicy, step_ms: int, carry: Array | None = None
) -> PeriodReturns:
    """Hold every pair all the time, in the same periods as `trade`; pays once at each end."""
    times, _, a, c = _on_grid((actual, actual, carry), times_ms, pair, step_ms)
    return _account(times, np.ones_like(a), a, c, (costs, a.shape[1]))


def holding_cost(panel: Panel, rows: Array, h: int) -> Array:
    """Funding that a long perpetual position pays over the h candles after each row, as a fraction, [n].

    Raises:
        DataError: the panel has no funding rates.
    """
    if "funding" not in panel.columns:
        raise DataError("no funding rates to charge perpetual positions", where="economics", todo="backfill funding")
    rate = np.nan_to_num(panel.features[:, panel.columns.index("funding")].astype(np.float64)) / 1e4  # basis points
    paid = np.cumsum(np.where(panel.timestamps % FUNDING_MS == 0, rate, 0.0))
    cost: Array = paid[rows + h] - paid[rows]
    return cost


def idle_return(costs: CostPolicy, step_ms: int) -> float:
    """What cash earns in one period."""
    return float((1.0 + costs.cash_rate) ** (step_ms / YEAR_MS) - 1.0)


def summarise_returns(name: str, parts: Sequence[PeriodReturns], step_ms: int) -> EconomicValue:
    """Join parts in the order given and sum them up. Sharpe is 0 where returns do not vary."""
    net = np.concatenate([p.net for p in parts])
    gross = np.concatenate([p.gross for p in parts])
    equity = np.concatenate([[1.0], np.cumprod(1.0 + net)])
    spread = float(net.std(ddof=1)) if len(net) > 1 else 0.0
    return EconomicValue(
        name=name,
        net_return=float(equity[-1] - 1.0),
        gross_return=float(np.prod(1.0 + gross) - 1.0),
        sharpe=float(net.mean() / spread * np.sqrt(YEAR_MS / step_ms)) if spread > 0 else 0.0,
        max_drawdown=float((1.0 - equity / np.maximum.accumulate(equity)).max()),
        turnover=float(np.concatenate([p.turnover for p in parts]).mean()),
        entries=sum(p.entries for p in parts),
        periods=len(net),
    )


def cash(periods: int, costs: CostPolicy, step_ms: int) -> EconomicValue:
    """What the same time in cash earns."""
    earned = float((1.0 + costs.cash_rate) ** (periods * step_ms / YEAR_MS) - 1.0)
    return EconomicValue("cash", earned, earned, 0.0, 0.0, 0.0, 0, periods)


def _on_grid(
    columns: tuple[Array, Array, Array | None], times_ms: Array, pair: Array, step_ms: int
) -> tuple[Array, Array, Array, Array]:
    """Decision times [T] and [T, pairs] tables; a pair without a forecast at a time expects, earns and pays nothing."""
    if not len(times_ms):
        raise DataError("there are no forecasts to trade", where="economics", todo="score at least one test window")
    chosen = (times_ms - times_ms.min()) % step_ms == 0
    times, row = np.unique(times_ms[chosen], return_inverse=True)
    tables = np.zeros((3, len(times), int(pair.max()) + 1))
    for table, column in zip(tables, columns, strict=True):
        if column is not None:
            table[row, pair[chosen]] = column[chosen]
    return times, tables[0], tables[1], tables[2]


def _account(
    times: Array, positions: Array, actual: Array, carry: Array, terms: tuple[CostPolicy, int]
) -> PeriodReturns:
    costs, entries = terms
    gross = (positions * np.expm1(actual)).mean(1)
    moved = np.abs(np.diff(positions, axis=0, prepend=0.0))
    moved[-1] += np.abs(positions[-1])  # close at the end
    turnover = moved.mean(1)
    paid = costs.side * turnover + (positions * carry).mean(1)
    return PeriodReturns(times, gross - paid, gross, turnover, entries)
