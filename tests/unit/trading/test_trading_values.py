"""State, lease, limits and what is read from outside: pure values that refuse nonsense."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.errors import JournalError, LeaseError, OrderError, SettingsError, TradingError
from tests.unit.trading.trading_makers import LIMITS, NOW, intent
from trading.events import AccountReport, from_rows
from trading.journal import Entry
from trading.lease import Lease, expire, grant, renew
from trading.limits import RiskLimits
from trading.orders import OrderIntent, decision_from_dict
from trading.state import Cause, Latch, TradingState, flattening, lift, reconciled, tighten

LATCHES = st.builds(
    Latch,
    st.sampled_from(TradingState),
    st.sampled_from(Cause),
    st.just("ann"),
    st.just("why"),
    st.integers(0, 9),
    st.booleans(),
)
HARD = st.sampled_from([Cause.LIMIT, Cause.PERSON])


@given(LATCHES, st.sampled_from(TradingState), HARD)
def test_tightening_never_loosens(latch: Latch, to: TradingState, cause: Cause) -> None:
    after = tighten(latch, to, cause, who="x", reason="y", now_ms=5)
    assert after.state.level <= min(latch.state.level, max(to.level, latch.state.level))
    assert after.flatten == latch.flatten
    if to.level < latch.state.level:
        assert (after.state, after.cause) == (to, cause)


@given(LATCHES, st.sampled_from(TradingState), HARD)
def test_only_a_person_opens_what_a_limit_or_a_person_closed(latch: Latch, to: TradingState, cause: Cause) -> None:
    closed = tighten(replace(latch, flatten=False), to, cause, who="x", reason="y", now_ms=5)
    if closed.cause in (Cause.LIMIT, Cause.PERSON):
        assert reconciled(closed, 9) == closed
    opened = lift(closed, "ann", "fine", True, 9)
    assert (opened.state, opened.who) == (TradingState.ACTIVE, "ann")
    waiting = lift(closed, "ann", "fine", False, 9)
    assert (waiting.state, waiting.cause) == (TradingState.HALTED, Cause.START)
    assert reconciled(waiting, 10).state is TradingState.ACTIVE
    for nameless in ("", "  "):
        with pytest.raises(TradingError):
            lift(closed, nameless, "", True, 9)
        with pytest.raises(TradingError):
            flattening(closed, nameless, "", 9)
    assert flattening(closed, "ann", "out", 9).state is not TradingState.ACTIVE


@given(LATCHES)
def test_latches_survive_json(latch: Latch) -> None:
    assert Latch.from_dict(latch.to_dict()) == latch


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["grant", "renew", "expire"]),
        st.sampled_from(["a", "b"]),
        st.integers(0, 300),
        st.integers(1, 3),
    ),
    max_size=40,
)


@given(STEPS)
def test_one_holder_at_a_time_and_epochs_only_rise(steps: list[tuple[str, str, int, int]]) -> None:
    lease: Lease | None = None
    now = 0
    for verb, holder, pause, born in steps:
        now += pause
        before = lease
        try:
            if verb == "grant":
                lease = grant(lease, "acc", holder, ttl_ms=100, now_ms=now, born_ms=born)
            elif verb == "renew":
                lease = renew(lease, "acc", holder, 0 if lease is None else lease.epoch, ttl_ms=100, now_ms=now)
            elif lease is not None:
                lease = expire(lease, now)
        except LeaseError:
            assert lease is before
            continue
        if before is not None and lease is not None:
            assert lease.epoch >= before.epoch
            if lease.holder != before.holder:
                assert not before.live(now), "taken from a live holder"
                assert lease.epoch > before.epoch
            if verb == "grant":
                assert lease.epoch > before.epoch
                assert born >= before.born_ms or not before.live(now), "taken back by a former process"


def test_a_replaced_process_cannot_take_the_lease_back_from_its_successor() -> None:
    former = grant(None, "acc", "bot", ttl_ms=100, now_ms=0, born_ms=10)
    successor = grant(former, "acc", "bot", ttl_ms=100, now_ms=5, born_ms=20)
    assert Lease.from_dict(successor.to_dict()) == successor
    with pytest.raises(LeaseError, match="no longer holds"):
        renew(successor, "acc", "bot", former.epoch, ttl_ms=100, now_ms=6)
    with pytest.raises(LeaseError, match="a later process of bot has the account"):
        grant(successor, "acc", "bot", ttl_ms=100, now_ms=6, born_ms=10)
    assert grant(successor, "acc", "bot", ttl_ms=100, now_ms=6, born_ms=20).epoch == 3, "it may ask again itself"
    assert grant(successor, "acc", "bot", ttl_ms=100, now_ms=105, born_ms=10).epoch == 3, "its successor is gone"
    plain = {name: value for name, value in former.to_dict().items() if name != "born_ms"}
    assert Lease.from_dict(plain).born_ms == 0, "a journal of an earlier version"


def test_a_lease_needs_a_name() -> None:
    with pytest.raises(LeaseError, match="named holder"):
        grant(None, "acc", " ", ttl_ms=1, now_ms=0)


def test_limits_survive_json_and_refuse_nonsense() -> None:
    assert RiskLimits.from_dict(LIMITS.to_dict()) == LIMITS
    assert RiskLimits.from_dict({"max_position": 1}).max_position == 1.0
    wrong = [
        {"max_positon": 0.1}, {"max_position": math.nan}, {"max_gross": math.inf}, {"max_drawdown": 0.0},
        {"max_drawdown": 15}, {"max_entries": 2.5}, {"max_entries": True}, {"max_position": "much"},
        {"accounts": ["acc"]}, {"shadow_trades_play_money": 1}, {"max_notional": -1.0}, {"correlation": 1.1},
        {"pairs": "BTC/USDT"}, {"entries_window_ms": 2 * 86_400_000},
    ]  # fmt: skip
    for table in wrong:
        with pytest.raises(SettingsError):
            RiskLimits.from_dict(table)


def test_malformed_messages_name_the_field() -> None:
    good = intent().to_dict()
    for name, value in (
        ("amount", "much"), ("amount", None), ("amount", True), ("side", "up"), ("created_ms", 1.5), ("pair", 7),
        ("forecast", {}),
    ):  # fmt: skip
        with pytest.raises(OrderError, match=name if name != "forecast" else "as_of_ms"):
            OrderIntent.from_dict({**good, name: value})
    with pytest.raises(OrderError):
        decision_from_dict({"approved": "yes"})
    with pytest.raises(OrderError):
        AccountReport.from_dict({"account": "acc", "positions": [1]})


def test_a_row_that_makes_no_sense_stops_the_replay() -> None:
    orphan = Entry(
        1, "decision", {"at_ms": NOW, "decision": {"approved": False, "intent_id": "x", "code": "", "text": ""}}
    )
    for entry in (orphan, Entry(1, "state", {"latch": {}}), Entry(1, "settle", {}), Entry(1, "riddle", {})):
        with pytest.raises(JournalError, match="row 1"):
            list(from_rows([entry]))


def test_core_of_trading_needs_no_framework(repo_root: Path) -> None:
    code = (
        "import sys, trading.manager, trading.signals, trading.rules, trading.reconcile;"
        "print([m for m in ('torch', 'ray', 'freqtrade', 'ccxt', 'mlflow', 'bentoml', 'polars') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
