"""What a forecast is worth after costs: a plain rule, begun at every candle of a holding period. Pure numpy.

The rule: at every h-th candle, enter a pair in the direction of the expected return when it exceeds the cost of a
round trip; stay while the sign holds; leave otherwise. Every pair gets an equal share of the capital. Orders are filled
at the open of the candle after the one that the forecast has seen, as no order can be filled at a close already past.

Begun at one candle of the h possible ones, the result would hang on the accident which one that was. So the capital is
cut into h tranches, each of which begins at another candle and follows the rule by itself: the overlapping portfolios
of Jegadeesh and Titman (1993). No two of them ever decide at the same candle, and nothing of theirs is netted: each
pays fees, spread and funding of its own, also where one buys what another has just sold.
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
class Holdings:
    """What a long position of each decision brings, all that the rule is settled by.

    A period is as long as a holding, the first begins with the first decision. What is bought inside a period is held
    into the next, so it is told in two parts: to the period's end, and from there to the exit (0 for a decision at a
    period's start). Periods do not overlap, whatever the tranches do, and can be tested like any series of returns.

    Attributes:
        times_ms: decision times, [n]; pair: pair number, [n].
        gain: returns from fill to fill in the two parts, each on the value at its beginning, [n, 2].
        carry: what holding long costs in them, as a fraction, [n, 2]; see `holding_cost`.
        step_ms: length of a holding, and of a period.
    """

    times_ms: Array
    pair: Array
    gain: Array
    carry: Array
    step_ms: int


@dataclass(frozen=True)
class PeriodReturns:
    """Portfolio by period, each [T]: start time, net and gross return, traded share; and entries of a whole stake."""

    times_ms: Array
    net: Array
    gross: Array
    turnover: Array
    entries: float


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


def holdings(panel: Panel, rows: Array, h: int, costs: CostPolicy) -> Holdings:
    """Holdings of h candles that are decided on at the panel's rows [n], whose labels over h candles are known.

    Raises:
        DataError: no decision time at all, or perpetuals without funding rates.
    """
    times, step = panel.timestamps[rows], h * panel.timeframe_ms
    if not len(times):
        raise _nothing()
    left = h - (times - times.min()) % step // panel.timeframe_ms  # candles to the period's end, 1 to h
    bought, passed, sold = (panel.fill[at] for at in (rows, rows + left, rows + h))
    gain = np.stack([passed / bought, sold / passed], 1) - 1.0
    carry = np.zeros_like(gain)
    if costs.perpetual:
        carry = np.stack([holding_cost(panel, rows, left), holding_cost(panel, rows + left, h - left)], 1)
    return Holdings(times, panel.pair_index[rows], gain, carry, step)


def trade(expected: Array, held: Holdings, costs: CostPolicy) -> PeriodReturns:
    """Trade the rule on forecasts of one horizon, in as many tranches as there are decision times in a period.

    Args:
        expected: log-returns over the horizon, [n].

    Returns:
        one row a period. The last one pays for closing what is open; with several tranches it is the one in which the
        last of them leave. Rebalancing between pairs and tranches is taken as free, and idle money earns nothing.

    Raises:
        DataError: no decision time at all.
    """
    times, tranches, (edges, *parts) = _by_period(held, expected)
    open_now, positions, entries = np.zeros(edges.shape[1]), np.zeros_like(edges), 0
    for t, edge in enumerate(edges):
        sign = np.sign(edge)
        want = np.where(np.abs(edge) > 2 * costs.side, sign, np.where(sign == open_now, open_now, 0.0))
        want = want if costs.allow_short else np.maximum(want, 0.0)
        entries += int(((want != open_now) & (want != 0)).sum())
        positions[t] = open_now = want
    return _account(times, positions, parts, costs, entries / tranches)


def buy_and_hold(held: Holdings, costs: CostPolicy) -> PeriodReturns:
    """Hold every pair all the time, in the same periods and tranches as `trade`; pays once at each end."""
    times, tranches, (_, *parts) = _by_period(held, np.zeros(len(held.times_ms)))
    positions = np.ones_like(parts[0])
    if tranches > 1:
        positions[-1] = 0.0
    return _account(times, positions, parts, costs, positions.shape[1] / tranches)


def holding_cost(panel: Panel, rows: Array, h: int | Array) -> Array:
    """Funding that a long perpetual position pays over the h (or h [n]) candles after each row, as a fraction, [n].

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
        entries=round(sum(p.entries for p in parts)),
        periods=len(net),
    )


def cash(periods: int, costs: CostPolicy, step_ms: int) -> EconomicValue:
    """What the same time in cash earns."""
    earned = float((1.0 + costs.cash_rate) ** (periods * step_ms / YEAR_MS) - 1.0)
    return EconomicValue("cash", earned, earned, 0.0, 0.0, 0.0, 0, periods)


def _by_period(held: Holdings, expected: Array) -> tuple[Array, int, Array]:
    """Period starts [T], how many tranches, and tables [5, T, tranches x pairs] of what is expected and held.

    A pair without a forecast at a time expects, earns and pays nothing. Several tranches have a last period in which
    they only leave.
    """
    if not len(held.times_ms):
        raise _nothing()
    first, pairs = held.times_ms.min(), int(held.pair.max()) + 1
    period, offset = np.divmod(held.times_ms - first, held.step_ms)
    periods, row = np.unique(period, return_inverse=True)
    tranches, tranche = np.unique(offset, return_inverse=True)
    if len(tranches) > 1:
        periods = np.append(periods, periods[-1] + 1)
    tables = np.zeros((5, len(periods), len(tranches) * pairs))
    tables[:, row, tranche * pairs + held.pair] = [expected, *held.gain.T, *held.carry.T]
    return first + periods * held.step_ms, len(tranches), tables


def _nothing() -> DataError:
    return DataError("there are no forecasts to trade", where="economics", todo="score at least one test window")


def _account(
    times: Array, positions: Array, parts: Sequence[Array], costs: CostPolicy, entries: float
) -> PeriodReturns:
    """`positions` and each of `parts` (gain now and later, carry now and later) [T, tranches x pairs]."""

    def settled(now: Array, later: Array) -> Array:
        total: Array = (positions * now).mean(1)
        total[1:] += (positions * later).mean(1)[:-1]
        return total

    gross, carry = settled(*parts[:2]), settled(*parts[2:])
    moved = np.abs(np.diff(positions, axis=0, prepend=0.0))
    moved[-1] += np.abs(positions[-1])  # close at the end
    turnover = moved.mean(1)
    return PeriodReturns(times, gross - costs.side * turnover - carry, gross, turnover, entries)
