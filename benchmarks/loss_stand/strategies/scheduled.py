"""The same orders to enter and to leave for both contenders, by the clock: nothing but the plumbing differs."""

from __future__ import annotations

from typing import Any, ClassVar

import pandas as pd
from freqtrade.strategy import IStrategy

from trading.adapters.strategies.base import FailClosedStrategy


def scheduled(dates: pd.Series, plan: dict[str, Any]) -> tuple[pd.Series, pd.Series]:
    """Whether to enter and whether to leave, a candle each.

    `plan` has `enter_from_ms`, `enter_until_ms` and `exit_ms`, or `cycle`: that many candles, of which the first half
    enters and the last two leave, for ever.
    """
    at_ms = dates.astype("datetime64[ms, UTC]").astype("int64")
    if "cycle" in plan:
        place = (at_ms // 900_000) % plan["cycle"]
        return place < plan["cycle"] // 2, place >= plan["cycle"] - 2
    enter = (at_ms >= plan["enter_from_ms"]) & (at_ms < plan["enter_until_ms"])
    return enter, at_ms >= plan["exit_ms"]


class PlainScheduled(IStrategy):
    """As a careful reader of Freqtrade's documentation would write it; `plan` in the configuration says when."""

    INTERFACE_VERSION = 3
    timeframe = "15m"
    minimal_roi: ClassVar = {"0": 10.0}
    stoploss = -0.03
    startup_candle_count = 5
    use_exit_signal = True

    def populate_indicators(self, dataframe: pd.DataFrame, metadata: dict[str, Any]) -> pd.DataFrame:
        """Nothing to compute."""
        return dataframe

    def populate_entry_trend(self, dataframe: pd.DataFrame, metadata: dict[str, Any]) -> pd.DataFrame:
        """By the plan."""
        dataframe["enter_long"] = scheduled(dataframe["date"], self.config["plan"])[0].astype(int)
        return dataframe

    def populate_exit_trend(self, dataframe: pd.DataFrame, metadata: dict[str, Any]) -> pd.DataFrame:
        """By the plan."""
        dataframe["exit_long"] = scheduled(dataframe["date"], self.config["plan"])[1].astype(int)
        return dataframe


class OursScheduled(FailClosedStrategy):
    """The same plan on the fail-closed base class."""

    def signals(self, frame: pd.DataFrame, pair: str) -> pd.DataFrame:
        """By the plan, with the same stop."""
        enter, leave = scheduled(frame["date"], dict(self.settings["plan"]))
        return pd.DataFrame({"entry": enter, "exit": leave, "stop_distance": 0.03}, index=frame.index)
