"""Properties of the arbitrage cores: no leg is left alone, no z-score knows the future, no carry is invented."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.errors import TradingError
from trading.arbitrage.carry import CarryPolicy, carry_wanted, cross_gap, expected_carry
from trading.arbitrage.coordinator import (
    Command,
    Enter,
    Happening,
    Leave,
    LegPolicy,
    LegRefused,
    Pair,
    Phase,
    Seen,
    Tick,
    step,
)
from trading.arbitrage.spread import Hedge, PairPolicy, Spread, estimate, half_life, next_spread, pair_signals

STEP = 900_000
LEGS = LegPolicy(timeout_ms=1_000, tolerance=0.05)
PAIR = PairPolicy(window=120, refit=24)
amounts = st.sampled_from([0.0, 0.3, 0.96, 1.0])
legs = st.sampled_from(["a", "b"])
happenings = st.one_of(
    st.builds(Enter, st.sampled_from([1.0, 0.0, -1.0]), st.integers(0, 5_000)),
    st.builds(Leave),
    st.builds(Seen, legs, amounts, st.booleans()),
    st.builds(LegRefused, legs, st.just("no")),
    st.builds(Tick, st.integers(0, 9_000)),
)


def _lone(pair: Pair) -> list[str]:
    """Legs that hold something while the other does not hold its part."""
    whole = {name: leg.held >= pair.target * (1 - LEGS.tolerance) > 0 for name, leg in pair.legs.items()}
    held = {name: leg.held > 0 for name, leg in pair.legs.items()}
    return [name for name, other in (("a", "b"), ("b", "a")) if held[name] and not whole[other]]


@settings(max_examples=400)
@given(st.lists(happenings, max_size=30))
def test_after_the_time_out_no_leg_stays_alone_without_an_unwind(events: list[Happening]) -> None:
    pair = Pair()
    for event in events:
        pair, _ = step(pair, event, LEGS)
        if pair.phase is Phase.OPEN:
            assert not _lone(pair)
        if pair.phase is Phase.IDLE:
            assert pair.flat
    after, orders = step(pair, Tick(pair.asked_ms + LEGS.timeout_ms), LEGS)
    for name in _lone(after):
        assert after.phase in (Phase.UNWINDING, Phase.CLOSING)
        assert Command("close", name) in orders  # type: ignore[arg-type]


@settings(max_examples=300)
@given(st.lists(happenings, max_size=20), st.integers(0, 3))
def test_obeyed_commands_always_end_flat(events: list[Happening], deaf: int) -> None:
    """A venue that does what it is told, if only after some deaf ticks, leads back to idle."""
    pair = Pair()
    for event in events:
        pair, _ = step(pair, event, LEGS)
    pair, _ = step(pair, Leave(), LEGS)
    now = pair.asked_ms + LEGS.timeout_ms
    for tick in range(deaf + 4):
        pair, orders = step(pair, Tick(now + tick), LEGS)
        for order in orders if tick >= deaf else ():
            leg = pair.legs[order.leg]
            told = (
                Seen(order.leg, leg.held, pending=False)
                if order.verb == "cancel"
                else Seen(order.leg, 0.0, pending=False)
            )
            pair, _ = step(pair, told, LEGS)
    assert pair.phase is Phase.IDLE
    assert pair.flat


def test_two_fills_make_a_pair_and_a_lost_leg_unwinds_it() -> None:
    pair, orders = step(Pair(), Enter(1.0, 0), LEGS)
    assert [order.verb for order in orders] == ["open", "open"]
    for name in ("a", "b"):
        pair, orders = step(pair, Seen(name, 1.0, pending=False), LEGS)  # type: ignore[arg-type]
        assert orders == ()
    assert pair.phase is Phase.OPEN
    pair, orders = step(pair, Seen("b", 0.0, pending=False), LEGS)
    assert (pair.phase, orders) == (Phase.UNWINDING, (Command("close", "a"),))
    assert "leg b was lost" in pair.reason


def test_a_fill_that_comes_late_is_closed() -> None:
    pair, _ = step(Pair(), Enter(1.0, 0), LEGS)
    pair, _ = step(pair, LegRefused("a", "too small"), LEGS)
    pair, _ = step(pair, Seen("b", 0.0, pending=False), LEGS)
    assert pair.phase is Phase.IDLE
    pair, orders = step(pair, Seen("b", 1.0, pending=False), LEGS)
    assert orders == (Command("close", "b"),)


# --- the statistical pair --------------------------------------------------------------------------------------------


def _legs(rows: int, seed: int, kappa: float = 0.15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B walks, A follows 1.4 times it with an error that reverts by `kappa` a candle."""
    rng = np.random.default_rng(seed)
    log_b = 3.0 + np.cumsum(rng.normal(0.0, 0.01, rows))
    error = np.zeros(rows)
    for row in range(1, rows):
        error[row] = (1.0 - kappa) * error[row - 1] + rng.normal(0.0, 0.004)
    times = 1_704_067_200_000.0 + STEP * np.arange(rows)
    return times, np.exp(0.5 + 1.4 * log_b + error), np.exp(log_b)


