"""A close that leaps is believed when the ticker confirms it: a garbled one makes nobody rich, and ruins nobody."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from freqtrade.exceptions import TemporaryError
from freqtrade.persistence import Trade, init_db

from tests.unit.bots.bots_accounts import account
from trading.adapters.holdings import equity
from trading.adapters.marks import Marks

PAIR = "BTC/USDT"


@pytest.fixture(autouse=True)
def database() -> Iterator[None]:
    init_db("sqlite://")
    yield
    Trade.session.remove()


def _bot(last: Any) -> Any:
    """An account with a coin, at an exchange whose ticker says `last`, or fails with it."""
    bot = account(pairs=(PAIR,), USDT=900.0, BTC=1.0)

    def fetch_ticker(_pair: str) -> dict[str, Any]:
        if isinstance(last, Exception):
            raise last
        return {"last": last}

    bot.exchange.fetch_ticker = fetch_ticker
    return bot


@pytest.mark.parametrize("close", [1_000.0, 10.0])
@pytest.mark.parametrize("last", [101.0, None, math.nan, 0.0, TemporaryError("away")], ids=str)
def test_a_leap_that_nobody_confirms_leaves_the_worth_unknown(close: float, last: Any) -> None:
    marks, bot = Marks(), _bot(last)
    assert marks.believed(_bot(100.5), {PAIR: 100.0}) == {PAIR: 100.0}
    assert equity(bot, marks.believed(bot, {PAIR: close})) is None
    assert equity(bot, marks.believed(bot, {PAIR: 103.0})) == 1_003.0, "the next sane close counts again"


@pytest.mark.parametrize("close", [1_000.0, 50.0])
def test_a_real_crash_or_rally_gets_through_at_once(close: float) -> None:
    marks, bot = Marks(), _bot(close * 1.01)
    marks.believed(_bot(100.0), {PAIR: 100.0})
    assert equity(bot, marks.believed(bot, {PAIR: close})) == 900.0 + close
    assert marks.believed(_bot(None), {PAIR: close}) == {PAIR: close}, "and is the measure of the next one"


def test_usual_moves_ask_nobody() -> None:
    marks, bot = Marks(), _bot(AssertionError("asked"))
    marks.believed(_bot(101.0), {PAIR: 100.0})
    for close in (115.0, 97.0):
        assert marks.believed(bot, {PAIR: close}) == {PAIR: close}


def test_a_leap_of_what_is_not_held_hides_no_worth() -> None:
    marks, bot = Marks(), _bot(None)
    marks.believed(_bot(100.0), {PAIR: 100.0, "ETH/USDT": 10.0})
    assert equity(bot, marks.believed(bot, {PAIR: 100.0, "ETH/USDT": 99.0})) == 1_000.0


@pytest.mark.parametrize("last", [101.0, None, TemporaryError("away")], ids=str)
@pytest.mark.parametrize("close", [1_000.0, 10.0])
def test_a_garbled_first_close_after_a_start_is_no_worth_either(close: float, last: Any) -> None:
    marks = Marks()
    assert equity(_bot(last), marks.believed(_bot(last), {PAIR: close})) is None
    assert marks.believed(_bot(100.5), {PAIR: 100.0}) == {PAIR: 100.0}


def test_a_first_close_of_what_is_not_held_asks_nobody() -> None:
    assert Marks().believed(_bot(AssertionError("asked")), {"ETH/USDT": 10.0}) == {"ETH/USDT": 10.0}
