"""Every rule has cases that fire it and the healthy intent that leaves it silent; nothing else may fire."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.unit.trading.trading_makers import (
    ACTIVE,
    CANDLE,
    FORECAST,
    LIMITS,
    NOW,
    approved,
    healthy,
    intent,
    position,
    report,
    with_report,
)
from trading.book import Book, apply, replay
from trading.checks import CHECKS
from trading.clock import FixedClock
from trading.events import Fill, Reported, Settled
from trading.limits import RiskLimits
from trading.market import MarketRisk, MarkStat, pair_key
from trading.measures import MEASURES, SIZEABLE
from trading.orders import Approved, OrderIntent, Refused
from trading.risk import RULES, Rule, decide
from trading.rulebook import rules_table
from trading.state import TradingState


@dataclass(frozen=True)
class Case:
    rule: Rule
    name: str
    intent: OrderIntent
    book: Book | None = None
    limits: RiskLimits = LIMITS


def loser(**changes: float) -> Book:
    return with_report(**changes)


def streak(losses: int) -> Book:
    fills = [Fill("acc", "nn", f"o{n}", "ETH/USDT", "sell", 1.0, 1.0, NOW, profit=-1.0) for n in range(losses)]
    return replay(fills, healthy())


def recent(count: int, pair: str, at_ms: int = NOW) -> Book:
    events = [
        event
        for n in range(count)
        for event in (approved(n, pair, at_ms), Settled(f"r-old-{n}", "cancelled", 0.0, 0.0, at_ms))
    ]
    return replay(events, healthy())


BARE = replace(FORECAST, status="shadow")
SHORTS = replace(LIMITS, short_venues=frozenset({"binance"}))
FOUR = tuple(position(pair, 2_400.0) for pair in ("ETH/USDT", "SOL/USDT", "XRP/USDT", "DOGE/USDT"))
ASSETS = ("BTC", "DOGE", "ETH", "SOL", "XRP")
LOOSE = MarketRisk(
    NOW, dict.fromkeys(ASSETS, 0.02), {pair_key(a, b): (-0.1, 0.1) for a in ASSETS for b in ASSETS if a < b}, 5_000
)
WIDE = replace(LIMITS, max_gross=2.0, max_shortfall=0.9)
TOY = {"account": "toy", "venue": "sandbox"}
STALE = NOW - 30 * 60_000
CASES = [
    *(Case(Rule.BAD_NUMBERS, f"amount {bad}", intent(amount=bad)) for bad in (math.nan, math.inf, -1.0, 0.0)),
    *(Case(Rule.BAD_NUMBERS, f"price {bad}", intent(price=bad)) for bad in (math.nan, -math.inf, 0.0)),
    *(Case(Rule.BAD_NUMBERS, f"stop {bad}", intent(stop_price=bad)) for bad in (math.nan, -5.0)),
    *(Case(Rule.BAD_NUMBERS, f"pair {bad}", intent(pair=bad)) for bad in ("", "BTC-USDT", "BTC/USDT/X", "B C/U")),
    *(
        Case(Rule.BAD_NUMBERS, f"sigma {bad}", intent(forecast=replace(FORECAST, sigma=bad)))
        for bad in (math.nan, 0.0, -0.1)
    ),
    Case(Rule.BAD_NUMBERS, "edge NaN", intent(forecast=replace(FORECAST, edge=math.nan))),
    Case(Rule.BAD_NUMBERS, "timeframe of a year", intent(timeframe_ms=365 * 86_400_000)),
    Case(Rule.BAD_NUMBERS, "no bot", intent(bot="")),
    Case(Rule.BAD_NUMBERS, "side", intent(side="long")),
    Case(Rule.BAD_NUMBERS, "action", intent(action="maybe")),
    Case(Rule.BAD_NUMBERS, "amount is text", intent(amount="1")),
    Case(Rule.BAD_NUMBERS, "time is text", intent(created_ms="now")),
    Case(Rule.STATE_HALTED, "fresh book", intent(), Book()),
    Case(Rule.STATE_HALTED, "halted", intent(), healthy(latch=replace(ACTIVE, state=TradingState.HALTED))),
    Case(Rule.STATE_REDUCING, "reducing", intent(), healthy(latch=replace(ACTIVE, state=TradingState.REDUCING))),
    Case(Rule.ACCOUNT_UNKNOWN, "unknown", intent(account="other")),
    Case(Rule.ACCOUNT_UNKNOWN, "lies about its venue", intent(venue="sandbox")),
    Case(Rule.PAIR_UNKNOWN, "not listed", intent(), limits=replace(LIMITS, pairs=frozenset({"ETH/USDT"}))),
    Case(Rule.LEASE, "none", intent(), healthy(leases={})),
    Case(Rule.LEASE, "old epoch", intent(lease_epoch=0)),
    Case(Rule.LEASE, "future epoch", intent(lease_epoch=2)),
    Case(
        Rule.LEASE, "ended", intent(), healthy(leases={"acc": replace(healthy().leases["acc"], expires_ms=NOW)})
    ),
    Case(Rule.REPORT_MISSING, "never reported", intent(), healthy(accounts={})),
    Case(
        Rule.REPORT_STALE,
        "late",
        intent(),
        apply(healthy(accounts={}), Reported(report(as_of_ms=NOW - LIMITS.max_report_age_ms - 1))),
    ),
    Case(Rule.MISMATCH, "mismatch", intent(), with_report(mismatch=True)),
    Case(Rule.CLOCK_SKEW, "bot behind", intent(created_ms=NOW - LIMITS.max_clock_skew_ms - 1)),
    Case(Rule.CLOCK_SKEW, "bot ahead", intent(created_ms=NOW + LIMITS.max_clock_skew_ms + 1)),
    Case(Rule.CLOCK_SKEW, "candle still open", intent(candle_ms=NOW)),
    Case(Rule.CLOCK_SKEW, "forecast of tomorrow", intent(forecast=replace(FORECAST, as_of_ms=NOW))),
    Case(Rule.CLOCK_SKEW, "report of tomorrow", intent(), with_report(as_of_ms=NOW + 6_000)),
    Case(Rule.DATA_STALE, "old candle", intent(candle_ms=STALE - CANDLE)),
    Case(Rule.FORECAST_MISSING, "none", intent(forecast=None)),
    Case(Rule.FORECAST_STALE, "old forecast", intent(forecast=replace(FORECAST, as_of_ms=STALE - CANDLE))),
    Case(Rule.MODEL_SHADOW, "real money", intent(forecast=BARE)),
    Case(Rule.MODEL_SHADOW, "real money, play enabled", intent(forecast=BARE),
         limits=replace(LIMITS, shadow_trades_play_money=True)),
    Case(Rule.MODEL_SHADOW, "play money, not enabled", intent(forecast=BARE, **TOY)),
    Case(Rule.MODEL_SHADOW, "unknown status", intent(forecast=replace(FORECAST, status="Champion"))),
    Case(Rule.EDGE_BELOW_COST, "negative", intent(forecast=replace(FORECAST, edge=-1e-9))),
    Case(Rule.DUPLICATE, "same intent", intent(intent_id="old-0"), recent(1, "ETH/USDT")),
    Case(Rule.UNSETTLED, "open reservation", intent(), apply(healthy(), approved(0, "BTC/USDT"))),
    Case(Rule.SHORT_NOT_ALLOWED, "short on spot", intent(side="sell", stop_price=51_000.0)),
    Case(Rule.NO_STOP, "none", intent(stop_price=None)),
    Case(Rule.NO_STOP, "above a buy", intent(stop_price=51_000.0)),
    Case(Rule.NO_STOP, "at the price", intent(stop_price=50_000.0)),
    Case(Rule.NO_STOP, "below a sell", intent(side="sell"), limits=SHORTS),
    Case(Rule.UNPROTECTED, "bare position", intent(), with_report(positions=(position(stop=None),))),
    Case(Rule.UNPROTECTED, "stop at zero", intent(), with_report(positions=(position(stop=0.0),))),
    Case(Rule.PRICE_COLLAR, "above", intent(price=51_100.0)),
    Case(Rule.PRICE_COLLAR, "below", intent(price=48_900.0, stop_price=48_000.0)),
    Case(Rule.PRICE_COLLAR, "no mark", intent(), with_report(marks={})),
    Case(Rule.STOP_DISTANCE, "far", intent(stop_price=40_000.0)),
    Case(Rule.NOTIONAL_MIN, "dust", intent(amount=0.0001)),
    Case(Rule.NOTIONAL_MAX, "huge", intent(), limits=replace(LIMITS, max_notional=499.0)),
    Case(Rule.FREE_BALANCE, "not enough", intent(), with_report(free=499.0)),
    Case(Rule.FREE_BALANCE, "reserved elsewhere", intent(),
         apply(with_report(free=599.0), approved(0, "ETH/USDT", notional=100.0))),
    Case(Rule.TRADE_RISK, "stop costs too much", intent(), limits=replace(LIMITS, max_trade_risk=0.0009)),
    Case(Rule.POSITION_LIMIT, "adds to a position", intent(), with_report(positions=(position("BTC/USDT", 2_100.0),))),
    Case(Rule.ASSET_LIMIT, "other account holds it", intent(),
         with_report(account="toy", positions=(position("BTC/USDT", 6_600.0),))),
    Case(Rule.GROSS_EXPOSURE, "all in", intent(),
         with_report(positions=FOUR)),
    Case(Rule.CORRELATED_EXPOSURE, "they fall together", intent(),
         with_report(positions=FOUR),
         replace(LIMITS, max_gross=2.0)),
    Case(Rule.OPEN_POSITIONS, "too many", intent(), with_report(positions=(position("ETH/USDT"), position("SOL/USDT"))),
         replace(LIMITS, max_open_positions=2)),
    Case(Rule.ORDER_RATE, "thirteenth this hour", intent(), recent(12, "ETH/USDT")),
    Case(Rule.PAIR_RATE, "fifth on the pair", intent(), recent(4, "BTC/USDT")),
    Case(Rule.DRAWDOWN, "16 % below the peak", intent(), loser(equity=8_400.0)),
    Case(Rule.DAILY_LOSS, "6 % today", intent(), loser(equity=9_400.0)),
    Case(Rule.LOSING_STREAK, "nine in a row", intent(), streak(9)),
    Case(Rule.VOLATILITY_TARGET, "one sigma moves 1.25 %", intent(forecast=replace(FORECAST, sigma=0.25))),
    Case(Rule.NET_EXPOSURE, "leans to one side", intent(), limits=replace(LIMITS, max_net=0.024)),
    Case(Rule.LEVERAGE, "all accounts together", intent(), with_report(account="toy", positions=FOUR),
         replace(LIMITS, max_leverage=0.5)),
    Case(Rule.EXPECTED_SHORTFALL, "a bad day by the fallback", intent(), limits=replace(LIMITS, max_shortfall=0.008)),
    Case(Rule.EXPECTED_SHORTFALL, "a bad day by the estimate", intent(),
         healthy(market=MarketRisk(NOW, {"BTC": 0.3})), replace(LIMITS, max_shortfall=0.04)),
    Case(Rule.CORRELATED_EXPOSURE, "the estimate is too old", intent(),
         with_report(healthy(market=replace(LOOSE, as_of_ms=NOW - 15 * 86_400_000)), positions=FOUR), WIDE),
    Case(Rule.VOLATILITY_REGIME, "six times its own last days", intent(),
         healthy(marks={"BTC/USDT": MarkStat(NOW, 5e4, 0.036, 0.001, 200)})),
    Case(Rule.VOLATILITY_REGIME, "five times the stored candles'", intent(),
         healthy(marks={"BTC/USDT": MarkStat(NOW, 5e4, 0.01, 0.01, 9)}, market=MarketRisk(NOW, {"BTC": 0.02}))),
    Case(Rule.EXCHANGE_ERRORS, "every third call", intent(), with_report(error_rate=0.34)),
    Case(Rule.PORTFOLIO_STOP, "both accounts together", intent(), with_report(with_report(equity=8_000.0),
         account="toy", equity=7_900.0), replace(LIMITS, max_drawdown=0.9, max_daily_loss=0.9)),
    Case(Rule.PORTFOLIO_TAKE, "enough is enough", intent(), with_report(equity=12_100.0),
         replace(LIMITS, portfolio_take=0.1)),
]  # fmt: skip
SILENT = [
    ("healthy", intent(), healthy(), LIMITS),
    ("bot of plain rules", intent(bot="swing", forecast=None), healthy(), LIMITS),
    ("shadow model with play money", intent(forecast=BARE, **TOY), healthy(),
     replace(LIMITS, shadow_trades_play_money=True)),
    ("short where allowed", intent(side="sell", stop_price=51_000.0), healthy(),
     SHORTS),
    ("listed pair", intent(), healthy(), replace(LIMITS, pairs=frozenset({"BTC/USDT"}))),
    ("reservation on another pair", intent(), apply(healthy(), approved(0, "ETH/USDT")), LIMITS),
    ("reservation on another account", intent(**TOY), apply(healthy(), approved(0, "BTC/USDT")), LIMITS),
    ("rate of an hour ago", intent(), recent(12, "ETH/USDT", NOW - 3_600_000), LIMITS),
    ("at the collar", intent(price=50_999.0), healthy(), LIMITS),
    ("last millisecond of data", intent(candle_ms=NOW - CANDLE - LIMITS.max_data_age_ms), healthy(), LIMITS),
    ("eight losses", intent(), streak(8), LIMITS),
    ("assets that hardly move together", intent(), with_report(healthy(market=LOOSE), positions=FOUR), WIDE),
    ("an entry that lowers the net exposure", intent(side="sell", stop_price=51_000.0),
     with_report(account="toy", positions=FOUR), replace(SHORTS, max_net=0.1)),
    ("three times the usual volatility", intent(),
     healthy(marks={"BTC/USDT": MarkStat(NOW, 5e4, 0.009, 0.001, 200)}), LIMITS),
    ("wild, but hardly observed", intent(), healthy(marks={"BTC/USDT": MarkStat(NOW, 5e4, 9.0, 0.001, 7)}), LIMITS),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}: {case.name}")
def test_rule_fires_with_its_own_code(case: Case) -> None:
    book = healthy() if case.book is None else case.book
    decision = decide(case.intent, book, case.limits, FixedClock(NOW))
    assert isinstance(decision, Refused)
    assert decision.code == case.rule.value, decision
    assert decision.text


@pytest.mark.parametrize(("name", "order", "book", "limits"), SILENT, ids=[row[0] for row in SILENT])
def test_rules_stay_silent(name: str, order: OrderIntent, book: Book, limits: RiskLimits) -> None:
    decision = decide(order, book, limits, FixedClock(NOW))
    assert isinstance(decision, Approved), decision
    assert decision.amount <= order.amount
    assert decision.reservation_id == f"r-{order.intent_id}"
    assert all(use.used <= use.limit for use in decision.limits_used)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}: {case.name}")
def test_exit_passes_whatever_is_wrong(case: Case) -> None:
    book = healthy() if case.book is None else case.book
    leave = replace(case.intent, action="exit", side="sell")
    decision = decide(leave, book, case.limits, FixedClock(NOW))
    assert isinstance(decision, Approved)
    assert decision.reservation_id == ""


@pytest.mark.parametrize("case", [case for case in CASES if case.rule in SIZEABLE], ids=lambda case: case.name)
def test_what_is_too_large_is_cut_to_what_fits_every_limit(case: Case) -> None:
    limits = replace(case.limits, min_shrink=1e-6, min_notional=1e-6)
    book = healthy() if case.book is None else case.book
    decision = decide(case.intent, book, limits, FixedClock(NOW))
    if isinstance(decision, Refused):
        assert decision.code == case.rule.value, "nothing of it fits"
        return
    assert 0 < decision.amount < case.intent.amount
    assert all(use.used <= use.limit for use in decision.limits_used)
    assert any(use.used > 0.999 * use.limit for use in decision.limits_used), "no more than needed is cut"
    barely = replace(limits, min_shrink=min(1.0, 1.001 * decision.amount / case.intent.amount))
    assert isinstance(decide(case.intent, book, barely, FixedClock(NOW)), Refused)


def test_every_rule_has_a_case_and_one_place_in_the_order() -> None:
    assert list(RULES) == [rule for rule in Rule if rule is not Rule.JOURNAL]
    assert {case.rule for case in CASES} == set(RULES)
    assert not set(CHECKS) & set(MEASURES)
    assert set(CHECKS) | set(MEASURES) == set(RULES)


def test_page_of_rules_is_generated(repo_root: Path) -> None:
    page = (repo_root / "docs" / "risk-rules.md").read_text(encoding="utf-8")
    assert rules_table() in page, "write trading.rulebook.rules_table() into docs/risk-rules.md"
    words = set(page.replace("`", " ").split())
    missing = [name for name in RiskLimits().to_dict() if name not in words]
    assert not missing, f"limits without a word in docs/risk-rules.md: {missing}"


def test_measures_are_asked_in_the_dark_only_after_the_account_is_known() -> None:
    """Numeric rules read the account's view; the order of rules must protect them from its absence."""
    order: Callable[[Rule], int] = RULES.index
    assert order(Rule.REPORT_MISSING) < min(order(use) for use in (Rule.REPORT_STALE, Rule.PRICE_COLLAR, Rule.DRAWDOWN))
