"""A healthy little system at one instant, from which a test bends exactly one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trading.book import Book, apply, replay
from trading.events import AccountReport, Decided, Event, LeaseChanged, Position, Reported, StateChanged
from trading.lease import Lease
from trading.limits import RiskLimits
from trading.orders import Approved, ForecastRef, OrderIntent
from trading.state import Cause, Latch, TradingState

NOW = 1_700_000_100_000
CANDLE = 900_000
MARKS = {"BTC/USDT": 50_000.0, "ETH/USDT": 2_000.0, "SOL/USDT": 100.0, "XRP/USDT": 0.5, "DOGE/USDT": 0.1}
LIMITS = RiskLimits(accounts={"acc": "binance", "toy": "sandbox"}, rule_bots=frozenset({"swing"}), min_shrink=1.0)
ACTIVE = Latch(TradingState.ACTIVE, Cause.RECONCILED, "system", "agreed", NOW)
FORECAST = ForecastRef(NOW - CANDLE, "mtst:7", "champion", 0.004, 0.01)


def report(account: str = "acc", **changes: Any) -> AccountReport:
    base = AccountReport(account, "nn", 1, NOW, 10_000.0, 10_000.0, (), dict(MARKS))
    return replace(base, **changes)


def position(pair: str = "ETH/USDT", notional: float = 500.0, stop: float | None = 1.0) -> Position:
    return Position(pair, "long", notional / MARKS[pair], MARKS[pair], MARKS[pair], stop)


def healthy(**changes: Any) -> Book:
    """Two accounts, both reported a moment ago and leased under epoch 1; trading is active."""
    events: list[Event] = [StateChanged(ACTIVE)]
    for account in ("acc", "toy"):
        events += [LeaseChanged(Lease(account, "nn", 1, NOW + 60_000)), Reported(report(account))]
    return replace(replay(events), **changes)


def with_report(book: Book | None = None, **changes: Any) -> Book:
    return apply(healthy() if book is None else book, Reported(report(**changes)))


def intent(**changes: Any) -> OrderIntent:
    """An entry that every rule passes: 500 USDT of BTC with a stop 2 % below."""
    base = OrderIntent(
        intent_id="i-1",
        bot="nn",
        account="acc",
        venue="binance",
        pair="BTC/USDT",
        side="buy",
        action="entry",
        amount=0.01,
        price=50_000.0,
        stop_price=49_000.0,
        lease_epoch=1,
        created_ms=NOW,
        candle_ms=NOW - CANDLE,
        forecast=FORECAST,
        timeframe_ms=CANDLE,
    )
    return replace(base, **changes)


def approved(number: int, pair: str = "ETH/USDT", at_ms: int = NOW, notional: float = 100.0) -> Decided:
    """An approved entry as an event, reservation r-old-<number>."""
    old = intent(intent_id=f"old-{number}", pair=pair, price=MARKS[pair], amount=notional / MARKS[pair])
    return Decided(old, Approved(old.intent_id, f"r-{old.intent_id}", old.amount, old.price), at_ms)
