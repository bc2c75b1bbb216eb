"""Properties of the pure parts: whatever numbers come, no limit breaks, exits pass, and replay tells the same story."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.trading.trading_makers import ACTIVE, CANDLE, FORECAST, LIMITS, MARKS, NOW, healthy, intent
from trading.book import Book, apply, replay
from trading.clock import FixedClock
from trading.events import (
    AccountReport,
    Decided,
    Event,
    Fill,
    LeaseChanged,
    Noted,
    Position,
    Reported,
    Settled,
    StateChanged,
    from_rows,
    to_rows,
)
from trading.journal import Journal
from trading.lease import Lease
from trading.limits import RiskLimits
from trading.measures import correlated_exposure
from trading.orders import Approved, ForecastRef, OrderIntent, Refused, decision_from_dict
from trading.risk import decide
from trading.state import Cause, Latch, TradingState

WILD = st.floats(allow_nan=True, allow_infinity=True)
PAIRS = st.sampled_from(sorted(MARKS))
ACCOUNTS = st.sampled_from(["acc", "toy"])
NAMES = st.just("ann")
TIMES = st.integers(NOW - 10_000_000, NOW + 10_000_000)
TAME = st.floats(0.0, 1e7, allow_nan=False)
PRICES = st.floats(1e-6, 1e7, allow_nan=False)
IDS = st.integers(0, 20).map(lambda number: f"i-{number}")


@st.composite
def intents(draw: st.DrawFn, numbers: st.SearchStrategy[float] = WILD) -> OrderIntent:
    forecast = ForecastRef(
        draw(TIMES), "m:1", draw(st.sampled_from(["champion", "shadow"])), draw(numbers), draw(numbers)
    )
    return OrderIntent(
        intent_id=draw(IDS),
        bot=draw(st.sampled_from(["nn", "swing"])),
        account=draw(ACCOUNTS),
        venue=draw(st.sampled_from(["binance", "sandbox"])),
        pair=draw(PAIRS),
        side=draw(st.sampled_from(["buy", "sell"])),
        action=draw(st.sampled_from(["entry", "exit"])),
        amount=draw(numbers),
        price=draw(numbers),
        stop_price=draw(st.none() | numbers),
        lease_epoch=draw(st.integers(0, 3)),
        created_ms=draw(TIMES),
        candle_ms=draw(TIMES),
        forecast=draw(st.none() | st.just(forecast)),
        timeframe_ms=CANDLE,
    )


@st.composite
def reports(draw: st.DrawFn) -> AccountReport:
    held = draw(st.lists(PAIRS, unique=True, max_size=4))
    positions = tuple(
        Position(
            pair,
            draw(st.sampled_from(["long", "short"])),
            draw(TAME),
            draw(PRICES),
            draw(PRICES),
            draw(st.none() | TAME),
        )
        for pair in held
    )
    marks = draw(st.dictionaries(PAIRS, PRICES, max_size=4))
    return AccountReport(
        draw(ACCOUNTS),
        "nn",
        draw(st.integers(0, 3)),
        draw(TIMES),
        draw(TAME),
        draw(TAME),
        positions,
        marks,
        draw(st.booleans()),
    )


@st.composite
def decided(draw: st.DrawFn) -> Decided:
    order = draw(intents(numbers=PRICES))
    reservation = f"r-{order.intent_id}" if order.action == "entry" else ""
    yes = Approved(order.intent_id, reservation, order.amount, order.price)
    return Decided(order, draw(st.sampled_from([yes, Refused(order.intent_id, "LEASE", "no")])), draw(TIMES))


EVENTS: st.SearchStrategy[Event] = st.one_of(
    decided(),
    reports().map(Reported),
    st.builds(
        Settled,
        IDS.map(lambda name: f"r-{name}"),
        st.sampled_from(["filled", "partial", "cancelled", "rejected"]),
        TAME,
        TAME,
        TIMES,
    ),
    st.builds(
        StateChanged,
        st.builds(
            Latch, st.sampled_from(TradingState), st.sampled_from(Cause), NAMES, st.text(), TIMES, st.booleans()
        ),
        st.booleans(),
    ),
    st.builds(Lease, ACCOUNTS, st.sampled_from(["nn", "swing"]), st.integers(1, 9), TIMES).map(LeaseChanged),
    st.builds(
        Fill, ACCOUNTS, st.just("nn"), IDS, PAIRS, st.sampled_from(["buy", "sell"]), TAME, PRICES, TIMES, TAME,
        st.none() | st.floats(-1e6, 1e6), IDS,
    ),
    st.builds(Noted, st.just("recovery"), st.dictionaries(st.text(max_size=5), st.integers(), max_size=2)),
)  # fmt: skip


@given(intents())
def test_wild_numbers_never_raise_and_never_pass_unless_finite(order: OrderIntent) -> None:
    decision = decide(order, healthy(), LIMITS, FixedClock(NOW))
    if order.action == "exit":
        assert isinstance(decision, Approved)
    elif isinstance(decision, Approved):
        assert all(math.isfinite(number) and number > 0 for number in (decision.amount, decision.price))
        assert decision.amount <= order.amount


@given(intents(), st.lists(EVENTS, max_size=10), TIMES)
def test_decide_is_a_function(order: OrderIntent, events: list[Event], now_ms: int) -> None:
    book = replay(events)
    first = decide(order, book, LIMITS, FixedClock(now_ms))
    assert decide(order, replay(events), LIMITS, FixedClock(now_ms)) == first
    assert book == replay(events), "deciding must not change the book"


@given(
    st.floats(1e-6, 1e6),
    st.sampled_from(["amount", "price", "stop_price", "sigma", "edge"]),
    st.sampled_from([math.nan, math.inf, -math.inf]),
)
def test_one_bad_number_refuses(scale: float, name: str, bad: float) -> None:
    good = intent(amount=0.01)
    changed = (
        replace(good, forecast=replace(FORECAST, **{name: bad}))
        if name in ("sigma", "edge")
        else replace(good, **{name: bad})
    )
    decision = decide(changed, healthy(), LIMITS, FixedClock(NOW))
    assert isinstance(decision, Refused)
    assert decision.code == "BAD_NUMBERS"


DRAWN_LIMITS = st.builds(
    RiskLimits,
    accounts=st.just(dict(LIMITS.accounts)),
    max_position=st.sampled_from([0.1, 0.3, 1.0]),
    max_asset=st.sampled_from([0.1, 1.0]),
    max_gross=st.sampled_from([0.1, 0.5, 2.0]),
    max_correlated=st.sampled_from([0.15, 0.4, 1.0]),
    correlation=st.floats(0.0, 1.0),
    max_open_positions=st.sampled_from([1, 3, 9]),
    max_entries=st.sampled_from([3, 99]),
    max_pair_entries=st.sampled_from([2, 99]),
    max_notional=st.sampled_from([800.0, 9_999.0]),
)
WISHES = st.lists(st.tuples(PAIRS, st.floats(5.0, 3_000.0), st.integers(0, 600_000)), min_size=5, max_size=40)


@settings(deadline=None)
@given(limits=DRAWN_LIMITS, wishes=WISHES)
def test_no_sequence_of_approvals_breaks_a_limit(limits: RiskLimits, wishes: list[tuple[str, float, int]]) -> None:
    """Entries alone, each settled as filled at once; the tally is kept here, apart from the book's own."""
    book, now_ms, tally, times = healthy(), NOW, dict.fromkeys(MARKS, 0.0), []
    view = book.accounts["acc"].report
    for number, (pair, notional, pause) in enumerate(wishes):
        now_ms += pause
        price = MARKS[pair]
        book = apply(book, LeaseChanged(Lease("acc", "nn", 1, now_ms + 1)))
        held = tuple(
            Position(name, "long", money / MARKS[name], MARKS[name], MARKS[name], 1e-9)
            for name, money in tally.items()
            if money
        )
        free = view.equity - sum(tally.values())
        book = apply(book, Reported(replace(view, as_of_ms=now_ms, positions=held, free=free)))
        order = intent(
            intent_id=f"n-{number}", pair=pair, price=price, amount=notional / price, stop_price=price * 0.98,
            created_ms=now_ms, candle_ms=now_ms - CANDLE, forecast=replace(FORECAST, as_of_ms=now_ms - CANDLE),
        )  # fmt: skip
        decision = decide(order, book, limits, FixedClock(now_ms))
        book = apply(book, Decided(order, decision, now_ms))
        if isinstance(decision, Refused):
            continue
        book = apply(book, Settled(decision.reservation_id, "filled", decision.amount, price, now_ms))
        tally[pair] += decision.amount * price
        times.append((now_ms, pair))
        slack = 1 + 1e-9
        assert decision.amount * price <= limits.max_notional * slack
        assert tally[pair] <= limits.max_position * view.equity * slack
        assert tally[pair] <= limits.max_asset * 2 * view.equity * slack, "two accounts of equal equity"
        assert sum(tally.values()) <= limits.max_gross * view.equity * slack
        assert sum(tally.values()) <= view.equity * slack
        assert (
            correlated_exposure(list(tally.values()), limits.correlation) <= limits.max_correlated * view.equity * slack
        )
        assert sum(money > 0 for money in tally.values()) <= limits.max_open_positions
        lately = [name for at, name in times if at > now_ms - limits.entries_window_ms]
        assert len(lately) <= limits.max_entries
        assert lately.count(pair) <= limits.max_pair_entries


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(EVENTS, max_size=25), order=intents(), now_ms=TIMES)
def test_replay_from_the_journal_gives_the_same_book_and_decisions(
    events: list[Event], order: OrderIntent, now_ms: int, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    for old in tmp_path.glob("journal.db*"):
        old.unlink()
    journal = Journal(path)
    live = Book()
    for event in events:
        journal.append_all(to_rows(event), durable=False)
        live = apply(live, event)
    journal.close()
    again = Journal(path, read_only=True)
    rebuilt = replay(from_rows(again.read()))
    again.close()
    assert rebuilt == live
    clock = FixedClock(now_ms)
    assert repr(decide(order, rebuilt, LIMITS, clock)) == repr(decide(order, live, LIMITS, clock))


@given(intents())
def test_intents_and_decisions_survive_json(order: OrderIntent) -> None:
    again = OrderIntent.from_dict(order.to_dict())
    assert repr(again) == repr(order)  # repr, since NaN differs from itself
    decision = decide(order, healthy(latch=ACTIVE), LIMITS, FixedClock(NOW))
    assert repr(decision_from_dict(decision.to_dict())) == repr(decision)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8), st.floats(0, 1))
def test_correlated_exposure_lies_between_independent_and_identical(weights: list[float], correlation: float) -> None:
    exposure = correlated_exposure(weights, correlation)
    assert math.hypot(*weights) * (1 - 1e-9) - 1e-9 <= exposure <= sum(weights) * (1 + 1e-9) + 1e-9
