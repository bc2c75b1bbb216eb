"""The quick cleaning of candles gives what Freqtrade's own gives, whatever an exchange sends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from freqtrade.configuration import setup_utils_configuration
from freqtrade.data.converter import converter
from freqtrade.data.converter.converter import clean_ohlcv_dataframe
from freqtrade.enums import CandleType, RunMode
from freqtrade.exchange import Exchange
from freqtrade.exchange import exchange as exchanges
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.adapters import quick_candles
from trading.adapters.backtest.candles import offline_exchange
from trading.adapters.bot_spec import BotSpec
from trading.adapters.freqtrade_config import write_config
from trading.adapters.quick_candles import QuickCleaning

STEP_MS, START_MS = 900_000, 1_700_000_100_000
NUMBERS = st.one_of(st.floats(0.5, 2.0), st.just(float("nan")))


def _frame(places: list[int], values: np.ndarray[Any, Any]) -> pd.DataFrame:
    """As `ohlcv_to_dataframe` hands it over: each row's high and low are its highest and lowest number, if any."""
    values = values.copy()
    for column, extreme in ((1, np.fmax), (2, np.fmin)):
        values[:, column] = np.where(np.isnan(values[:, column]), np.nan, extreme.reduce(values[:, :4], axis=1))
    at_ms = [START_MS - START_MS % STEP_MS + STEP_MS * place for place in places]
    dates = pd.to_datetime(pd.Series(at_ms), unit="ms", utc=True).dt.floor("1s")
    columns = dict(zip(("open", "high", "low", "close", "volume"), values.T, strict=True))
    return pd.DataFrame({"date": dates, **columns})


def _same(frame: pd.DataFrame, **options: Any) -> bool:
    """Compare both; True where the original was not needed."""
    asked: list[int] = []

    def original(*args: Any, **kwargs: Any) -> pd.DataFrame:
        asked.append(1)
        return clean_ohlcv_dataframe(*args, **kwargs)

    quick = QuickCleaning(original)(frame.copy(), "15m", "BTC/USDT", **options)
    pd.testing.assert_frame_equal(
        quick, clean_ohlcv_dataframe(frame.copy(), "15m", "BTC/USDT", **options), check_freq=False
    )
    return not asked


@given(
    places=st.lists(st.integers(0, 12), min_size=1, max_size=20),
    numbers=st.data(),
    drop=st.booleans(),
    fill=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_the_same_whatever_comes(places: list[int], numbers: st.DataObject, drop: bool, fill: bool) -> None:
    drawn = numbers.draw(st.lists(NUMBERS, min_size=5 * len(places), max_size=5 * len(places)))
    if drop and fill and len(set(places)) == 1:
        return  # Freqtrade's own fails on an empty frame, too
    _same(_frame(places, np.reshape(drawn, (-1, 5))), drop_incomplete=drop, fill_missing=fill)


GARBLED: dict[str, dict[str, float]] = {
    "negative": {"low": -1.0}, "zero": {"open": 0.0, "high": 0.0, "low": 0.0, "close": 0.0}, "crossed": {"high": 0.1},
    "volume": {"volume": -1.0},
}  # fmt: skip


@pytest.mark.parametrize("how", GARBLED)
@pytest.mark.parametrize("row", [0, 7, 18, 19])
def test_a_garbled_row_is_not_given_and_the_right_one_takes_its_place(how: str, row: int) -> None:
    clean = QuickCleaning(clean_ohlcv_dataframe)
    right = _frame(list(range(20)), np.random.default_rng(2).uniform(1, 2, (20, 5)))
    wrong = right.copy()
    wrong.loc[row, list(GARBLED[how])] = list(GARBLED[how].values())
    first = clean(wrong, "15m", "BTC/USDT", fill_missing=False, drop_incomplete=True)
    assert right["date"][row] not in set(first["date"])
    assert set(first["date"]) >= set(right["date"][:18]) - {right["date"][row]}
    after = clean(pd.concat([first, right]), "15m", "BTC/USDT", fill_missing=True, drop_incomplete=False)
    pd.testing.assert_frame_equal(after, right, check_freq=False)


def test_an_answer_of_garbled_rows_only_is_an_empty_one() -> None:
    wrong = _frame([0, 1, 2], np.ones((3, 5))).assign(low=-1.0)
    for options in ({"fill_missing": True, "drop_incomplete": True}, {"fill_missing": False, "drop_incomplete": False}):
        assert QuickCleaning(clean_ohlcv_dataframe)(wrong, "15m", "BTC/USDT", **options).empty


def test_a_new_candle_behind_a_long_past_needs_no_pandas() -> None:
    rng = np.random.default_rng(1)
    past = _frame(list(range(400)), rng.uniform(1, 2, (400, 5)))
    newest = _frame(list(range(350, 402)), rng.uniform(1, 2, (52, 5)))
    assert _same(pd.concat([past, newest]), drop_incomplete=True, fill_missing=True)
    hole = pd.concat([past, newest.iloc[-1:]])
    assert not _same(hole, drop_incomplete=False, fill_missing=True)
    assert not _same(past.assign(close=float("nan")), drop_incomplete=False, fill_missing=True)


def test_what_is_no_candle_is_left_alone() -> None:
    rates = pd.DataFrame({"date": _frame([0, 1], np.ones((2, 5)))["date"], "funding_rate": [0.1, 0.2]})
    assert not _same(rates, drop_incomplete=False, fill_missing=False, candle_type=CandleType.FUNDING_RATE)


def test_installed_once_in_both_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converter, "clean_ohlcv_dataframe", clean_ohlcv_dataframe)
    monkeypatch.setattr(exchanges, "clean_ohlcv_dataframe", clean_ohlcv_dataframe)
    quick_candles.install()
    first = converter.clean_ohlcv_dataframe
    assert isinstance(first, QuickCleaning)
    assert exchanges.clean_ohlcv_dataframe is first
    quick_candles.install()
    assert converter.clean_ohlcv_dataframe is first
    assert first.original is clean_ohlcv_dataframe


def test_a_frozen_feeds_half_candle_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    spec = BotSpec(
        "swing", "swing", "swing", "sandbox", "dry-run", ("BTC/USDT",), "15m", str(tmp_path), "http://unused"
    )
    config = setup_utils_configuration({"config": [str(path) for path in write_config(spec)]}, RunMode.BACKTEST)
    opened = [START_MS - START_MS % STEP_MS + STEP_MS * number for number in range(4)]
    frozen = [[at, 1.0, 1.0, 1.0, 1.0, 1.0] for at in opened]  # the last is still forming when the feed freezes

    def newest(exchange: Exchange, candles_later: int) -> int:
        asked_ms = opened[-1] + candles_later * STEP_MS + 1_000
        frame = exchange._process_ohlcv_df("BTC/USDT", "15m", CandleType.SPOT, frozen, False, True, asked_ms)
        return int(frame["date"].iloc[-1].timestamp() * 1000)

    theirs, ours = (offline_exchange(dict(config), {"BTC/USDT": 1.0}) for _ in range(2))
    quick_candles.drop_last(ours)
    assert newest(theirs, 2) == opened[-1], "Freqtrade itself believes it: else this mend is not needed any more"
    assert [newest(ours, later) for later in (0, 1, 2, 9)] == [opened[-2]] * 4
