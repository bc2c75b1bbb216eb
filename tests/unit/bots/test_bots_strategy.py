"""Freqtrade's fail-open callbacks, called the way Freqtrade calls them, end in no entry here."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from freqtrade.enums import RunMode
from freqtrade.strategy.strategy_wrapper import strategy_safe_wrapper
from hypothesis import given
from hypothesis import strategies as st

from mtst.forecast import Forecast
from observability.errors import ForecastError, OrderError
from trading.adapters.strategies.base import FailClosedStrategy
from trading.adapters.strategies.nn_predictor import NnPredictor
from trading.adapters.strategies.swing import Swing

PAIR, STEP_S = "BTC/USDT", 900


class Desk:
    flatten = False
    ready = True

    def __init__(self) -> None:
        self.loops = 0
        self.asked: list[dict[str, Any]] = []
        self.answer: Any = {}

    def begin_loop(self, marks: Any) -> None:
        self.loops += 1

    def equity(self) -> float:
        return 10_000.0

    def forecasts(self, timeframe: str, candles: Any) -> dict[str, Forecast]:
        self.asked.append(candles)
        if isinstance(self.answer, Exception):
            raise self.answer
        return dict(self.answer)


class Broken(FailClosedStrategy):
    """Enters always, unless told to break."""

    breaks = False
    stop = 0.02

    def signals(self, frame: pd.DataFrame, pair: str) -> pd.DataFrame:
        if self.breaks:
            raise ZeroDivisionError("indicator")
        return pd.DataFrame({"entry": True, "exit": False, "stop_distance": self.stop}, index=frame.index)


def _candles(rows: int = 300, ago_s: int = 0) -> pd.DataFrame:
    last = int(time.time()) // STEP_S * STEP_S - STEP_S - ago_s
    dates = pd.to_datetime(np.arange(last - (rows - 1) * STEP_S, last + 1, STEP_S), unit="s", utc=True)
    close = 100 * np.exp(np.cumsum(np.random.default_rng(5).normal(0, 0.004, rows)))
    frame = pd.DataFrame({"date": dates, "open": np.roll(close, 1), "close": close, "volume": 1.0})
    frame.loc[0, "open"] = close[0]
    frame["high"] = frame[["open", "close"]].max(axis=1)
    frame["low"] = frame[["open", "close"]].min(axis=1)
    return frame


def _wired(kind: type[FailClosedStrategy], frame: pd.DataFrame, **settings: Any) -> Any:
    strategy = kind({"timeframe": "15m", "mtst": settings})
    strategy.desk = Desk()
    strategy.dp = SimpleNamespace(
        runmode=RunMode.LIVE, current_whitelist=lambda: [PAIR], ohlcv=lambda _pair, _timeframe, copy: frame
    )
    return strategy


def _analysed(strategy: FailClosedStrategy, frame: pd.DataFrame) -> pd.DataFrame:
    data = strategy.populate_indicators(frame.copy(), {"pair": PAIR})
    data = strategy.populate_entry_trend(data, {"pair": PAIR})
    return strategy.populate_exit_trend(data, {"pair": PAIR})


def _confirm(strategy: FailClosedStrategy, tag: str | None = "stop=0.02") -> Any:
    call = strategy_safe_wrapper(strategy.confirm_trade_entry, default_retval=True)
    return call(
        pair=PAIR, order_type="limit", amount=1.0, rate=100.0, time_in_force="GTC", current_time=datetime.now(UTC),
        entry_tag=tag, side="long",
    )  # fmt: skip


def _stake(strategy: FailClosedStrategy, proposed: float = 1650.0, tag: str | None = "stop=0.02") -> float:
    call = strategy_safe_wrapper(strategy.custom_stake_amount, default_retval=proposed)
    return float(
        call(
            pair=PAIR,
            current_time=datetime.now(UTC),
            current_rate=100.0,
            proposed_stake=proposed,
            min_stake=5.0,
            max_stake=10_000.0,
            leverage=1.0,
            entry_tag=tag,
            side="long",
        )
    )


def test_a_broken_indicator_enters_nowhere_and_is_counted() -> None:
    frame = _candles()
    strategy = _wired(Broken, frame)
    assert _analysed(strategy, frame)["enter_long"].iloc[-1] == 1
    strategy.breaks = True
    after = _analysed(strategy, frame)
    assert after["enter_long"].sum() == 0
    assert strategy.problems == {"signals": 1}
    with pytest.raises(OrderError, match="no stop"):
        strategy.entry_facts(PAIR, 100.0, "buy")


def test_a_fresh_candle_is_confirmed_and_a_stale_one_is_not() -> None:
    for ago_s, expected in ((0, True), (2 * STEP_S, False), (10 * STEP_S, False)):
        frame = _candles(ago_s=ago_s)
        strategy = _wired(Broken, frame)
        _analysed(strategy, frame)
        assert _confirm(strategy) is expected


def test_without_a_desk_nothing_is_confirmed_live() -> None:
    frame = _candles()
    strategy = _wired(Broken, frame)
    _analysed(strategy, frame)
    strategy.desk = None
    assert _confirm(strategy) is False


def test_a_raising_confirmation_is_a_no() -> None:
    strategy = _wired(Broken, _candles())
    strategy._fresh = lambda _pair: 1 / 0
    assert _confirm(strategy) is False


@pytest.mark.parametrize("equity", [float("nan"), float("inf"), -1.0, 0.0, None, "rich"])
def test_an_impossible_equity_stakes_nothing(equity: Any) -> None:
    strategy = _wired(Broken, _candles())
    strategy.desk.equity = lambda: equity
    assert _stake(strategy) == 0.0


@given(proposed=st.floats(0, 1e6), distance=st.floats(1e-5, 0.2), equity=st.floats(0, 1e7))
def test_a_stake_is_finite_and_never_above_what_freqtrade_proposes(
    proposed: float, distance: float, equity: float
) -> None:
    strategy = _wired(Broken, pd.DataFrame())
    strategy.desk.equity = lambda: equity
    stake = _stake(strategy, proposed, f"stop={distance:.5f}")
    assert 0.0 <= stake <= proposed
    assert stake == 0.0 or stake >= 5.0, "below the exchange's minimum Freqtrade would raise it"


def test_an_unknown_stop_stakes_nothing() -> None:
    assert _stake(_wired(Broken, _candles()), tag=None) == 0.0
    assert _stake(_wired(Broken, _candles()), tag="stop=nan") == 0.0


def test_a_stop_beyond_the_outer_one_is_no_stop() -> None:
    frame = _candles()
    strategy = _wired(Broken, frame)
    for wide in (0.5, 0.0, -0.1, float("nan")):
        strategy.stop = wide
        _analysed(strategy, frame)
        with pytest.raises(OrderError):
            strategy.entry_facts(PAIR, 100.0, "buy")


def test_the_stop_survives_in_the_tag() -> None:
    frame = _candles()
    strategy = _wired(Broken, frame)
    tag = _analysed(strategy, frame)["enter_tag"].iloc[-1]
    trade = SimpleNamespace(enter_tag=tag, is_short=False, leverage=1.0, open_rate=100.0, stop_loss=90.0)
    relative = strategy.custom_stoploss(PAIR, trade, datetime.now(UTC), 100.0, 0.0, after_fill=True)
    assert relative == pytest.approx(0.02)
    trade.stop_loss = 98.0001
    assert strategy.custom_stoploss(PAIR, trade, datetime.now(UTC), 101.0, 0.01, after_fill=False) is None, "it stands"
    unknown = SimpleNamespace(enter_tag="recovered", is_short=False, leverage=1.0)
    assert strategy.custom_stoploss(PAIR, unknown, datetime.now(UTC), 100.0, 0.0, after_fill=True) is None


def test_an_entry_that_rests_is_taken_back_when_nothing_may_be_entered_any_more() -> None:
    strategy = _wired(Swing, _candles())
    order = SimpleNamespace(ft_order_side="buy", status="open", order_date_utc=datetime.now(UTC))
    trade = SimpleNamespace(pair=PAIR, entry_side="buy", exit_side="sell")
    assert strategy.ft_check_timed_out(trade, order, datetime.now(UTC)) is False
    strategy.desk.ready = False
    assert strategy.ft_check_timed_out(trade, order, datetime.now(UTC)) is True
    strategy.desk = None
    assert strategy.ft_check_timed_out(trade, order, datetime.now(UTC)) is True


def test_a_person_can_have_everything_closed() -> None:
    strategy = _wired(Swing, _candles())
    trade = SimpleNamespace(enter_tag="", open_date_utc=datetime.now(UTC), stop_loss=0.0)
    assert strategy.custom_exit(PAIR, trade, datetime.now(UTC), 1.0, 0.0) is None
    strategy.desk.flatten = True
    assert strategy.custom_exit(PAIR, trade, datetime.now(UTC), 1.0, 0.0) == "flatten"


@pytest.mark.parametrize(
    ("short", "rests", "rate", "sold"),
    [
        (False, False, 98.1, False), (False, False, 97.9, True), (False, True, 97.9, False), (False, True, 96.0, True),
        (True, False, 97.9, False), (True, False, 98.1, True), (True, True, 98.1, False), (True, True, 100.1, True),
    ],
)  # fmt: skip
def test_what_a_resting_stop_has_missed_is_sold_by_the_loop(short: bool, rests: bool, rate: float, sold: bool) -> None:
    strategy = _wired(Swing, _candles())
    trade = SimpleNamespace(
        enter_tag="", open_date_utc=datetime.now(UTC), stop_loss=98.0, is_short=short, has_open_sl_orders=rests
    )
    assert strategy.custom_exit(PAIR, trade, datetime.now(UTC), rate, 0.0) == ("stop_missed" if sold else None)


def test_swing_uses_the_rules() -> None:
    from trading.rules import swing_signals

    frame = _candles(400)
    strategy = _wired(Swing, frame)
    expected = swing_signals(frame)
    got = _analysed(strategy, frame)
    assert (got["enter_long"].to_numpy() == expected["entry"].to_numpy()).all()
    assert (got["exit_long"].to_numpy() == expected["exit"].to_numpy()).all()


def _forecast(frame: pd.DataFrame, centre: float, **changes: Any) -> Forecast:
    row = (centre - 0.01, centre, centre + 0.012)
    values = {
        "pair": PAIR, "as_of_ms": int(frame["date"].iloc[-1].timestamp() * 1000), "timeframe": "15m",
        "horizons": (1, 4), "levels": (0.1, 0.5, 0.9), "values": (row, row), "model_name": "m", "model_version": "1",
        "spec_hash": "h", "status": "champion",
    }  # fmt: skip
    return Forecast(**{**values, **changes})


def test_a_good_forecast_enters_with_its_own_edge_and_stop() -> None:
    frame = _candles()
    strategy = _wired(NnPredictor, frame)
    strategy.desk.answer = {PAIR: _forecast(frame, 0.02)}
    strategy.bot_loop_start(datetime.now(UTC))
    assert _analysed(strategy, frame)["enter_long"].iloc[-1] == 1
    facts = strategy.entry_facts(PAIR, 100.0, "buy")
    assert facts.forecast is not None
    assert facts.forecast.edge > 0
    assert facts.forecast.as_of_ms == facts.candle_ms
    assert 90 < facts.stop_price < 100


def test_one_request_serves_a_candle() -> None:
    frame = _candles()
    strategy = _wired(NnPredictor, frame, max_history=50)
    strategy.desk.answer = {PAIR: _forecast(frame, 0.02)}
    for _ in range(5):
        strategy.bot_loop_start(datetime.now(UTC))
    (asked,) = strategy.desk.asked
    assert len(asked[PAIR]["timestamp"]) == 50
    assert asked[PAIR]["timestamp"][-1] == int(frame["date"].iloc[-1].timestamp() * 1000)
    assert strategy.desk.loops == 5


@pytest.mark.parametrize("kind", ["none", "error", "older"])
def test_without_a_forecast_of_this_candle_nothing_enters(kind: str) -> None:
    frame = _candles()
    strategy = _wired(NnPredictor, frame)
    older = _forecast(frame.iloc[:-1], 0.02)
    strategy.desk.answer = {"none": {}, "error": ForecastError("away"), "older": {PAIR: older}}[kind]
    strategy.bot_loop_start(datetime.now(UTC))
    assert _analysed(strategy, frame)["enter_long"].sum() == 0
    with pytest.raises((ForecastError, OrderError)):
        strategy.entry_facts(PAIR, 100.0, "buy")


def test_an_old_forecast_dies_with_its_candle() -> None:
    frame = _candles()
    strategy = _wired(NnPredictor, frame.iloc[:-1])
    strategy.desk.answer = {PAIR: _forecast(frame.iloc[:-1], 0.02)}
    strategy.bot_loop_start(datetime.now(UTC))
    strategy.dp.ohlcv = lambda _pair, _timeframe, copy: frame
    strategy.desk.answer = ForecastError("away")
    strategy.bot_loop_start(datetime.now(UTC))
    assert _analysed(strategy, frame)["enter_long"].sum() == 0
    assert strategy.problems == {"prepare": 1}


def test_a_bad_outlook_closes_and_a_dull_one_does_not() -> None:
    frame = _candles()
    for centre, expected in ((-0.02, 1), (0.0005, 0)):
        strategy = _wired(NnPredictor, frame)
        strategy.desk.answer = {PAIR: _forecast(frame, centre)}
        strategy.bot_loop_start(datetime.now(UTC))
        assert _analysed(strategy, frame)["exit_long"].iloc[-1] == expected


def test_a_trade_ends_with_its_horizon_even_when_no_forecast_comes() -> None:
    strategy = _wired(NnPredictor, _candles())
    old = SimpleNamespace(
        enter_tag="",
        stop_loss=0.0,
        open_date_utc=datetime.fromtimestamp(time.time() - 5 * STEP_S, tz=UTC),
        is_short=False,
    )
    young = SimpleNamespace(enter_tag="", stop_loss=0.0, open_date_utc=datetime.now(UTC), is_short=False)
    assert strategy.custom_exit(PAIR, old, datetime.now(UTC), 1.0, 0.0) == "horizon"
    assert strategy.custom_exit(PAIR, young, datetime.now(UTC), 1.0, 0.0) is None
