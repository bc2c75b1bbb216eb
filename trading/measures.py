"""The rules that are numbers: what an entry would use of a limit, and the limit. An entry passes while used <= limit.

Each function takes a `Question` that was looked up (the account is known and has reported, the numbers are finite) and
returns (used, limit). Anything that cannot be measured is infinite. Those of `SIZEABLE` grow with the entry's size and
are convex in it, so that a smaller entry may pass where the one asked for does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from trading.market import SHORTFALL_SIGMAS, spread_of
from trading.question import Question
from trading.rulebook import Rule

Measure: TypeAlias = Callable[[Question], tuple[float, float]]


def correlated_exposure(weights: list[float], correlation: float) -> float:
    """sqrt(w' C w) for one common correlation: sqrt((1 - rho) sum w_i^2 + rho (sum w_i)^2)."""
    squares = sum(weight * weight for weight in weights)
    return math.sqrt((1.0 - correlation) * squares + correlation * sum(weights) ** 2)


def _report_age(ask: Question) -> tuple[float, float]:
    return ask.now_ms - ask.view.report.as_of_ms, ask.limits.max_report_age_ms


def _data_age(ask: Question) -> tuple[float, float]:
    return ask.now_ms - (ask.intent.candle_ms + ask.intent.timeframe_ms), ask.limits.max_data_age_ms


def _forecast_age(ask: Question) -> tuple[float, float]:
    forecast = ask.intent.forecast
    if forecast is None:  # FORECAST_MISSING has let a bot of plain rules through
        return 0.0, ask.limits.max_forecast_age_ms
    return ask.now_ms - (forecast.as_of_ms + ask.intent.timeframe_ms), ask.limits.max_forecast_age_ms


def _collar(ask: Question) -> tuple[float, float]:
    mark = ask.view.report.marks.get(ask.intent.pair)
    return (math.inf if mark is None else abs(ask.intent.price / mark - 1.0)), ask.limits.price_collar


def _stop_distance(ask: Question) -> tuple[float, float]:
    return _to_stop(ask), ask.limits.max_stop_distance


def _notional(ask: Question) -> tuple[float, float]:
    return ask.notional, ask.limits.max_notional


def _money(ask: Question) -> tuple[float, float]:
    account = ask.intent.account
    reserved = 0.0
    for kept in ask.book.reservations.values():
        if kept.account == account:
            reserved += kept.amount * kept.price
    return reserved + ask.notional, ask.view.report.free


def _trade_risk(ask: Question) -> tuple[float, float]:
    return ask.notional * _to_stop(ask), ask.limits.max_trade_risk * ask.equity


def _trade_sigma(ask: Question) -> tuple[float, float]:
    forecast = ask.intent.forecast
    return (0.0 if forecast is None else ask.notional * forecast.sigma), ask.limits.max_trade_sigma * ask.equity


def _position(ask: Question) -> tuple[float, float]:
    return ask.pair_held + ask.notional, ask.limits.max_position * ask.equity


def _asset(ask: Question) -> tuple[float, float]:
    return ask.assets.get(ask.asset, 0.0) + ask.notional, ask.limits.max_asset * ask.everything


def _gross(ask: Question) -> tuple[float, float]:
    return ask.gross + ask.notional, ask.limits.max_gross * ask.equity


def _net(ask: Question) -> tuple[float, float]:
    after = ask.net + ask.sign * ask.notional
    # an entry that lowers the net exposure is welcome, however large that is
    return (abs(after) if abs(after) > abs(ask.net) else 0.0), ask.limits.max_net * ask.everything


def _leverage(ask: Question) -> tuple[float, float]:
    return ask.whole + ask.notional, ask.limits.max_leverage * ask.everything


def _correlated(ask: Question) -> tuple[float, float]:
    exposure = spread_of(ask.weights(), ask.market, ask.limits.correlation)
    return exposure, ask.limits.max_correlated * ask.equity


def _shortfall(ask: Question) -> tuple[float, float]:
    sigma, usual = ask.market.sigma, ask.limits.daily_sigma
    moves = {asset: weight * sigma.get(asset, usual) for asset, weight in ask.weights().items()}
    lost = SHORTFALL_SIGMAS * spread_of(moves, ask.market, ask.limits.correlation)
    return lost, ask.limits.max_shortfall * ask.equity


def _open(ask: Question) -> tuple[float, float]:
    return ask.open_pairs(), ask.limits.max_open_positions


def _rate(ask: Question) -> tuple[float, float]:
    limits = ask.limits
    count = ask.book.recent.count(ask.now_ms - limits.entries_window_ms, ask.intent.account)
    return count + 1, limits.max_entries


def _pair_rate(ask: Question) -> tuple[float, float]:
    limits, intent = ask.limits, ask.intent
    count = ask.book.recent.count(ask.now_ms - limits.pair_entries_window_ms, intent.account, intent.pair)
    return count + 1, limits.max_pair_entries


def _volatility(ask: Question) -> tuple[float, float]:
    stat = ask.book.marks.get(ask.intent.pair)
    ratio = 0.0 if stat is None else stat.ratio(ask.market.sigma.get(ask.asset))
    return ratio, ask.limits.max_volatility_ratio


def _exchange_errors(ask: Question) -> tuple[float, float]:
    return ask.view.report.error_rate, ask.limits.max_error_rate


def _drawdown(ask: Question) -> tuple[float, float]:
    return ask.view.drawdown, ask.limits.max_drawdown


def _daily_loss(ask: Question) -> tuple[float, float]:
    return ask.view.daily_loss, ask.limits.max_daily_loss


def _streak(ask: Question) -> tuple[float, float]:
    return ask.view.losses_in_a_row, ask.limits.max_losing_streak


def _portfolio_stop(ask: Question) -> tuple[float, float]:
    peak = ask.book.peak_total
    return (0.0 if peak <= 0 else 1.0 - ask.everything / peak), ask.limits.portfolio_stop


def _portfolio_take(ask: Question) -> tuple[float, float]:
    return ask.book.gained, ask.limits.portfolio_take


def _to_stop(ask: Question) -> float:
    """Distance of the stop from the price, as a fraction."""
    intent = ask.intent
    return math.inf if intent.stop_price is None else abs(intent.price - intent.stop_price) / intent.price


MEASURES: dict[Rule, Measure] = {
    Rule.REPORT_STALE: _report_age,
    Rule.DATA_STALE: _data_age,
    Rule.FORECAST_STALE: _forecast_age,
    Rule.PRICE_COLLAR: _collar,
    Rule.STOP_DISTANCE: _stop_distance,
    Rule.NOTIONAL_MAX: _notional,
    Rule.FREE_BALANCE: _money,
    Rule.TRADE_RISK: _trade_risk,
    Rule.VOLATILITY_TARGET: _trade_sigma,
    Rule.POSITION_LIMIT: _position,
    Rule.ASSET_LIMIT: _asset,
    Rule.GROSS_EXPOSURE: _gross,
    Rule.NET_EXPOSURE: _net,
    Rule.LEVERAGE: _leverage,
    Rule.CORRELATED_EXPOSURE: _correlated,
    Rule.EXPECTED_SHORTFALL: _shortfall,
    Rule.OPEN_POSITIONS: _open,
    Rule.ORDER_RATE: _rate,
    Rule.PAIR_RATE: _pair_rate,
    Rule.VOLATILITY_REGIME: _volatility,
    Rule.EXCHANGE_ERRORS: _exchange_errors,
    Rule.DRAWDOWN: _drawdown,
    Rule.DAILY_LOSS: _daily_loss,
    Rule.LOSING_STREAK: _streak,
    Rule.PORTFOLIO_STOP: _portfolio_stop,
    Rule.PORTFOLIO_TAKE: _portfolio_take,
}
SIZEABLE: frozenset[Rule] = frozenset(
    {
        Rule.NOTIONAL_MAX,
        Rule.FREE_BALANCE,
        Rule.TRADE_RISK,
        Rule.VOLATILITY_TARGET,
        Rule.POSITION_LIMIT,
        Rule.ASSET_LIMIT,
        Rule.GROSS_EXPOSURE,
        Rule.NET_EXPOSURE,
        Rule.LEVERAGE,
        Rule.CORRELATED_EXPOSURE,
        Rule.EXPECTED_SHORTFALL,
    }
)
