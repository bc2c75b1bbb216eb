"""The benchmark of biases reads what Freqtrade's checks print."""

from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.bias import CASES, largest_variance, random_walk
from benchmarks.bias_legs import VERBS, columns, depending
from trading.adapters.bot_spec import ARBITRAGES, STRATEGIES
from trading.adapters.strategies.arbitrage_leg import ArbitrageLeg
from trading.arbitrage.coordinator import LegName
from trading.arbitrage.standing import LONG, SHORT, Verb

FEE = "freqtrade.optimize.backtesting INFO Using fee 0.1000% - worst case fee from exchange (lowest tier).\n"
TABLE = """┏━━━━━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━┓
┃    Indicators ┃      30 ┃ 400 (from strategy) ┃
┡━━━━━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━┩
│ mtst_ema_fast │ -0.003% │                   - │
│      mtst_atr │  {at30} │             -0.000% │
└───────────────┴─────────┴─────────────────────┘
"""


@pytest.mark.parametrize(("at30", "largest"), [("7.418%", 7.418), ("-9.100%", 9.1), ("   nan%", math.inf)])
def test_the_largest_variance_is_the_tables(at30: str, largest: float) -> None:
    assert largest_variance(FEE + TABLE.format(at30=at30)) == largest


def test_without_a_table_nothing_varies() -> None:
    assert largest_variance(FEE) == 0.0


def test_every_strategy_is_checked_and_every_leg() -> None:
    assert set(CASES) == {*STRATEGIES, *(f"{name}-{side}" for name in ARBITRAGES for side in ("long", "short"))}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 60), st.sampled_from(VERBS))
@pytest.mark.parametrize("leg", [LONG, SHORT])
def test_a_leg_says_the_same_whatever_its_candles_are_and_will_be(
    leg: LegName, seed: int, known: int, verb: Verb | None
) -> None:
    past, other = random_walk(seed, 60), random_walk(seed + 1, 60)
    future = pl.concat([past[:known], other[known:]])
    assert columns(past, leg, verb).equals(columns(future, leg, verb)), "the future alone is another"
    assert depending(past, other, leg) == [], "past and future are"


@pytest.mark.parametrize("leg", [LONG, SHORT])
def test_a_leg_enters_on_its_coordinators_word_alone_and_now(leg: LegName) -> None:
    entered = {verb: columns(random_walk(1, 50), leg, verb) for verb in VERBS}
    side = "enter_short" if leg == SHORT else "enter_long"
    assert {verb: found[side].sum() for verb, found in entered.items()} == {None: 0, "open": 1, "hold": 0, "close": 0}
    assert entered["open"][side].iloc[-1] == 1


def test_a_column_that_looks_ahead_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ArbitrageLeg.signals
    monkeypatch.setattr(
        ArbitrageLeg,
        "signals",
        lambda self, frame, pair: told(self, frame, pair).assign(ahead=frame["close"].shift(-1)),
    )
    assert depending(random_walk(1, 50), random_walk(2, 50), LONG) == ["mtst_ahead"]
