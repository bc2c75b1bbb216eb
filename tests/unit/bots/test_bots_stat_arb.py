"""Two legs in one bot: their signals mirror each other, and neither is opened or kept alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from freqtrade.enums import RunMode

from observability.errors import SettingsError
from trading.adapters.strategies import stat_arb
from trading.adapters.strategies.stat_arb import ALONE, StatArb

A, B = "BTC/USDT:USDT", "ETH/USDT:USDT"
NOW = datetime(2025, 4, 1, tzinfo=UTC)
ROWS, STEP_S = 900, 900


def _frames() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(2)
    log_b = 3.0 + np.cumsum(rng.normal(0.0, 0.004, ROWS))
    error = np.zeros(ROWS)
    for row in range(1, ROWS):
        error[row] = 0.9 * error[row - 1] + rng.normal(0.0, 0.003)
    dates = pd.to_datetime(NOW.timestamp() + STEP_S * np.arange(ROWS), unit="s", utc=True)
    closes = {A: np.exp(0.4 + 1.2 * log_b + error), B: np.exp(log_b)}
    return {
        pair: pd.DataFrame({"date": dates, "open": close, "high": close, "low": close, "close": close, "volume": 1.0})
        for pair, close in closes.items()
    }


def _wired(frames: dict[str, pd.DataFrame], **settings: Any) -> StatArb:
    strategy = StatArb({"timeframe": "15m", "exchange": {"pair_whitelist": [A, B]}, "mtst": settings})
    strategy.dp = SimpleNamespace(runmode=RunMode.BACKTEST, get_pair_dataframe=lambda pair, _timeframe: frames[pair])
    return strategy


def _analysed(strategy: StatArb, frame: pd.DataFrame, pair: str) -> pd.DataFrame:
    data = strategy.populate_indicators(frame.copy(), {"pair": pair})
    data = strategy.populate_entry_trend(data, {"pair": pair})
    return strategy.populate_exit_trend(data, {"pair": pair})


def test_what_one_leg_buys_the_other_sells() -> None:
    frames = _frames()
    strategy = _wired(frames)
    a, b = (_analysed(strategy, frames[pair], pair) for pair in (A, B))
    assert strategy.problems == {}
    assert a["enter_long"].sum() > 2
    assert a["enter_short"].sum() > 2
    assert (a["enter_long"] == b["enter_short"]).all()
    assert (a["enter_short"] == b["enter_long"]).all()
    assert (a["exit_long"] == b["exit_short"]).all()
    assert not (a["enter_long"] & a["enter_short"]).any()


def test_no_row_changes_when_later_candles_do() -> None:
    frames = _frames()
    whole = _analysed(_wired(frames), frames[A], A)
    cut = {pair: frame.iloc[:700] for pair, frame in frames.items()}
    short = _analysed(_wired(cut), cut[A], A)
    columns = ["mtst_z", "mtst_beta", "enter_long", "enter_short", "exit_long", "exit_short"]
    pd.testing.assert_frame_equal(whole[columns].iloc[:700], short[columns])


def _open(monkeypatch: pytest.MonkeyPatch, *trades: SimpleNamespace) -> None:
    monkeypatch.setattr(stat_arb.Trade, "get_trades_proxy", staticmethod(lambda **_: list(trades)))


def _trade(pair: str, minutes: int, *, is_short: bool) -> SimpleNamespace:
    opened = NOW - timedelta(minutes=minutes)
    return SimpleNamespace(pair=pair, open_date_utc=opened, is_short=is_short, enter_tag="")


def test_a_lone_leg_is_closed_after_the_time_out_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = _wired(_frames())
    young, old = _trade(A, 5, is_short=False), _trade(A, 15, is_short=False)
    _open(monkeypatch, old)
    assert strategy.custom_exit(A, young, NOW, 1.0, 0.0) is None  # type: ignore[arg-type]
    assert strategy.custom_exit(A, old, NOW, 1.0, 0.0) == ALONE  # type: ignore[arg-type]
    _open(monkeypatch, old, _trade(B, 15, is_short=True))
    assert strategy.custom_exit(A, old, NOW, 1.0, 0.0) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("partner", "joins"),
    [
        (None, True),
        (_trade(B, 1, is_short=True), True),
        (_trade(B, 1, is_short=False), False),
        (_trade(B, 60, is_short=True), False),
    ],
)
def test_a_leg_joins_only_the_opposite_leg_of_its_own_moment(
    monkeypatch: pytest.MonkeyPatch, partner: SimpleNamespace | None, joins: bool
) -> None:
    strategy = _wired(_frames())
    _open(monkeypatch, *([partner] if partner else []))
    confirmed = strategy.confirm_trade_entry(A, "limit", 1.0, 1.0, "GTC", NOW, "stop=0.05000", "long")
    assert confirmed is joins


def test_the_heavier_leg_takes_the_cap_and_no_hedge_takes_nothing() -> None:
    frames = _frames()
    strategy = _wired(frames)
    assert strategy.stake_fraction(A, 0.05) == 0.0
    for pair in (A, B):
        _analysed(strategy, frames[pair], pair)
    beta = strategy._betas[strategy.newest[A]]
    assert beta > 1.0
    assert strategy.stake_fraction(B, 0.05) > strategy.stake_fraction(A, 0.05) > 0
    assert strategy.stake_fraction(B, 0.05) == pytest.approx(beta * strategy.stake_fraction(A, 0.05))


def test_one_pair_is_no_pair() -> None:
    with pytest.raises(SettingsError, match="two legs"):
        StatArb({"timeframe": "15m", "exchange": {"pair_whitelist": [A]}})
