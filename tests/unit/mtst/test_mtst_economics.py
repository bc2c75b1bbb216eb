from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtst.economics import (
    YEAR_MS,
    CostPolicy,
    Holdings,
    PeriodReturns,
    buy_and_hold,
    cash,
    holding_cost,
    holdings,
    summarise_returns,
    trade,
)
from mtst.panel import Array, Panel, make_panel
from observability.errors import DataError
from pipelines.frames import Enrichment, training_frame
from pipelines.spec import default_spec
from tests.unit.mtst.conftest import PAIRS, simulate

HOUR = 3_600_000
COSTS = CostPolicy(fee=0.001, half_spread=0.0005, cash_rate=0.05)


def held(actual: Sequence[float], carry: Sequence[float] = (), step_ms: int = HOUR) -> Holdings:
    """One pair, one decision an hour, each with the log-return until the period's end and none after it."""
    n = len(actual)
    first = np.stack([np.expm1(np.asarray(actual, dtype=float)), np.zeros(n)], 1)
    cost = np.stack([np.asarray(carry or np.zeros(n)), np.zeros(n)], 1)
    return Holdings(np.arange(n) * HOUR, np.zeros(n, dtype=int), first, cost, step_ms)


def run(expected: list[float], actual: list[float], **changes: object) -> PeriodReturns:
    costs = CostPolicy(**{"fee": 0.001, "half_spread": 0.0005, **changes})
    return trade(np.array(expected), held(actual), costs)


def test_a_trade_by_hand() -> None:
    #        below cost | enter | stays: sign holds | leaves | down: long only
    parts = run([0.002, 0.01, 0.0001, -0.0001, -0.01], [0.05, 0.02, -0.01, 0.03, -0.02])
    side = 0.0015
    assert parts.gross == pytest.approx([0, np.expm1(0.02), np.expm1(-0.01), 0, 0])
    assert parts.turnover == pytest.approx([0, 1, 0, 1, 0])
    assert parts.net == pytest.approx([0, np.expm1(0.02) - side, np.expm1(-0.01), -side, 0])
    assert parts.entries == 1


def test_shorts_only_where_allowed_and_a_reversal_pays_twice() -> None:
    parts = run([0.01, -0.01], [0.01, -0.02], allow_short=True)
    assert parts.turnover == pytest.approx([1, 2 + 1])  # the last period also pays for closing
    assert parts.gross == pytest.approx([np.expm1(0.01), -np.expm1(-0.02)])
    assert parts.entries == 2


def test_periods_do_not_overlap_and_pairs_and_tranches_share_the_capital() -> None:
    times = np.tile(np.arange(8) * HOUR, 2)
    pair = np.repeat([0, 1], 8)
    expected = np.where(pair == 0, 0.05, -0.05)
    share = np.array([[4, 0], [3, 1], [2, 2], [1, 3]] * 4) / 4  # of a holding's four candles, in each period
    parts = trade(expected, Holdings(times, pair, 0.01 * share, 0 * share, 4 * HOUR), COSTS)
    assert parts.times_ms.tolist() == [0, 4 * HOUR, 8 * HOUR]
    whole = 0.01 / 2  # one pair of two
    assert parts.gross == pytest.approx([whole * (4 + 3 + 2 + 1) / 16, whole, whole * (1 + 2 + 3) / 16])
    assert parts.turnover == pytest.approx([1 / 2, 0, 1 / 2])  # every tranche enters once and leaves after its last
    assert parts.entries == 1  # a quarter of a stake, four times


def test_summary_by_hand() -> None:
    parts = PeriodReturns(np.arange(4), np.array([0.1, -0.2, 0.05, 0.1]), np.zeros(4), np.array([1.0, 0, 0, 1]), 3)
    value = summarise_returns("x", [parts], HOUR)
    assert value.net_return == pytest.approx(1.1 * 0.8 * 1.05 * 1.1 - 1)
    assert value.max_drawdown == pytest.approx(0.2)
    assert value.sharpe == pytest.approx(0.0125 / np.std([0.1, -0.2, 0.05, 0.1], ddof=1) * np.sqrt(8766))
    assert (value.turnover, value.entries, value.periods) == (0.5, 3, 4)


