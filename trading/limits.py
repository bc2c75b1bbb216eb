"""Every number that bounds what the bots may do, in one frozen value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from observability.errors import SettingsError
from trading.orders import to_plain

MINUTE_MS = 60_000
DAY_MS = 1_440 * MINUTE_MS


@dataclass(frozen=True)
class RiskLimits:
    """Limits of the risk manager; the defaults are cautious and no account exists until it is named.

    Attributes:
        accounts: account -> venue; the venue is taken from here, never from a bot's word.
        play_money_venues: venues where nothing real can be lost.
        shadow_trades_play_money: an unproven (shadow) model may enter there, and nowhere else.
        rule_bots: bots that trade by plain rules and so need no forecast.
        short_venues: venues where an entry may sell.
        pairs: tradable pairs; empty means any.
        min_edge: least expected return net of costs of a forecast-driven entry.
        min_notional, max_notional: bounds of one order, quote currency.
        price_collar: largest distance of an order's price from the last reported mark, as a fraction.
        max_stop_distance: largest distance of the stop from the price, as a fraction.
        max_trade_risk: loss at the stop of one trade, as a fraction of equity.
        max_trade_sigma: notional times the forecast's sigma, as a fraction of equity: what one standard deviation over
            the traded horizon would move.
        min_shrink: an entry that a limit on size would cut is cut, but not below this fraction of what was asked.
        max_position, max_gross: notional of one pair, and of all, as fractions of the account's equity.
        max_asset: notional of one base asset over all accounts, as a fraction of all their equity.
        max_net: longs less shorts of all accounts, as a fraction of all their equity.
        max_leverage: notional of everything over all accounts, as a fraction of all their equity.
        max_correlated: volatility-like exposure sqrt(w' C w) of an account, w in fractions of equity, C estimated
            from stored candles (`trading.market`) where it is known and not older than `max_market_age_ms`.
        correlation: assumed between any two assets elsewhere; crypto pairs fall together (0.6 to 0.9).
        max_shortfall: expected shortfall of a day at 97.5 %, as a fraction of equity; by the estimated volatilities,
            elsewhere by `daily_sigma`.
        max_volatility_ratio: an asset's volatility of the last hours over its usual one.
        max_error_rate: failed ones among a bot's latest calls to its exchange.
        portfolio_stop: loss of all accounts together from their peak; everything is then closed.
        portfolio_take: gain of all accounts together since the start or the last rebase, after which everything is
            closed.
        max_open_positions: pairs held or reserved on an account.
        max_entries, entries_window_ms: approved entries of an account within that time.
        max_pair_entries, pair_entries_window_ms: the same for one pair; stops churn around a stop-loss.
        max_drawdown, max_daily_loss, max_losing_streak: breakers; the first halts, the others set to reducing.
        max_mismatches: reports in a row whose books disagree, after which only a person opens trading again.
        max_data_age_ms, max_forecast_age_ms: since the close of the newest candle, or of the forecast's candle.
        max_clock_skew_ms: between a bot's clock and ours; max_report_age_ms: since the account's last report.
        lease_ttl_ms: how long a lease lives unless renewed.
    """

    accounts: Mapping[str, str] = field(default_factory=dict)
    play_money_venues: frozenset[str] = frozenset({"sandbox", "dry-run"})
    shadow_trades_play_money: bool = False
    rule_bots: frozenset[str] = frozenset()
    short_venues: frozenset[str] = frozenset()
    pairs: frozenset[str] = frozenset()
    min_edge: float = 0.0
    min_notional: float = 10.0
    max_notional: float = 10_000.0
    price_collar: float = 0.02
    max_stop_distance: float = 0.15
    max_trade_risk: float = 0.02
    max_trade_sigma: float = 0.01
    min_shrink: float = 0.5
    max_position: float = 0.25
    max_asset: float = 0.35
    max_gross: float = 1.0
    max_net: float = 1.0
    max_leverage: float = 1.0
    max_correlated: float = 0.9
    correlation: float = 0.8
    max_market_age_ms: int = 14 * DAY_MS
    max_shortfall: float = 0.2
    daily_sigma: float = 0.06
    max_volatility_ratio: float = 4.0
    max_error_rate: float = 0.3
    max_open_positions: int = 6
    max_entries: int = 12
    entries_window_ms: int = 60 * MINUTE_MS
    max_pair_entries: int = 4
    pair_entries_window_ms: int = 60 * MINUTE_MS
    max_drawdown: float = 0.15
    max_daily_loss: float = 0.05
    max_losing_streak: int = 8
    max_mismatches: int = 10
    portfolio_stop: float = 0.2
    portfolio_take: float = 10.0
    max_data_age_ms: int = 20 * MINUTE_MS
    max_forecast_age_ms: int = 20 * MINUTE_MS
    max_clock_skew_ms: int = 5_000
    max_report_age_ms: int = 2 * MINUTE_MS
    lease_ttl_ms: int = 2 * MINUTE_MS

    def __post_init__(self) -> None:
        """Refuse limits that bound nothing: NaN, infinite or negative numbers, fractions out of range."""
        for name, value in self._numbers().items():
            if not math.isfinite(value) or (value < 0 and name != "min_edge"):
                raise SettingsError(f"limit {name} is {value}", where="risk", todo="give a finite number >= 0")
        for name in (
            "price_collar",
            "max_stop_distance",
            "max_trade_risk",
            "max_drawdown",
            "max_daily_loss",
            "portfolio_stop",
        ):
            if not 0 < getattr(self, name) < 1:
                raise SettingsError(f"limit {name} is not a fraction", where="risk", todo="give a number in (0, 1)")
        for name in ("entries_window_ms", "pair_entries_window_ms"):
            if getattr(self, name) > DAY_MS:  # the book forgets approved entries after a day
                raise SettingsError(f"limit {name} is above a day", where="risk", todo="give at most 86400000")
        for name in ("correlation", "min_shrink", "max_error_rate"):
            if getattr(self, name) > 1:
                raise SettingsError(f"{name} is above 1", where="risk", todo="give a number in [0, 1]")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return dict(to_plain(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RiskLimits:
        """Read `to_dict` or a settings table; unknown names are refused, a misspelt limit would bound nothing.

        Raises:
            SettingsError: unknown name, wrong type or impossible value.
        """
        known = {item.name: getattr(_DEFAULTS, item.name) for item in fields(cls)}
        unknown = sorted(set(data) - set(known))
        if unknown:
            raise SettingsError(f"unknown limits: {', '.join(unknown)}", where="risk", todo="see docs/risk-rules.md")
        return cls(**{name: _cast(name, value, known[name]) for name, value in data.items()})

    def _numbers(self) -> dict[str, float]:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, (int, float))}


def _cast(name: str, value: Any, like: Any) -> Any:
    """`value` in the type of the default `like`."""
    fits: bool
    match like:
        case bool():
            fits, result = isinstance(value, bool), value
        case int():
            fits, result = isinstance(value, int) and not isinstance(value, bool), value
        case float():
            fits, result = isinstance(value, (int, float)) and not isinstance(value, bool), value
        case frozenset():
            fits = isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(item, str) for item in value)
            result = frozenset(value) if fits else value
        case _:
            fits = isinstance(value, Mapping) and all(isinstance(item, str) for item in value.values())
            result = value
    if not fits:
        raise SettingsError(f"limit {name} cannot be {value!r}", where="risk", todo=f"give a {type(like).__name__}")
    return float(result) if isinstance(like, float) else dict(result) if isinstance(like, dict) else result


_DEFAULTS = RiskLimits()