def test_a_planted_hedge_is_found_and_two_walks_are_not_a_pair() -> None:
    _, a, b = _legs(600, 1)
    found = estimate(np.log(a), np.log(b))
    assert found.beta == pytest.approx(1.4, abs=0.03)
    assert found.tradable(PairPolicy())
    assert found.half_life == pytest.approx(math.log(2) / 0.15, rel=0.5)
    refused = sum(
        not estimate(np.log(_legs(600, s)[2]), np.log(_legs(600, s + 50)[2])).tradable(PairPolicy()) for s in range(20)
    )
    assert refused >= 16
    assert half_life(np.cumsum(np.ones(50))) == math.inf
    assert not Hedge(0.0, math.nan, 1.0, 0.01, 5.0).tradable(PairPolicy())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(150, 390))
def test_no_signal_knows_a_later_candle(seed: int, cut: int) -> None:
    times, a, b = _legs(400, seed)
    whole = pair_signals(times, a, b, STEP, PAIR)
    rng = np.random.default_rng(seed + 1)
    other_a, other_b = a.copy(), b.copy()
    other_a[cut:] *= np.exp(rng.normal(0, 0.1, 400 - cut))
    other_b[cut:] *= np.exp(rng.normal(0, 0.1, 400 - cut))
    changed = pair_signals(times, other_a, other_b, STEP, PAIR)
    assert whole.iloc[:cut].equals(changed.iloc[:cut])


def test_signals_do_not_depend_on_where_the_history_begins() -> None:
    times, a, b = _legs(600, 4)
    whole = pair_signals(times, a, b, STEP, PAIR)
    later = pair_signals(times[150:], a[150:], b[150:], STEP, PAIR)
    tail = 600 - 150 - PAIR.window - PAIR.refit
    assert whole.tail(tail).reset_index(drop=True).equals(later.tail(tail).reset_index(drop=True))


@given(st.lists(st.floats(-6, 6) | st.just(math.nan), max_size=60), st.booleans())
def test_a_spread_opens_far_from_the_mean_and_never_jumps_sides(scores: list[float], tradable: bool) -> None:
    held = Spread.FLAT
    for z in scores:
        after = next_spread(held, z, tradable, PAIR)
        assert after * held >= 0, "through flat only"
        if after is not Spread.FLAT and held is Spread.FLAT:
            assert tradable
            assert PAIR.enter <= abs(z) < PAIR.stop
            assert (z < 0) == (after is Spread.LONG)
        if not abs(z) < PAIR.stop:
            assert after is Spread.FLAT
        held = after


def test_legs_of_different_length_are_refused() -> None:
    times, a, b = _legs(200, 1)
    with pytest.raises(TradingError):
        pair_signals(times, a, b[:-1], STEP, PAIR)


# --- carry -----------------------------------------------------------------------------------------------------------


def test_carry_opens_when_payments_pay_for_four_orders_and_ends_when_they_stop() -> None:
    policy = CarryPolicy()
    rich, poor = [0.0003] * 9, [0.00003] * 9
    assert expected_carry(rich, policy) == pytest.approx(63 * 0.0003 - 0.0024)
    assert carry_wanted(False, rich, 100.0, 100.2, policy)
    assert not carry_wanted(False, poor, 100.0, 100.2, policy)
    assert not carry_wanted(False, rich, 100.0, 103.0, policy), "the basis may fall back onto us, or widen"
    assert not carry_wanted(False, rich, math.nan, 100.0, policy)
    assert carry_wanted(True, poor, 100.0, 103.0, policy), "cheap to keep, dear to open"
    assert not carry_wanted(True, [-0.0001] * 9, 100.0, 100.0, policy)
    assert not carry_wanted(True, [0.0003] * 3, 100.0, 100.0, policy), "unknown payments hold nothing"


@given(st.floats(0.01, 1e6), st.floats(0.0, 0.01), st.floats(0.0, 0.01))
def test_one_price_at_two_venues_is_never_a_gain(price: float, dear: float, cheap: float) -> None:
    assert cross_gap(price, price, dear, cheap) <= 1e-12
    assert cross_gap(math.nan, price, dear, cheap) == -math.inf
