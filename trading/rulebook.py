"""The closed list of reasons for which an entry is refused, in the order in which they are asked."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Rule(StrEnum):
    """A code and its meaning in one sentence. Codes are part of the journal and of metrics: never reuse one."""

    meaning: str

    def __new__(cls, code: str, meaning: str) -> Self:
        """A member that is its code and carries its meaning."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    JOURNAL = "JOURNAL", "the journal cannot be written; nothing is allowed that could be forgotten"
    BAD_NUMBERS = "BAD_NUMBERS", "a number is missing, NaN, infinite, negative or zero, or the pair is malformed"
    STATE_HALTED = "STATE_HALTED", "trading is halted"
    STATE_REDUCING = "STATE_REDUCING", "trading is reducing: positions are only closed"
    ACCOUNT_UNKNOWN = "ACCOUNT_UNKNOWN", "the account is not configured, or lives at another venue"
    PAIR_UNKNOWN = "PAIR_UNKNOWN", "the pair is not among the tradable ones"
    LEASE = "LEASE", "the bot does not hold the account's live lease under the current epoch"
    REPORT_MISSING = "REPORT_MISSING", "the account has not reported yet"
    REPORT_STALE = "REPORT_STALE", "the account's last report is too old"
    MISMATCH = "MISMATCH", "the bot's books and the exchange disagree"
    CLOCK_SKEW = "CLOCK_SKEW", "the bot's clock and ours differ too much, or something is dated in the future"
    DATA_STALE = "DATA_STALE", "the newest candle behind the decision is too old"
    FORECAST_MISSING = "FORECAST_MISSING", "a bot that trades by forecasts sent none"
    FORECAST_STALE = "FORECAST_STALE", "the forecast is too old"
    MODEL_SHADOW = "MODEL_SHADOW", "the model is not the champion, and it may not trade play money here"
    EDGE_BELOW_COST = "EDGE_BELOW_COST", "the expected return net of costs is below the required edge"
    DUPLICATE = "DUPLICATE", "this very intent was approved before"
    UNSETTLED = "UNSETTLED", "an earlier order on this account and pair is not settled yet"
    SHORT_NOT_ALLOWED = "SHORT_NOT_ALLOWED", "the venue does not let an entry sell"
    NO_STOP = "NO_STOP", "the entry has no protective stop on the losing side of its price"
    UNPROTECTED = "UNPROTECTED", "an open position of the account has no stop"
    PRICE_COLLAR = "PRICE_COLLAR", "the price is too far from the last reported mark, or there is no mark"
    STOP_DISTANCE = "STOP_DISTANCE", "the stop is too far from the price"
    NOTIONAL_MIN = "NOTIONAL_MIN", "the order is too small"
    NOTIONAL_MAX = "NOTIONAL_MAX", "the order is too large"
    FREE_BALANCE = "FREE_BALANCE", "free money does not cover the order and what is reserved"
    TRADE_RISK = "TRADE_RISK", "the loss at the stop would be too large a part of equity"
    VOLATILITY_TARGET = "VOLATILITY_TARGET", "the forecast's own volatility would move too large a part of equity"
    POSITION_LIMIT = "POSITION_LIMIT", "the position in the pair would be too large a part of equity"
    ASSET_LIMIT = "ASSET_LIMIT", "the asset's exposure over all accounts would be too large"
    GROSS_EXPOSURE = "GROSS_EXPOSURE", "the account's whole exposure would be too large a part of its equity"
    NET_EXPOSURE = "NET_EXPOSURE", "longs less shorts over all accounts would lean too far to one side"
    LEVERAGE = "LEVERAGE", "the exposure of all accounts would be too large a part of all equity"
    CORRELATED_EXPOSURE = "CORRELATED_EXPOSURE", "positions that fall together would be too large"
    EXPECTED_SHORTFALL = "EXPECTED_SHORTFALL", "a bad day would cost too large a part of the account's equity"
    OPEN_POSITIONS = "OPEN_POSITIONS", "too many pairs are open on the account"
    ORDER_RATE = "ORDER_RATE", "too many entries on this account lately"
    PAIR_RATE = "PAIR_RATE", "too many entries on this pair lately"
    VOLATILITY_REGIME = "VOLATILITY_REGIME", "the asset moves far more wildly than it usually does"
    EXCHANGE_ERRORS = "EXCHANGE_ERRORS", "too many of the bot's latest calls to the exchange failed"
    DRAWDOWN = "DRAWDOWN", "the loss from the account's peak equity is too large"
    DAILY_LOSS = "DAILY_LOSS", "the account has lost too much since the UTC day began"
    LOSING_STREAK = "LOSING_STREAK", "too many trades lost in a row"
    PORTFOLIO_STOP = "PORTFOLIO_STOP", "all accounts together have lost too much since their peak; everything is closed"
    PORTFOLIO_TAKE = "PORTFOLIO_TAKE", "all accounts together have gained what was wanted; everything is closed"


def rules_table() -> str:
    """The rules as a Markdown table, in order; docs/risk-rules.md holds exactly this text, and a test checks it."""
    lines = ["| # | Code | An entry is refused when |", "|---|---|---|"]
    lines += [f"| {number} | `{rule}` | {rule.meaning} |" for number, rule in enumerate(Rule, start=1)]
    return "\n".join(lines) + "\n"
