"""Trades the forecasts of the prediction service: direction, stop and size all come from their quantiles.

One request a new candle for all pairs together. A pair without a valid forecast of its newest candle has no entry;
its open trade keeps its stop and its other exits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from freqtrade.persistence import Trade

from mtst.forecast import Forecast
from observability.errors import ForecastError
from trading.adapters.oos_source import OutOfSampleForecasts
from trading.adapters.quick_candles import per_ms
from trading.adapters.strategies.base import FailClosedStrategy
from trading.orders import ForecastRef
from trading.rules import entry_rules
from trading.signals import SignalPolicy, forecast_ref, make_signal

_NOTHING: dict[str, Any] = {
    "entry": False, "exit": False, "stop_distance": math.nan, "entry_short": False, "exit_short": False,
    "edge": math.nan, "sigma": math.nan,
}  # fmt: skip


class NnPredictor(FailClosedStrategy):
    """Settings: `policy` are fields of `SignalPolicy`; `rules` are names of `trading.rules.ENTRY_RULES`, all of which
    must allow an entry; `forecasts` is the file of out-of-sample forecasts that a backtest reads.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.policy = SignalPolicy(**self.settings.get("policy", {}))
        self.rules = entry_rules(self.settings.get("rules", ()))
        self.can_short = self.policy.allow_short
        self._asked: dict[str, int] = {}
        self._forecasts: dict[str, Mapping[int, Forecast]] = {}

    def bot_start(self, **kwargs: Any) -> None:
        """In a backtest, read the out-of-sample forecasts; a served model is asked only by a bot that trades.

        Raises:
            ForecastError: the file is missing or holds a forecast that is not out of sample.
        """
        if self._simulated():
            path = Path(str(self.settings.get("forecasts", "")))
            self._forecasts = dict(OutOfSampleForecasts.read(path, self.timeframe).by_pair)

    def prepare(self, marks: Mapping[str, float]) -> None:
        """Ask for forecasts once for every set of new candles; none survive their candle.

        Raises:
            ForecastError: the service cannot be used.
        """
        if self.desk is None or self._simulated():
            return
        frames = {pair: self.dp.ohlcv(pair, self.timeframe, copy=False) for pair in marks}
        newest = {pair: _ms(frame) for pair, frame in frames.items()}
        fresh = {pair for pair, at in newest.items() if self._asked.get(pair) != at}
        if not fresh:
            return
        self._forecasts = {pair: held for pair, held in self._forecasts.items() if pair not in fresh}
        self._asked.update(newest)
        history = int(self.settings.get("max_history", 400))
        candles = {pair: _columns(frames[pair].tail(history)) for pair in sorted(fresh)}
        answer = self.desk.forecasts(self.timeframe, candles)
        self._forecasts |= {pair: {forecast.as_of_ms: forecast} for pair, forecast in answer.items()}

    def signals(self, frame: pd.DataFrame, pair: str) -> pd.DataFrame:
        """A signal on every row whose candle has a forecast: live the last one, in a backtest all out of sample."""
        held, times = self._forecasts.get(pair, {}), _times(frame)
        asked = times if self._simulated() else times[-1:]
        rows = [_NOTHING] * (len(times) - len(asked)) + [
            self._row(held[at]) if at in held else _NOTHING for at in asked
        ]
        result = pd.DataFrame({name: [row[name] for row in rows] for name in _NOTHING}, index=frame.index)
        allowed = self.rules(frame)
        result["entry"] &= allowed
        result["entry_short"] &= allowed
        return result if self.can_short else result.drop(columns=["entry_short", "exit_short"])

    def _row(self, forecast: Forecast) -> dict[str, Any]:
        signal = make_signal(forecast, self.policy)
        gain = signal.edge + self.policy.round_trip_cost
        return {
            "entry": signal.direction == "long",
            # a position is closed when it is expected to lose, before costs: those are spent already
            "exit": signal.direction != "long" and (gain < 0 or signal.direction == "short"),
            "stop_distance": signal.stop_distance,
            "entry_short": signal.direction == "short",
            "exit_short": signal.direction != "short" and forecast.expected_return(self.policy.horizon) > 0,
            "edge": signal.edge,
            "sigma": forecast.sigma(self.policy.horizon),
        }

    def custom_exit(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float, current_profit: float, **kwargs: Any
    ) -> str | None:
        """The forecast's horizon is over, and the newest one does not renew it."""
        asked = super().custom_exit(pair, trade, current_time, current_rate, current_profit, **kwargs)
        if asked:
            return asked
        held_s = (current_time - trade.open_date_utc).total_seconds()
        forecast = self._newest_forecast(pair)
        wanted = "short" if trade.is_short else "long"
        renewed = forecast is not None and make_signal(forecast, self.policy).direction == wanted
        return "horizon" if held_s * 1000 >= self.policy.horizon * self.step_ms and not renewed else None

    def forecast_times(self) -> Mapping[str, int]:
        """See the base."""
        return {pair: max(held) for pair, held in self._forecasts.items() if held}

    def forecast_ref(self, pair: str) -> ForecastRef | None:
        """The forecast behind an entry.

        Raises:
            ForecastError: there is none.
        """
        forecast = self._newest_forecast(pair)
        if forecast is None:
            raise ForecastError("no forecast of the newest candle", where=pair)
        return forecast_ref(forecast, make_signal(forecast, self.policy), self.policy)

    def stake_fraction(self, pair: str, stop_distance: float) -> float:
        """As the forecast's volatility and stop suggest."""
        forecast = self._newest_forecast(pair)
        return 0.0 if forecast is None else make_signal(forecast, self.policy).stake_fraction

    def _newest_forecast(self, pair: str) -> Forecast | None:
        """The forecast of the candle that a decision made now may know."""
        candle = self.candle(pair)
        held = self._forecasts.get(pair, {})
        return next(iter(held.values()), None) if candle is None else held.get(candle)


def _columns(frame: pd.DataFrame) -> dict[str, list[float]]:
    times = _times(frame)
    return {"timestamp": times, **{name: frame[name].tolist() for name in ("open", "high", "low", "close", "volume")}}


def _times(frame: pd.DataFrame) -> list[int]:
    """Open times in ms."""
    return (frame["date"].astype("int64") // per_ms(frame["date"])).tolist()  # type: ignore[no-any-return]


def _ms(frame: pd.DataFrame) -> int:
    return int(frame["date"].iloc[-1].timestamp() * 1000)
