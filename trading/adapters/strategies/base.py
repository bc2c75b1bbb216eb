"""The base of all strategies: where Freqtrade's callbacks fail open, these fail closed.

Freqtrade takes an exception in `confirm_trade_entry` for a yes, one in `custom_stake_amount` for the full stake, and
keeps trading an old frame when `populate_*` raises. Here every doubt ends in no entry, and no doubt ever holds an exit.

Settings (the `mtst` table of the bot's configuration): `max_history` candles kept; `policy`, a table of the strategy's
own policy; `stake_fraction`, largest part of the equity in one trade.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import pandas as pd
from freqtrade.enums import RunMode
from freqtrade.persistence import Order, Trade
from freqtrade.strategy import IStrategy, stoploss_from_open

from mtst.forecast import Forecast
from observability.errors import ForecastError, OrderError
from observability.logging import get_logger
from pipelines.candles import timeframe_ms
from trading.adapters.entry_intent import EntryFacts
from trading.adapters.forecast_client import Candles
from trading.orders import ForecastRef
from trading.sizing import stop_stake

log = get_logger(__name__)

GRACE_S = 60  # how long into the next candle the one before it still counts as the newest
STOP_TAG = "stop="
STOP_LIMIT = 0.98  # where a stop becomes a limit order, its price as a part of the stop's
T = TypeVar("T")


class Desk(Protocol):
    """What the worker wires into a strategy that trades; backtests have none."""

    @property
    def flatten(self) -> bool:
        """Whether a person asked for every position to be closed."""

    @property
    def ready(self) -> bool:
        """Whether nothing that the bot was told stands against an entry."""

    def begin_loop(self, marks: Mapping[str, float]) -> None:
        """New candles are in: hold the lease, settle, report. Never raises."""

    def equity(self) -> float:
        """Worth of the account in stake currency in this loop; 0 when unknown."""

    def forecasts(self, timeframe: str, candles: Mapping[str, Candles]) -> dict[str, Forecast]:
        """Forecasts of the newest candles; raises ForecastError when there are none."""


class FailClosedStrategy(IStrategy):
    """Subclasses give `signals` and, if they trade by forecasts, `forecast_ref`.

    `signals(frame, pair)` returns a frame on the same index with boolean `entry` and `exit` and `stop_distance`
    (fraction of the price), and any indicators worth plotting; `entry_short` and `exit_short` where it also sells.
    """

    INTERFACE_VERSION = 3
    can_short = False
    timeframe = "15m"
    process_only_new_candles = True
    use_exit_signal = True
    use_custom_stoploss = True
    minimal_roi: ClassVar = {"0": 10.0}
    stoploss = -0.10  # outer bound; the trade's own, nearer stop is in its tag
    startup_candle_count = 400
    position_adjustment_enable = False
    order_types: ClassVar = {
        "entry": "limit",
        # Market: a partly filled limit exit would block the stop-loss behind it.
        "exit": "market",
        "emergency_exit": "market",
        "stoploss": "market",
        # A stop that rests on the exchange protects the position also when this bot is dead.
        "stoploss_on_exchange": True,
        "stoploss_on_exchange_interval": 60,
        "stoploss_on_exchange_limit_ratio": STOP_LIMIT,
    }
    order_time_in_force: ClassVar = {"entry": "GTC", "exit": "GTC"}

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.settings: Mapping[str, Any] = config.get("mtst", {})
        self.desk: Desk | None = None
        self.adopting = False
        self.problems: dict[str, int] = {}
        self._newest: dict[str, int] = {}
        self._stops: dict[str, dict[int, float]] = {}
        self._closes: dict[str, dict[int, float]] = {}  # filled in backtests only
        self._simulated_candle: int | None = None

    # --- for subclasses ---------------------------------------------------------------------------------------------

    def signals(self, frame: pd.DataFrame, pair: str) -> pd.DataFrame:
        """Signals of closed candles; see the class."""
        raise OrderError("a strategy must say when it enters and exits", where=type(self).__name__)

    def prepare(self, marks: Mapping[str, float]) -> None:
        """Once a loop, before the signals; for forecasts. Whatever it raises is counted and closes nothing."""

    def forecast_ref(self, pair: str) -> ForecastRef | None:
        """The forecast behind an entry; None for a strategy that trades by plain rules."""
        return None

    def forecast_times(self) -> Mapping[str, int]:
        """Open time, in ms, of the candle behind the forecast held of each pair."""
        return {}

    def candle(self, pair: str) -> int | None:
        """Open time, in ms, of the newest candle that a decision made now may know; None before the first."""
        return self._newest.get(pair) if self._simulated_candle is None else self._simulated_candle

    @property
    def step_ms(self) -> int:
        """Length of a candle."""
        return timeframe_ms(self.timeframe)

    @property
    def newest(self) -> Mapping[str, int]:
        """Open time, in ms, of the newest analysed candle of each pair."""
        return self._newest

    def stake_fraction(self, pair: str, stop_distance: float) -> float:
        """Part of the equity that one entry may take."""
        cap = float(self.settings.get("stake_fraction", 0.15))
        return stop_stake(stop_distance, trade_risk=0.01, cap=cap)

    # --- Freqtrade's callbacks --------------------------------------------------------------------------------------

    def bot_loop_start(self, current_time: datetime, **kwargs: Any) -> None:
        """Report to the risk manager, then get forecasts; both before anything can enter."""
        if self._simulated():
            self._simulated_candle = _ms(current_time) - self.step_ms
        if self.desk is None:
            return
        nothing: dict[str, float] = {}
        marks = self._guard("marks", self._marks, nothing)
        self.desk.begin_loop(marks)
        self._guard("prepare", lambda: self.prepare(marks), None)

    def populate_indicators(self, dataframe: pd.DataFrame, metadata: dict[str, Any]) -> pd.DataFrame:
        """Compute the signals of all candles; on any error there are none, of this candle or an older one."""
        pair = metadata["pair"]
        self._newest[pair] = _ms(dataframe["date"].iloc[-1])
        self._stops[pair] = {}
        nothing = pd.DataFrame({"entry": False, "exit": False, "stop_distance": math.nan}, index=dataframe.index)
        signals = self._guard("signals", lambda: self.signals(dataframe, pair), nothing)
        if not signals.index.equals(dataframe.index):
            self._problem("signals", ValueError("signals on another index than the candles"))
            signals = nothing
        # a backtest sees all candles at once and asks for each in its time; live, an older one must not answer
        self._keep_stops(pair, dataframe if self._simulated() else dataframe.tail(1), signals["stop_distance"])
        if self._simulated():
            times = (_ms(moment) for moment in dataframe["date"])
            self._closes[pair] = dict(zip(times, dataframe["close"].tolist(), strict=True))
        return dataframe.assign(**{f"mtst_{name}": signals[name] for name in signals.columns})

    def populate_entry_trend(self, dataframe: pd.DataFrame, metadata: dict[str, Any]) -> pd.DataFrame:
        """Entries, each with the distance of its stop in its tag, from which a restarted bot reads it again."""
        dataframe["enter_long"] = dataframe["mtst_entry"].fillna(value=False).astype(int)
        if "mtst_entry_short" in dataframe:
            dataframe["enter_short"] = dataframe["mtst_entry_short"].fillna(value=False).astype(int)
        distance = dataframe["mtst_stop_distance"]
        dataframe["enter_tag"] = [f"{STOP_TAG}{value:.5f}" for value in distance]
        return dataframe

    def populate_exit_trend(self, dataframe: pd.DataFrame, metadata: dict[str, Any]) -> pd.DataFrame:
        """Exits."""
        dataframe["exit_long"] = dataframe["mtst_exit"].fillna(value=False).astype(int)
        if "mtst_exit_short" in dataframe:
            dataframe["exit_short"] = dataframe["mtst_exit_short"].fillna(value=False).astype(int)
        return dataframe

    def custom_stake_amount(  # noqa: PLR0917 - Freqtrade's signature
        self, pair: str, current_time: datetime, current_rate: float, proposed_stake: float, min_stake: float | None,
        max_stake: float, leverage: float, entry_tag: str | None, side: str, **kwargs: Any,
    ) -> float:  # fmt: skip
        """The stake, never more than proposed; 0 (no entry) on any doubt. NaN would end the bot."""

        def stake() -> float:
            if self.adopting:
                return proposed_stake
            equity = self.desk.equity() if self.desk is not None else self.wallets.get_total_stake_amount()
            wanted = equity * self.stake_fraction(pair, self._stop_of(pair, entry_tag))
            allowed = min(wanted, proposed_stake, max_stake)
            # Freqtrade would raise a smaller stake to the exchange's minimum; rather no trade than a larger one.
            sane = math.isfinite(wanted) and math.isfinite(allowed) and allowed > 0
            return allowed if sane and allowed >= (min_stake or 0.0) else 0.0

        return self._guard("stake", stake, 0.0)

    def confirm_trade_entry(  # noqa: PLR0917 - Freqtrade's signature
        self, pair: str, order_type: str, amount: float, rate: float, time_in_force: str, current_time: datetime,
        entry_tag: str | None, side: str, **kwargs: Any,
    ) -> bool:  # fmt: skip
        """Only with a desk (or in a backtest), on the newest closed candle, with a known stop."""

        def confirmed() -> bool:
            if self.adopting or self._simulated():
                return True
            return self.desk is not None and self._fresh(pair) and self._stop_of(pair, entry_tag) > 0

        return self._guard("confirm", confirmed, False) is True

    def custom_stoploss(  # noqa: PLR0917 - Freqtrade's signature
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float, current_profit: float,
        after_fill: bool, **kwargs: Any,
    ) -> float | None:  # fmt: skip
        """The stop of the trade's tag, as distance from its open; the outer one where the tag tells none."""
        distance = _tagged(trade.enter_tag)
        if distance is None or self._stands(trade, distance):
            return None
        return float(stoploss_from_open(-distance, current_profit, is_short=trade.is_short, leverage=trade.leverage))

    def check_entry_timeout(self, pair: str, trade: Trade, order: Order, current_time: datetime, **kwargs: Any) -> bool:
        """Take an entry back that may not be made any more: what rests on the book would be filled after a halt.

        Freqtrade's own time-out goes on beside this.
        """
        return not self._simulated() if self.desk is None else not self.desk.ready

    def custom_exit(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float, current_profit: float, **kwargs: Any
    ) -> str | None:
        """Close everything when asked for; sell what a resting stop should have sold and has not."""
        if self.desk is not None and self.desk.flatten:
            return "flatten"
        return "stop_missed" if self._stop_missed(trade, current_rate) else None

    # --- for the gate -----------------------------------------------------------------------------------------------

    def entry_facts(self, pair: str, price: float, side: str) -> EntryFacts:
        """What the gate writes into the intent.

        Raises:
            OrderError: the newest candle or the stop is unknown.
            ForecastError: the strategy trades by forecasts and has none.
        """
        candle = self.candle(pair)
        distance = self._stop_of(pair, None)
        if candle is None or not distance > 0:
            raise OrderError("no candle or no stop behind this entry", where=pair, todo="wait for the next candle")
        away = distance if side == "buy" else -distance
        return EntryFacts(candle, price * (1.0 - away), self.forecast_ref(pair))

    # --- inside -----------------------------------------------------------------------------------------------------

    def _keep_stops(self, pair: str, candles: pd.DataFrame, distances: pd.Series) -> None:
        """Remember the stops that stand inside the outer one, by their candle's open time."""
        known = distances.loc[candles.index].astype(float)
        good = np.isfinite(known) & (known > 0) & (known < abs(self.stoploss))
        times = candles.loc[good, "date"]
        self._stops[pair] = dict(zip((_ms(moment) for moment in times), known[good].tolist(), strict=True))

    def _stop_of(self, pair: str, tag: str | None) -> float:
        distance, candle = _tagged(tag), self.candle(pair)
        if distance is None and candle is not None:
            return self._stops.get(pair, {}).get(candle, 0.0)
        return distance or 0.0

    @staticmethod
    def _stands(trade: Trade, distance: float) -> bool:
        """Whether the stop stands already; a rounding's difference must not replace it on the exchange."""
        wanted = trade.open_rate * (1.0 + distance / trade.leverage * (1.0 if trade.is_short else -1.0))
        return bool(trade.stop_loss) and abs(trade.stop_loss / wanted - 1.0) < 5e-4

    def _stop_missed(self, trade: Trade, rate: float) -> bool:
        """Whether the price is through a stop that does not rest, or beyond the limit of one that does (a gap)."""
        if self._simulated() or not trade.stop_loss:
            return False
        slack = STOP_LIMIT if trade.has_open_sl_orders else 1.0
        return bool(rate >= trade.stop_loss / slack if trade.is_short else rate <= trade.stop_loss * slack)

    def _simulated(self) -> bool:
        return self.dp is not None and self.dp.runmode not in (RunMode.LIVE, RunMode.DRY_RUN)

    def _fresh(self, pair: str) -> bool:
        """Whether the analysed candle is the newest closed one."""
        length_s = self.step_ms / 1000
        closed_for = time.time() - self._newest.get(pair, 0) / 1000 - length_s
        return 0 <= closed_for < length_s + GRACE_S

    def _marks(self) -> dict[str, float]:
        """Newest close by pair, of pairs whose candles are there and make sense."""
        candle = self._simulated_candle
        if candle is not None:
            return {pair: held[candle] for pair, held in self._closes.items() if candle in held}
        closes = {}
        for pair in self.dp.current_whitelist():
            frame = self.dp.ohlcv(pair, self.timeframe, copy=False)
            if len(frame):
                close = float(frame["close"].iloc[-1])
                if math.isfinite(close) and close > 0:
                    closes[pair] = close
        return closes

    def _guard(self, what: str, call: Callable[[], T], otherwise: T) -> T:
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - Freqtrade would read an exception as consent
            self._problem(what, error)
            return otherwise

    def _problem(self, what: str, error: Exception) -> None:
        self.problems[what] = self.problems.get(what, 0) + 1
        note = log.warning if isinstance(error, ForecastError) else log.error
        note("strategy_doubt", strategy=type(self).__name__, where=what, error=f"{type(error).__name__}: {error}"[:300])


def _tagged(tag: str | None) -> float | None:
    """The stop distance that an entry's tag carries."""
    if not tag or STOP_TAG not in tag:
        return None
    try:
        distance = float(tag.split(STOP_TAG, 1)[1].split("|")[0])
    except ValueError:
        return None
    return distance if math.isfinite(distance) and distance > 0 else None


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