def test_cash_and_holding() -> None:
    assert cash(8766, COSTS, HOUR).net_return == pytest.approx(0.05)
    assert pytest.approx(365.25 * 24 * HOUR) == YEAR_MS
    kept = buy_and_hold(held([0.01] * 3), COSTS)
    assert kept.turnover == pytest.approx([1, 0, 1])
    assert kept.net.sum() == pytest.approx(3 * np.expm1(0.01) - 2 * COSTS.side)
    with pytest.raises(DataError, match="no forecasts"):
        buy_and_hold(held([]), COSTS)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)), min_size=1, max_size=30), st.booleans())
def test_costs_only_ever_take(rows: list[tuple[float, float]], short: bool) -> None:
    parts = run([e for e, _ in rows], [a for _, a in rows], allow_short=short)
    assert (parts.net <= parts.gross + 1e-15).all()
    assert (parts.gross - parts.net).sum() == pytest.approx(0.0015 * parts.turnover.sum())
    assert parts.turnover.sum() >= 2 * (parts.entries > 0)
    value = summarise_returns("x", [parts], HOUR)
    assert 0 <= value.max_drawdown <= 1


def test_a_long_position_pays_funding_and_a_short_one_receives_it() -> None:
    carry, shorts = (0.001, 0.002), CostPolicy(allow_short=True)
    free, paid = (trade(np.array([0.01, -0.01]), held([0, 0], cost), shorts) for cost in ((), carry))
    assert paid.net - free.net == pytest.approx([-0.001, 0.002])
    kept = buy_and_hold(held([0, 0], carry), CostPolicy())
    assert kept.net.sum() == pytest.approx(-0.003 - 2 * CostPolicy().side)


@st.composite
def markets(draw: st.DrawFn) -> tuple[Array, Holdings]:
    """Two pairs' forecasts at every candle, and holdings of three candles over which each pays funding."""
    n, h, pairs = draw(st.integers(3, 20)), 3, 2
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    price = np.exp(np.cumsum(0.02 * rng.standard_normal((n + h, pairs)), 0))
    funding = 0.0003 * rng.standard_normal((n + h, pairs)).cumsum(0)
    at, pair = (each.ravel() for each in np.meshgrid(np.arange(n), np.arange(pairs), indexing="ij"))
    end = at + h - at % h
    gain = np.stack([price[end, pair] / price[at, pair], price[at + h, pair] / price[end, pair]], 1) - 1
    carry = np.stack([funding[end, pair] - funding[at, pair], funding[at + h, pair] - funding[end, pair]], 1)
    return 0.01 * rng.standard_normal(n * pairs), Holdings(at * HOUR, pair, gain, carry, h * HOUR)


@settings(deadline=None)
@given(markets(), st.booleans())
def test_tranches_are_the_rule_begun_at_each_candle_and_each_pays_all_its_own_costs(
    market: tuple[Array, Holdings], short: bool
) -> None:
    expected, together = market
    costs = CostPolicy(allow_short=short)
    portfolio = trade(expected, together, costs)
    alone = []
    for start in range(3):
        mine = together.times_ms // HOUR % 3 == start
        # By itself a tranche's holdings are its periods: all of what it earns and pays falls into one.
        parts = (np.stack([each[mine].sum(1), 0 * each[mine, 0]], 1) for each in (together.gain, together.carry))
        own = Holdings(together.times_ms[mine], together.pair[mine], *parts, together.step_ms)
        alone.append(trade(expected[mine], own, costs))
    for name in ("gross", "net", "turnover", "entries"):
        each = [float(np.sum(getattr(tranche, name))) for tranche in alone]
        assert float(np.sum(getattr(portfolio, name))) == pytest.approx(np.mean(each)), name
    assert (np.diff(portfolio.times_ms) == 3 * HOUR).all()


