"""What hurries travels as bytes and arrives as it was, or is refused; nothing in between."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.errors import OrderError
from tests.unit.trading.trading_makers import LIMITS, NOW, healthy, intent
from trading.clock import FixedClock
from trading.orders import Approved, Refused
from trading.risk import decide
from trading.wire import (
    Settlement,
    decision_bytes,
    decision_from,
    intent_bytes,
    intent_from,
    settlement_bytes,
    settlement_from,
)

NUMBERS = st.floats(allow_nan=False)


@given(NUMBERS, NUMBERS, st.one_of(st.none(), NUMBERS), st.booleans())
def test_an_intent_arrives_as_it_was(amount: float, price: float, stop: float | None, forecast: bool) -> None:
    asked = intent(amount=amount, price=price, stop_price=stop)
    asked = asked if forecast else replace(asked, forecast=None)
    assert intent_from(intent_bytes(asked)) == asked


def test_what_is_no_number_arrives_as_that_and_is_refused() -> None:
    arrived = intent_from(intent_bytes(intent(amount=math.nan)))
    assert math.isnan(arrived.amount)
    refused = decide(arrived, healthy(), LIMITS, FixedClock(NOW))
    assert isinstance(refused, Refused)
    assert refused.code == "BAD_NUMBERS"
    assert decision_from(decision_bytes(refused)) == refused
    told = settlement_from(settlement_bytes(Settlement("r-1", "filled", math.nan, math.inf)))
    assert math.isnan(told.filled)
    assert told.price == math.inf


def test_an_approval_arrives_without_its_uses_of_limits() -> None:
    approved = decide(intent(), healthy(), LIMITS, FixedClock(NOW))
    assert isinstance(approved, Approved)
    assert approved.limits_used
    assert decision_from(decision_bytes(approved)) == replace(approved, limits_used=())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"null", b'{"approved": 1}', b'{"intent_id": "x", "bot": 5}'])
def test_garbage_is_an_error(data: bytes) -> None:
    for read in (intent_from, decision_from, settlement_from):
        with pytest.raises(OrderError):
            read(data)  # type: ignore[operator]
