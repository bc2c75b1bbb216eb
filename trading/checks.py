"""The rules that are yes or no; each takes a `Question` and answers with an objection in words, or None.

They are asked in the order of `trading.rulebook.Rule`: what a rule reads, the rules before it have made sure of.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeAlias

from trading.question import Question
from trading.rulebook import Rule
from trading.state import TradingState

Check: TypeAlias = Callable[[Question], str | None]
PAIR = re.compile(r"[A-Za-z0-9]{1,20}/[A-Za-z0-9]{2,10}(:[A-Za-z0-9]{2,10})?")
LONGEST_TIMEFRAME_MS = 7 * 86_400_000


def _good(number: Any) -> bool:
    """A finite number above 0; never a boolean or a text."""
    return type(number) in (float, int) and 0 < number < math.inf


def _whole(number: Any) -> bool:
    return type(number) is int and number >= 0


def _bad_numbers(ask: Question) -> str | None:  # noqa: PLR0911 - one return a kind of number
    intent = ask.intent
    for name in ("intent_id", "bot", "account", "venue"):
        if not isinstance(getattr(intent, name), str) or not getattr(intent, name):
            return f"{name} is {getattr(intent, name)!r}"
    if not isinstance(intent.pair, str) or PAIR.fullmatch(intent.pair) is None:
        return f"pair is {intent.pair!r}, wanted like BTC/USDT"
    if intent.side not in ("buy", "sell") or intent.action != "entry":
        return f"side is {intent.side!r} and action {intent.action!r}"
    for name in ("amount", "price", "timeframe_ms"):
        if not _good(getattr(intent, name)):
            return f"{name} is {getattr(intent, name)!r}"
    if intent.stop_price is not None and not _good(intent.stop_price):  # NO_STOP speaks of a missing stop
        return f"stop_price is {intent.stop_price!r}"
    for name in ("created_ms", "candle_ms"):
        if not _whole(getattr(intent, name)):
            return f"{name} is {getattr(intent, name)!r}"
    if intent.timeframe_ms > LONGEST_TIMEFRAME_MS:
        return f"timeframe is {intent.timeframe_ms!r} ms"
    return _bad_forecast(ask)


def _bad_forecast(ask: Question) -> str | None:
    forecast = ask.intent.forecast
    if forecast is None:
        return None
    if not _whole(forecast.as_of_ms):
        return f"the forecast's as_of_ms is {forecast.as_of_ms!r}"
    if not isinstance(forecast.edge, (int, float)) or not math.isfinite(forecast.edge):
        return f"the forecast's edge is {forecast.edge!r}"
    return None if _good(forecast.sigma) else f"the forecast's sigma is {forecast.sigma!r}"


def _halted(ask: Question) -> str | None:
    latch = ask.book.latch
    return f"halted by {latch.who}: {latch.reason}" if latch.state is TradingState.HALTED else None


def _reducing(ask: Question) -> str | None:
    latch = ask.book.latch
    return None if latch.state is TradingState.ACTIVE else f"set to {latch.state} by {latch.who}: {latch.reason}"


def _account_unknown(ask: Question) -> str | None:
    account, venue = ask.intent.account, ask.limits.accounts.get(ask.intent.account)
    if venue is None:
        return f"account {account} is not configured"
    return None if venue == ask.intent.venue else f"account {account} lives at {venue}, not at {ask.intent.venue}"


def _pair_unknown(ask: Question) -> str | None:
    pairs = ask.limits.pairs
    return f"{ask.intent.pair} is not tradable here" if pairs and ask.intent.pair not in pairs else None


def _lease(ask: Question) -> str | None:
    lease = ask.book.leases.get(ask.intent.account)
    if lease is None:
        return f"nobody holds the lease of {ask.intent.account}"
    if lease.epoch != ask.intent.lease_epoch:
        return f"the intent carries epoch {ask.intent.lease_epoch}, {lease.holder} holds epoch {lease.epoch}"
    return None if lease.live(ask.now_ms) else f"the lease ended {ask.now_ms - lease.expires_ms} ms ago"


def _report_missing(ask: Question) -> str | None:
    if ask.intent.account not in ask.book.accounts:
        return f"{ask.intent.account} has not reported"
    ask.look_up()
    return None


def _mismatch(ask: Question) -> str | None:
    report = ask.view.report
    return (report.mismatch_text or "the bot reports a mismatch") if report.mismatch else None


def _clock_skew(ask: Question) -> str | None:
    intent, now_ms, allowed = ask.intent, ask.now_ms, ask.limits.max_clock_skew_ms
    if abs(now_ms - intent.created_ms) > allowed:
        return f"made at {intent.created_ms} ms, our clock says {now_ms} ms"
    latest = now_ms + allowed
    if intent.candle_ms + intent.timeframe_ms > latest:
        return f"the candle is dated {intent.candle_ms + intent.timeframe_ms - now_ms} ms in the future"
    if ask.view.report.as_of_ms > latest:
        return f"the report is dated {ask.view.report.as_of_ms - now_ms} ms in the future"
    if intent.forecast is not None and intent.forecast.as_of_ms + intent.timeframe_ms > latest:
        return f"the forecast is dated {intent.forecast.as_of_ms + intent.timeframe_ms - now_ms} ms in the future"
    return None


def _forecast_missing(ask: Question) -> str | None:
    if ask.intent.forecast is not None or ask.intent.bot in ask.limits.rule_bots:
        return None
    return f"{ask.intent.bot} is not listed among the bots that trade without forecasts"


def _model_shadow(ask: Question) -> str | None:
    forecast = ask.intent.forecast
    if forecast is None or forecast.status == "champion":
        return None
    venue = ask.limits.accounts[ask.intent.account]
    if venue not in ask.limits.play_money_venues:
        return f"{forecast.model} is {forecast.status} and {venue} is real money"
    if not ask.limits.shadow_trades_play_money:
        return f"{forecast.model} is {forecast.status}, and trading play money is not enabled"
    return None


def _edge_below_cost(ask: Question) -> str | None:
    forecast = ask.intent.forecast
    if forecast is None or forecast.edge >= ask.limits.min_edge:
        return None
    return f"edge {forecast.edge:.5f} is below {ask.limits.min_edge:.5f}"


def _duplicate(ask: Question) -> str | None:
    wanted = ask.intent.intent_id
    return f"{wanted} was approved before" if wanted in ask.book.recent else None


def _unsettled(ask: Question) -> str | None:
    account, pair = ask.intent.account, ask.intent.pair
    for held in ask.book.reservations.values():
        if held.settled_ms is None and held.pair == pair and held.account == account:
            return f"{held.reservation_id} waits for its outcome since {ask.now_ms - held.created_ms} ms"
    return None


def _short_not_allowed(ask: Question) -> str | None:
    forbidden = ask.intent.side == "sell" and ask.limits.accounts[ask.intent.account] not in ask.limits.short_venues
    return f"{ask.intent.venue} does not allow short entries" if forbidden else None


def _no_stop(ask: Question) -> str | None:
    intent, stop = ask.intent, ask.intent.stop_price
    if stop is None:
        return "no stop price"
    losing = stop < intent.price if intent.side == "buy" else stop > intent.price
    return None if losing else f"a stop at {stop} does not protect a {intent.side} at {intent.price}"


def _unprotected(ask: Question) -> str | None:
    bare = [held.pair for held in ask.view.report.positions if not held.stop and held.amount > 0]
    return f"no stop on {', '.join(bare)}" if bare else None


def _notional_min(ask: Question) -> str | None:
    least = ask.limits.min_notional
    return None if ask.notional >= least else f"{ask.notional:.8g} is below {least:.8g}"


CHECKS: dict[Rule, Check] = {
    Rule.BAD_NUMBERS: _bad_numbers,
    Rule.STATE_HALTED: _halted,
    Rule.STATE_REDUCING: _reducing,
    Rule.ACCOUNT_UNKNOWN: _account_unknown,
    Rule.PAIR_UNKNOWN: _pair_unknown,
    Rule.LEASE: _lease,
    Rule.REPORT_MISSING: _report_missing,
    Rule.MISMATCH: _mismatch,
    Rule.CLOCK_SKEW: _clock_skew,
    Rule.FORECAST_MISSING: _forecast_missing,
    Rule.MODEL_SHADOW: _model_shadow,
    Rule.EDGE_BELOW_COST: _edge_below_cost,
    Rule.DUPLICATE: _duplicate,
    Rule.UNSETTLED: _unsettled,
    Rule.SHORT_NOT_ALLOWED: _short_not_allowed,
    Rule.NO_STOP: _no_stop,
    Rule.UNPROTECTED: _unprotected,
    Rule.NOTIONAL_MIN: _notional_min,
}
