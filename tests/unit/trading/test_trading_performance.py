"""Figures of a journal: sums that can be checked by hand, and properties that hold for any journal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.trading.trading_makers import NOW, approved, intent, position, report
from trading.events import Decided, Event, Fill, Reported, StateChanged
from trading.orders import Approved, Refused
from trading.performance import performance
from trading.state import Cause, Latch, TradingState

STEP = 900_000
BUY = Fill("acc", "nn", "o-1", "BTC/USDT", "buy", 0.01, 50_100.0, NOW + 1, fee=0.5)
SELL = Fill("acc", "nn", "o-2", "BTC/USDT", "sell", 0.01, 50_900.0, NOW + STEP, fee=0.51, profit=6.99)


def _approved() -> Decided:
    asked = intent(price=50_000.0)
    return Decided(asked, Approved(asked.intent_id, "r-1", asked.amount, asked.price), NOW)


def _reports(*worths: float) -> list[Event]:
    return [Reported(report(equity=worth, as_of_ms=NOW + at * STEP)) for at, worth in enumerate(worths)]


def test_a_round_trip_adds_up() -> None:
    marks = {"BTC/USDT": 51_000.0}
    late = Reported(report(equity=10_010.0, as_of_ms=NOW + STEP, marks=marks))
    (account,) = performance([*_reports(10_000.0), _approved(), BUY, late, SELL]).accounts.values()
    pair = account.pairs["BTC/USDT"]
    assert (pair.trades, pair.wins) == (1, 1)
    assert pair.profit == pytest.approx(6.99)
    assert pair.fees == pytest.approx(1.01)
    assert pair.turnover == pytest.approx(501.0 + 509.0)
    assert pair.slippage == pytest.approx(0.01 * 100.0), "the entry filled 100 above the approved price"
    assert pair.exit_gap == pytest.approx(0.01 * 100.0), "the exit got 100 less than the last close"
    assert account.total == pair


def test_a_short_entry_slips_downwards() -> None:
    asked = intent(side="sell", price=50_000.0, stop_price=51_000.0)
    ruling = Decided(asked, Approved(asked.intent_id, "r-1", asked.amount, asked.price), NOW)
    sold = replace(BUY, side="sell", price=49_900.0)
    (account,) = performance([*_reports(10_000.0), ruling, sold]).accounts.values()
    assert account.pairs["BTC/USDT"].slippage == pytest.approx(0.01 * 100.0)


def test_a_fill_told_again_counts_once() -> None:
    half = replace(BUY, amount=0.005, fee=0.25)
    (account,) = performance([*_reports(10_000.0), _approved(), half, BUY]).accounts.values()
    assert account.pairs["BTC/USDT"].turnover == pytest.approx(BUY.cost)
    assert account.pairs["BTC/USDT"].fees == pytest.approx(BUY.fee)


def test_rules_are_counted_by_bot_and_exits_are_not() -> None:
    asked = intent()
    no = Decided(asked, Refused(asked.intent_id, "LEASE", "lost"), NOW)
    leave = Decided(intent(action="exit"), Approved("i-1", "", 0.01, 50_000.0), NOW)
    found = performance([_approved(), no, no, leave, approved(1)])
    assert dict(found.by_rule) == {"APPROVED": 2, "LEASE": 2}
    assert found.by_bot == {"nn": {"APPROVED": 2, "LEASE": 2}}


def test_exposure_and_state_changes_are_told() -> None:
    halted = Latch(TradingState.HALTED, Cause.LIMIT, "DRAWDOWN", "too deep", NOW)
    found = performance([Reported(report(positions=(position(notional=500.0),))), StateChanged(halted)])
    assert found.accounts["acc"].exposure == [(NOW, pytest.approx(0.05))]
    assert found.breakers == ((NOW, "halted", "DRAWDOWN", "too deep"),)


@given(st.lists(st.floats(1.0, 1e6), min_size=1, max_size=40))
def test_drawdown_is_the_deepest_fall_from_any_earlier_worth(worths: list[float]) -> None:
    (account,) = performance(_reports(*worths)).accounts.values()
    deepest = max(1.0 - later / earlier for at, earlier in enumerate(worths) for later in worths[at:])
    assert account.max_drawdown == pytest.approx(deepest, abs=1e-12)
    assert account.profit_ratio == pytest.approx(worths[-1] / worths[0] - 1.0)
