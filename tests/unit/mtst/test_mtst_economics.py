from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtst.economics import (
    YEAR_MS,
    CostPolicy,
    PeriodReturns,
    buy_and_hold,
    cash,
    holding_cost,
    summarise_returns,
    trade,
)
from mtst.panel import Panel, make_panel
from observability.errors import DataError
from pipelines.frames import Enrichment, training_frame
from pipelines.spec import default_spec
from tests.unit.mtst.conftest import PAIRS, simulate

HOUR = 3_600_000
COSTS = CostPolicy(fee=0.001, half_spread=0.0005, cash_rate=0.05)


def run(expected: list[float], actual: list[float], **changes: object) -> PeriodReturns:
    n = len(expected)
    costs = CostPolicy(**{"fee": 0.001, "half_spread": 0.0005, **changes})
    return trade(
        np.array(expected), np.array(actual), np.arange(n) * HOUR, np.zeros(n, dtype=int), costs=costs, step_ms=HOUR
    )


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


def test_holding_periods_do_not_overlap_and_pairs_share_the_capital() -> None:
    times = np.tile(np.arange(8) * HOUR, 2)
    pair = np.repeat([0, 1], 8)
    expected = np.where(pair == 0, 0.05, -0.05)
    parts = trade(expected, np.full(16, 0.01), times, pair, costs=COSTS, step_ms=4 * HOUR)
    assert parts.times_ms.tolist() == [0, 4 * HOUR]
    assert parts.gross == pytest.approx([np.expm1(0.01) / 2] * 2)


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
    held = buy_and_hold(np.full(3, 0.01), np.arange(3) * HOUR, np.zeros(3, dtype=int), costs=COSTS, step_ms=HOUR)
    assert held.turnover == pytest.approx([1, 0, 1])
    assert held.net.sum() == pytest.approx(3 * np.expm1(0.01) - 2 * COSTS.side)
    with pytest.raises(DataError, match="no forecasts"):
        buy_and_hold(np.empty(0), np.empty(0), np.empty(0, dtype=int), costs=COSTS, step_ms=HOUR)


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
    times, pair, carry = np.arange(2) * HOUR, np.zeros(2, dtype=int), np.array([0.001, 0.002])
    free, paid = (
        trade(
            np.array([0.01, -0.01]), np.zeros(2), times, pair,
            costs=CostPolicy(allow_short=True), step_ms=HOUR, carry=cost,
        )
        for cost in (None, carry)
    )  # fmt: skip
    assert paid.net - free.net == pytest.approx([-0.001, 0.002])
    held = buy_and_hold(np.zeros(2), times, pair, costs=CostPolicy(), step_ms=HOUR, carry=carry)
    assert held.net.sum() == pytest.approx(-0.003 - 2 * CostPolicy().side)


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
