"""What the coordinator answers two legs, tried on simulated books that refuse, fill late, fall silent and forget."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.errors import MtstError
from trading.arbitrage.carry import CarryPolicy, GapPolicy, carry_wanted, gap_wanted
from trading.arbitrage.coordinator import LegName, Phase
from trading.arbitrage.standing import LONG, SHORT, Advice, LegView, PairPlan, Standing, advise

MINUTE = 60_000
PLAN = PairPlan(GapPolicy())
CHEAP, DEAR = (100.0, 100.01), (102.0, 102.01)


def view(leg: LegName, held: float = 0.0, **changes: object) -> LegView:
    """A leg that could open, across a gap of 2 %."""
    bid, ask = CHEAP if leg == LONG else DEAR
    return replace(LegView(leg, held, False, bid, ask, 5.0 if leg == LONG else 4.0, True), **changes)


BOTH = view(LONG), view(SHORT)


def tell(standing: Standing, now_ms: int, *views: LegView) -> tuple[Standing, list[Advice]]:
    """Let the legs tell what they see, one after the other."""
    answers = []
    for each in views:
        standing, advice = advise(standing, each, now_ms, PLAN)
        answers.append(advice)
    return standing, answers


def opened() -> Standing:
    """Both legs are held."""
    standing, _ = tell(Standing(), 0, *BOTH, *BOTH)
    standing, _ = tell(standing, MINUTE, view(LONG, 4.0), view(SHORT, 4.0))
    assert standing.pair.phase is Phase.OPEN
    return standing


def test_both_legs_open_what_the_poorer_can_and_each_is_told_once() -> None:
    standing, answers = tell(Standing(), 0, *BOTH, *BOTH)
    assert [(advice.verb, advice.amount) for advice in answers] == [("hold", 0.0)] * 2 + [("open", 4.0)] * 2
    standing, (again,) = tell(standing, 0, view(LONG, pending=True))
    assert again.verb == "hold"


@pytest.mark.parametrize("leg", [LONG, SHORT])
@pytest.mark.parametrize(
    "change", [{"ready": False}, {"room": 0.0}, {"held": 1.0}, {"pending": True}, {"bid": float("nan")}]
)
def test_nothing_opens_unless_both_legs_can(leg: LegName, change: dict[str, object]) -> None:
    views = [replace(view(name), **(change if name == leg else {})) for name in (LONG, SHORT)]
    _, answers = tell(Standing(), 0, *views, *views)
    assert "open" not in {advice.verb for advice in answers}


def test_one_leg_alone_opens_nothing_and_neither_does_an_old_tale() -> None:
    standing, answers = tell(Standing(), 0, view(LONG), view(LONG))
    _, late = tell(standing, 10 * MINUTE, view(SHORT))
    assert {advice.verb for advice in (*answers, *late)} == {"hold"}


def test_a_gap_that_has_gone_closes_both_and_a_gap_that_is_an_error_opens_nothing() -> None:
    gone = view(LONG, 4.0), view(SHORT, 4.0, bid=100.0, ask=100.02)
    _, answers = tell(opened(), 2 * MINUTE, *gone, *gone)
    assert [advice.verb for advice in answers] == ["hold", "hold", "close", "close"]
    assert not gap_wanted(False, (120.0, 120.01), CHEAP, GapPolicy())
    assert gap_wanted(True, (float("nan"), 1.0), CHEAP, GapPolicy()), "unknown prices close nothing"


@given(
    st.lists(st.tuples(st.booleans(), st.floats(-0.01, 0.01)), max_size=40),
    st.floats(-0.004, 0.004),
)
def test_a_market_that_moves_is_no_gap_whoever_speaks_first(minutes: list[tuple[bool, float]], basis: float) -> None:
    standing, price = Standing(), 100.0
    for number, (long_first, move) in enumerate(minutes):
        price *= 1.0 + move
        dear = price * (1.0 + basis)
        views = [view(LONG, bid=price, ask=price), view(SHORT, bid=dear, ask=dear)]
        standing, answers = tell(standing, number * MINUTE, *(views if long_first else reversed(views)))
        assert {advice.verb for advice in answers} == {"hold"}


def test_a_gap_of_prices_told_too_far_apart_opens_nothing() -> None:
    standing = Standing()
    for number in range(20):
        standing, answers = tell(standing, number * (PLAN.apart_ms + 1), BOTH[number % 2])
        assert answers[0].verb == "hold"
    standing, answers = tell(standing, 20 * (PLAN.apart_ms + 1), *BOTH, BOTH[0])
    assert answers[-1].verb == "open"


def test_a_refused_leg_unwinds_the_other_and_then_it_rests() -> None:
    standing, _ = tell(Standing(), 0, *BOTH, *BOTH)
    standing, answers = tell(standing, MINUTE, view(LONG, 4.0), view(SHORT), view(LONG, 4.0))
    assert [advice.verb for advice in answers] == ["hold", "hold", "close"]
    assert "leg b came to an end unfilled" in answers[-1].reason
    standing, _ = tell(standing, 2 * MINUTE, view(LONG), view(SHORT))
    assert standing.pair.phase is Phase.IDLE
    for minute in range(3, 70):
        standing, answers = tell(standing, minute * MINUTE, view(LONG), view(SHORT))
        assert ("open" in {advice.verb for advice in answers}) is (minute >= 62)
        if minute >= 62:
            break


def test_a_leg_that_is_late_is_given_up_after_the_time_out() -> None:
    standing, _ = tell(Standing(), 0, *BOTH, *BOTH)
    half = view(SHORT, 1.0, pending=True)
    for minute in (1, 2):
        standing, answers = tell(standing, minute * MINUTE, view(LONG, 4.0), half)
        assert {advice.verb for advice in answers} == {"hold"}
    _, answers = tell(standing, 3 * MINUTE, view(LONG, 4.0), half)
    assert {advice.verb for advice in answers} == {"close"}


def test_a_silent_leg_counts_as_lost() -> None:
    standing = opened()
    for minute in range(2, 12):
        standing, answers = tell(standing, minute * MINUTE, view(LONG, 4.0))
        assert answers[0].verb == "hold"
    _, answers = tell(standing, 12 * MINUTE, view(LONG, 4.0))
    assert answers[0].verb == "close"
    assert "leg b was refused: not heard" in answers[0].reason


def test_a_restart_goes_on_and_one_that_has_forgotten_unwinds() -> None:
    kept = Standing.from_dict(json.loads(json.dumps(opened().to_dict())))
    kept, answers = tell(kept, 2 * MINUTE, view(LONG, 4.0), view(SHORT, 4.0))
    assert kept.pair.phase is Phase.OPEN
    assert {advice.verb for advice in answers} == {"hold"}
    _, answers = tell(Standing(), 2 * MINUTE, view(LONG, 4.0), view(SHORT, 4.0))
    assert {advice.verb for advice in answers} == {"close"}


@pytest.mark.parametrize("text", ["{}", '{"pair": 1}', '{"pair": {"phase": "moon"}}'])
def test_a_file_that_says_nothing_sensible_is_refused(text: str) -> None:
    with pytest.raises(MtstError):
        Standing.from_dict(json.loads(text))


def test_carry_needs_payments_that_the_perpetuals_leg_tells() -> None:
    plan = PairPlan(CarryPolicy())
    standing = Standing()
    level = {"bid": 100.0, "ask": 100.01}
    for rates, verb in (((), "hold"), ((0.0003,) * 9, "open")):
        standing, _ = advise(standing, view(LONG, **level), 0, plan)
        standing, _ = advise(standing, view(SHORT, **level, rates=rates), 0, plan)
        standing, advice = advise(standing, view(LONG, **level), 0, plan)
        assert advice.verb == verb


@dataclass
class Book:
    """A simulated leg that does what it is told, if it can."""

    held: float = 0.0
    wanted: float = 0.0

    def obey(self, advice: Advice, *, fills: bool, accepts: bool) -> None:
        if advice.verb == "close":
            self.held = self.wanted = 0.0
        elif advice.verb == "open" and accepts:
            self.wanted = advice.amount
        if fills and self.wanted > self.held:
            self.held = self.wanted


Minutes = st.lists(
    st.tuples(
        st.sampled_from([(LONG, SHORT), (SHORT, LONG), (LONG,), (SHORT,)]), st.booleans(), st.booleans(),
        st.booleans(), st.booleans(), st.sampled_from([100.0, 102.0, 101.0]),
    ),
    max_size=80,
)  # fmt: skip


@given(Minutes)
def test_no_leg_stands_alone_for_longer_than_the_time_out_and_silence_ends_both(
    minutes: list[tuple[object, ...]],
) -> None:
    standing, books, alone_since = Standing(), {LONG: Book(), SHORT: Book()}, None
    spoke: dict[LegName, int] = dict.fromkeys(books, 0)
    for number, (speakers, fills, accepts, stopped, restarts, dear) in enumerate(minutes, start=1):
        now_ms = number * MINUTE
        if restarts:
            standing = Standing.from_dict(json.loads(json.dumps(standing.to_dict())))
        if stopped:
            books[SHORT] = Book()  # its stop was met
        for leg in speakers:
            book = books[leg]
            tale = view(leg, book.held, pending=book.wanted > book.held)
            if leg == SHORT:
                tale = replace(tale, bid=dear, ask=dear + 0.01)
            standing, advice = advise(standing, tale, now_ms, PLAN)
            book.obey(advice, fills=fills, accepts=accepts)
            spoke[leg] = now_ms
        one_sided = (books[LONG].held > 0) != (books[SHORT].held > 0)
        silent = any(now_ms - at >= 2 * MINUTE for at in spoke.values())
        alone_since = (alone_since or now_ms) if one_sided and not silent else None
        assert alone_since is None or now_ms - alone_since <= PLAN.legs.timeout_ms + 2 * MINUTE
    for number in range(len(minutes) + 1, len(minutes) + 8):
        for leg, book in books.items():
            tale = replace(view(leg, book.held, pending=book.wanted > book.held), ready=False)
            standing, advice = advise(standing, tale, number * MINUTE, PLAN)
            book.obey(advice, fills=False, accepts=False)
    whole = {leg: book.held > 0 for leg, book in books.items()}
    assert whole[LONG] == whole[SHORT], "in quiet times both are held or none"


PRICES = st.sampled_from([99.0, 100.0, 101.0, 102.0, 104.0])
VIEWS = st.builds(
    lambda leg, price, held, pending, ready, rate: LegView(
        leg, held, pending, price, price + 0.01, 4.0, ready, (rate,) * 9 if leg == SHORT else ()
    ),
    st.sampled_from([LONG, SHORT]), PRICES, st.sampled_from([0.0, 4.0]), st.booleans(), st.booleans(),
    st.sampled_from([-0.001, 0.0, 0.001]),
)  # fmt: skip
TOLD = st.lists(st.tuples(VIEWS, st.integers(0, 20 * MINUTE)), max_size=12)


@given(TOLD, TOLD, TOLD, st.sampled_from([PLAN, PairPlan(CarryPolicy())]))
def test_no_advice_depends_on_what_is_told_later(
    past: list[tuple[LegView, int]], one: list[tuple[LegView, int]], other: list[tuple[LegView, int]], plan: PairPlan
) -> None:
    def advised(told: list[tuple[LegView, int]]) -> list[Advice]:
        standing, now_ms, answers = Standing(), 0, []
        for each, later_ms in told:
            now_ms += later_ms
            standing, advice = advise(standing, each, now_ms, plan)
            answers.append(advice)
        return answers

    assert advised([*past, *one])[: len(past)] == advised([*past, *other])[: len(past)] == advised(past)


@given(st.lists(st.floats(-0.01, 0.01), max_size=30), st.booleans())
def test_carry_is_judged_by_its_window_of_payments_alone(rates: list[float], held: bool) -> None:
    policy = CarryPolicy()
    window = rates[-policy.window :]
    assert carry_wanted(held, rates, 100.0, 100.1, policy) == carry_wanted(held, window, 100.0, 100.1, policy)
