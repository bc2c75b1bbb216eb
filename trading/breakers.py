"""When too much was lost, the trading state moves by itself, always towards halted; only a person moves it back.

The rules of the same names would refuse entries, too, but only until the figure has recovered.
"""

from __future__ import annotations

from trading.book import AccountView, Book
from trading.events import AccountReport
from trading.limits import RiskLimits
from trading.rulebook import Rule
from trading.state import Cause, Latch, TradingState, flattening, tighten


def after_breakers(book: Book, limits: RiskLimits, view: AccountView, now_ms: int) -> Latch:
    """The latch after every breaker has looked at one account, and at all of them together."""
    latch, name = _portfolio(book, limits, view.report, now_ms), view.report.account
    trips = (
        (Rule.DRAWDOWN, view.drawdown, limits.max_drawdown, TradingState.HALTED),
        (Rule.DAILY_LOSS, view.daily_loss, limits.max_daily_loss, TradingState.REDUCING),
        (Rule.LOSING_STREAK, view.losses_in_a_row, limits.max_losing_streak, TradingState.REDUCING),
        (Rule.MISMATCH, view.mismatches, limits.max_mismatches, TradingState.REDUCING),
    )
    for rule, used, limit, state in trips:
        if not used <= limit:  # NaN trips, too
            text = f"{rule} of {name}: {used:.6g} exceeds {limit:.6g}"
            latch = tighten(latch, state, Cause.LIMIT, who=rule.value, reason=text, now_ms=now_ms)
    return latch


def _portfolio(book: Book, limits: RiskLimits, report: AccountReport, now_ms: int) -> Latch:
    """Have everything closed when all accounts together lost or gained enough, or one saw so by itself."""
    rule, text = Rule.PORTFOLIO_STOP, ""
    if report.stopped:
        text = f"{report.bot} closed by itself: {report.stopped}"
    elif not book.lost <= limits.portfolio_stop:
        text = f"all accounts lost {book.lost:.6g} of their peak, above {limits.portfolio_stop:.6g}"
    elif not book.gained <= limits.portfolio_take:
        rule = Rule.PORTFOLIO_TAKE
        text = f"all accounts gained {book.gained:.6g}, above {limits.portfolio_take:.6g}"
    if not text or book.latch.flatten:
        return book.latch
    return flattening(book.latch, rule.value, text, now_ms, Cause.LIMIT)