def test_what_one_tranche_sells_and_another_buys_is_not_netted() -> None:
    expected = np.array([0.05, -0.05, -0.05, 0.05])  # one tranche turns to short while the other turns to long
    parts = trade(expected, held([0.0] * 4, step_ms=2 * HOUR), CostPolicy(allow_short=True))
    assert parts.turnover == pytest.approx([1, 2, 1])  # (1 + 1) / 2, (2 + 2) / 2, and both leave
    assert parts.net == pytest.approx(-CostPolicy().side * parts.turnover)


def test_what_is_earned_hangs_on_no_first_candle() -> None:
    skilled = np.arange(80) % 4 == 2  # the forecast sees something at every fourth candle only
    expected, actual = np.where(skilled, 0.05, 0.0), np.where(skilled, 0.03, 0.0)
    earned = [
        trade(expected[first:], held(actual[first:], step_ms=4 * HOUR), CostPolicy(fee=0, half_spread=0)).gross.sum()
        for first in range(3)
    ]
    assert earned == pytest.approx([20 * np.expm1(0.03) / 4] * 3)


def test_a_holding_is_told_in_two_parts_that_make_the_whole(noise: Panel) -> None:
    rate = np.arange(len(noise), dtype=np.float32)[:, None]
    panel = replace(noise, columns=(*noise.columns, "funding"), features=np.concatenate([noise.features, rate], 1))
    h, rows = 4, np.arange(100, 120)
    made = holdings(panel, rows, h, CostPolicy(perpetual=True))
    assert (1 + made.gain).prod(1) == pytest.approx(panel.fill[rows + h] / panel.fill[rows])
    assert made.carry.sum(1) == pytest.approx(holding_cost(panel, rows, h))
    assert made.gain[:4, 0] == pytest.approx(panel.fill[104] / panel.fill[rows[:4]] - 1)  # to the first period's end
    assert (made.gain[::h, 1] == 0).all()  # what is bought at a period's start is sold at its end
    assert (made.carry[::h, 1] == 0).all()
    assert not holdings(panel, rows, h, CostPolicy()).carry.any()
    assert made.step_ms == h * panel.timeframe_ms
    with pytest.raises(DataError, match="no forecasts"):
        holdings(panel, rows[:0], h, CostPolicy())


def test_what_is_paid_is_what_is_settled_after_the_decision_up_to_the_exit(noise: Panel) -> None:
    with pytest.raises(DataError, match="no funding rates"):
        holding_cost(noise, np.array([100]), 4)
    rate = np.arange(len(noise), dtype=np.float32)[:, None]  # basis points, another one at every row
    panel = replace(noise, columns=(*noise.columns, "funding"), features=np.concatenate([noise.features, rate], 1))
    settled = np.flatnonzero(panel.timestamps % (8 * HOUR) == 0)
    at = settled[20]
    rows = np.array([at - 1, at, at - 4, at - 5])
    assert holding_cost(panel, rows, 4) == pytest.approx(np.array([at, 0, at, 0]) / 1e4)


def test_orders_are_filled_at_the_next_open_and_not_at_the_close_that_was_seen() -> None:
    candles = simulate(0.0, 0, 300)[PAIRS[0]].with_columns(pl.col("open") * 1.01)
    candles = candles.with_columns(pl.max_horizontal("open", "high").alias("high"))
    spec = default_spec(PAIRS[:1], "1h", lookback=32, horizons=(1, 4))
    frame = training_frame(candles, spec, Enrichment())
    panel = make_panel({PAIRS[0]: frame}, spec.columns, spec.horizons, "1h", 32)
    assert panel.fill[:-1] == pytest.approx(candles["open"].to_numpy()[1:])
    assert panel.fill[-1] == candles["close"][-1]  # the next open is not known yet
    gap = pl.concat([candles[:100], candles[110:]])
    assert training_frame(gap, spec, Enrichment())["next_open"].is_null().arg_true().to_list() == [99, 289]
