"""Plain trading rules as pure, causal functions of a pandas candle frame: row t knows nothing after the close of t.

Frames have `open high low close volume` (Freqtrade's layout; other columns are ignored) and keep their index. Results
are new frames on the same index with indicators and the boolean columns `entry` and `exit`; they are False while the
warm-up of `policy.warmup` rows lasts, and wherever an indicator is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from observability.errors import SettingsError, TradingError


@dataclass(frozen=True, slots=True)
class SwingPolicy:
    """Trend and pullback: with the trend, buy the return above the fast mean after a dip below it.

    Attributes:
        fast, slow: spans of the two exponential means, in candles; atr: span of the average true range.
        dip: this many closes below the fast mean make a pullback; the first close back above it is bought.
        stop_atr: the stop stands this many average true ranges below the close.
    """

    fast: int = 20
    slow: int = 80
    atr: int = 14
    dip: int = 3
    stop_atr: float = 2.5

    @property
    def warmup(self) -> int:
        """Rows before the first signal: three spans, after which 95 % of an exponential mean's weight is real."""
        return 3 * max(self.slow, self.atr)


@dataclass(frozen=True, slots=True)
class ScalpPolicy:
    """Mean reversion: buy a sharp drop below the band on high volume, unless the long trend falls too.

    Attributes:
        rsi: length of the RSI; oversold, recovered: where it enters and where it leaves.
        band: length of the Bollinger band, in candles; width: in standard deviations.
        volume_factor: volume must exceed this multiple of its mean over `band` candles before.
        trend: span of the long mean; max_below: entries stop this far below it, as a fraction.
        stop_atr: the stop stands this many average true ranges (span `rsi`) below the close.
    """

    rsi: int = 7
    oversold: float = 25.0
    recovered: float = 55.0
    band: int = 30
    width: float = 2.0
    volume_factor: float = 1.2
    trend: int = 100
    max_below: float = 0.05
    stop_atr: float = 3.0

    @property
    def warmup(self) -> int:
        """Rows before the first signal."""
        return 3 * max(self.trend, self.band)


@dataclass(frozen=True, slots=True)
class SpreadPolicy:
    """Statistical pair: the log price of A against beta times that of B returns to its mean.

    Attributes:
        window: candles of the rolling regression and of the z-score.
        enter, leave, stop: absolute z-scores that open, close and give up a spread.
        min_correlation: of the two log-return series over the window; below it nothing opens.
    """

    window: int = 200
    enter: float = 2.0
    leave: float = 0.5
    stop: float = 4.0
    min_correlation: float = 0.5


def swing_signals(candles: pd.DataFrame, policy: SwingPolicy | None = None) -> pd.DataFrame:
    """Columns: ema_fast, ema_slow, atr, stop_distance (fraction of the close), entry, exit."""
    policy = SwingPolicy() if policy is None else policy
    close = candles["close"]
    fast, slow = ema(close, policy.fast), ema(close, policy.slow)
    ranges = atr(candles, policy.atr)
    up = (fast > slow) & (slow > slow.shift(policy.fast))
    dipped = (close < fast).shift(1, fill_value=False).rolling(policy.dip).min() > 0
    back = (close > fast) & (close > candles["open"])
    result = pd.DataFrame({"ema_fast": fast, "ema_slow": slow, "atr": ranges}, index=candles.index)
    result["stop_distance"] = policy.stop_atr * ranges / close
    return _with_signals(result, up & dipped & back, (fast < slow) | (close < slow), policy.warmup)


def scalp_signals(candles: pd.DataFrame, policy: ScalpPolicy | None = None) -> pd.DataFrame:
    """Columns: rsi, band_low, band_mid, volume_ratio, stop_distance (fraction of the close), entry, exit."""
    policy = ScalpPolicy() if policy is None else policy
    close = candles["close"]
    strength = rsi(close, policy.rsi)
    mid = close.rolling(policy.band).mean()
    low = mid - policy.width * close.rolling(policy.band).std()
    ratio = candles["volume"] / candles["volume"].shift(1).rolling(policy.band).mean()
    falling = close < (1.0 - policy.max_below) * ema(close, policy.trend)
    columns = {"rsi": strength, "band_low": low, "band_mid": mid, "volume_ratio": ratio}
    result = pd.DataFrame(columns, index=candles.index)
    result["stop_distance"] = policy.stop_atr * atr(candles, policy.rsi) / close
    entry = (strength < policy.oversold) & (close < low) & (ratio > policy.volume_factor) & ~falling
    return _with_signals(result, entry, (strength > policy.recovered) | (close > mid), policy.warmup)


def spread_signals(a: pd.Series, b: pd.Series, policy: SpreadPolicy | None = None) -> pd.DataFrame:
    """Spread ln(a) - beta ln(b) of two close series on one index, as z-score over its own rolling window.

    Columns: beta, correlation, z, long_a (buy A, sell B), short_a (the reverse), exit, broken (beyond the stop: close,
    the relation no longer holds). In money, leg A weighs 1 and leg B weighs beta.

    Raises:
        TradingError: the indexes differ.
    """
    policy = SpreadPolicy() if policy is None else policy
    if not a.index.equals(b.index):
        raise TradingError("the two close series have different indexes", todo="align them on time first")
    log_a, log_b = np.log(a), np.log(b)
    beta = log_a.rolling(policy.window).cov(log_b) / log_b.rolling(policy.window).var()
    alpha = log_a.rolling(policy.window).mean() - beta * log_b.rolling(policy.window).mean()
    residual = log_a - beta * log_b - alpha
    # residual variance of the same regression, so that today's beta is not compared with yesterday's residuals
    variance = log_a.rolling(policy.window).var() - beta**2 * log_b.rolling(policy.window).var()
    z = residual / np.sqrt(variance.clip(lower=0.0).replace(0.0, np.nan))
    correlation = log_a.diff().rolling(policy.window).corr(log_b.diff())
    related = (correlation >= policy.min_correlation) & (beta > 0)
    result = pd.DataFrame({"beta": beta, "correlation": correlation, "z": z}, index=a.index)
    inside = z.abs() < policy.stop
    result["long_a"] = related & inside & (z < -policy.enter)
    result["short_a"] = related & inside & (z > policy.enter)
    result["exit"] = z.abs() < policy.leave
    result["broken"] = ~inside & z.notna()
    return result


def trend_rule(candles: pd.DataFrame) -> pd.Series:
    """Where the swing rule's fast mean stands above its slow one."""
    policy = SwingPolicy()
    return ema(candles["close"], policy.fast) > ema(candles["close"], policy.slow)


def calm_rule(candles: pd.DataFrame) -> pd.Series:
    """Where the average true range is below twice its mean over the last 96 candles."""
    ranges = atr(candles, SwingPolicy().atr) / candles["close"]
    return ranges < 2.0 * ranges.rolling(96).mean()


ENTRY_RULES: Mapping[str, Callable[[pd.DataFrame], pd.Series]] = {"trend": trend_rule, "calm": calm_rule}
"""Indicator rules that a forecast-driven strategy may ask for as well; False while their warm-up lasts."""


def entry_rules(names: Sequence[str]) -> Callable[[pd.DataFrame], pd.Series]:
    """All rules of these names together: where every one of them allows an entry; without names, everywhere.

    Raises:
        SettingsError: there is no such rule.
    """
    unknown = sorted(set(names) - set(ENTRY_RULES))
    if unknown:
        raise SettingsError(f"no rule is called {', '.join(unknown)}", todo=f"use {', '.join(ENTRY_RULES)}")
    chosen = [ENTRY_RULES[name] for name in names]

    def allowed(candles: pd.DataFrame) -> pd.Series:
        result = pd.Series(data=True, index=candles.index)
        for rule in chosen:
            result &= rule(candles)
        return result

    return allowed


def ema(values: pd.Series, span: int) -> pd.Series:
    """Exponential mean with weight 2 / (span + 1); null before `span` rows."""
    return values.ewm(span=span, adjust=False, min_periods=span).mean()


def atr(candles: pd.DataFrame, span: int) -> pd.Series:
    """Average true range in Wilder's form (weight 1 / span), in price units."""
    before = candles["close"].shift(1)
    reach = pd.concat([candles["high"], before], axis=1).max(axis=1)
    depth = pd.concat([candles["low"], before], axis=1).min(axis=1)
    return (reach - depth).ewm(alpha=1.0 / span, adjust=False, min_periods=span).mean()


def rsi(close: pd.Series, span: int) -> pd.Series:
    """Relative strength index in Wilder's form, 0 to 100; 50 where nothing moved."""
    change = close.diff()
    gain = change.clip(lower=0.0).ewm(alpha=1.0 / span, adjust=False, min_periods=span).mean()
    loss = (-change.clip(upper=0.0)).ewm(alpha=1.0 / span, adjust=False, min_periods=span).mean()
    return (100.0 * gain / (gain + loss)).where((gain + loss) > 0, 50.0).where(gain.notna())


def _with_signals(result: pd.DataFrame, entry: pd.Series, leave: pd.Series, warmup: int) -> pd.DataFrame:
    """Add entry and exit; neither before the warm-up nor where an indicator is missing; never both at once."""
    known = np.isfinite(result.to_numpy(dtype=float)).all(axis=1) & (np.arange(len(result)) >= warmup)
    result["exit"] = leave & known
    result["entry"] = entry & known & ~leave
    return result
