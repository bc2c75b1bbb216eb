"""Freqtrade's cleaning of candles: the same result in a twentieth of the time, and no half candle taken for a whole.

Freqtrade groups and resamples a pair's whole history by pandas twice a new candle, which costs more than the rest of a
bot's loop. Here numpy merges the candles, and only a history with holes or with a number that is not finite is left to
the original.

A row that cannot be a candle counts as one that was not given. Freqtrade merges each answer into what it had, and the
lowest low and the highest high win: a garbled row would stay however often the right one came after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from freqtrade.data.converter import converter
from freqtrade.enums import CandleType
from freqtrade.exchange import exchange as exchanges

from pipelines.candles import timeframe_ms

PRICED = (CandleType.SPOT, CandleType.FUTURES)
MERGES: dict[str, np.ufunc] = {"high": np.maximum, "low": np.minimum, "volume": np.maximum}
Clean = Callable[..., pd.DataFrame]


def install() -> None:
    """Clean this process's candles quickly from now on; a second call changes nothing."""
    original: Clean = converter.clean_ohlcv_dataframe
    if isinstance(original, QuickCleaning):
        return
    # Freqtrade's two modules that clean each hold the function under a name of their own
    converter.clean_ohlcv_dataframe = exchanges.clean_ohlcv_dataframe = QuickCleaning(original)


def drop_last(exchange: Any) -> None:
    """Have a Freqtrade exchange never take the newest candle of an answer for a closed one.

    After a candle's silence Freqtrade believes that the exchange has nothing newer, and takes the half candle that a
    frozen feed goes on showing for a whole one. Where the forming candle is always shown, as on Binance, the last row
    is that one, or the feed lags behind; then nothing is lost but a moment.
    """
    exchange._candle_is_final = lambda *_: False


class QuickCleaning:
    """`clean_ohlcv_dataframe`, same arguments and result; `original` does what is out of the ordinary."""

    def __init__(self, original: Clean) -> None:
        self.original = original

    def __call__(self, dataframe: pd.DataFrame, timeframe: str, pair: str, **options: Any) -> pd.DataFrame:
        """See Freqtrade."""
        if options.get("candle_type", CandleType.SPOT) in PRICED and len(dataframe):
            given, dataframe = len(dataframe), dataframe[~garbled(dataframe)]
            if len(dataframe) < min(2, given):
                return dataframe.iloc[:0]  # the original fails where no whole candle is left
            merged = merged_candles(dataframe)
            if merged is not None and options["drop_incomplete"]:
                merged = merged.iloc[:-1]
            if merged is not None and (not options["fill_missing"] or without_holes(merged, timeframe_ms(timeframe))):
                return merged
        return self.original(dataframe, timeframe, pair, **options)


def garbled(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows with a price or volume below what can be, or open or close beyond high or low; NaN makes none."""
    opened, high, low, close, volume = (
        frame[name].to_numpy(dtype=float) for name in ("open", "high", "low", "close", "volume")
    )
    prices = np.column_stack([opened, high, low, close])
    beyond = (high < np.fmax(opened, close)) | (low > np.fmin(opened, close))
    found: npt.NDArray[np.bool_] = (prices <= 0).any(axis=1) | (volume < 0) | beyond
    return found


def merged_candles(frame: pd.DataFrame) -> pd.DataFrame | None:
    """One row a date, in order, duplicates merged as Freqtrade does; None where a number is not finite."""
    numbers = {name: frame[name].to_numpy(dtype=float) for name in ("open", "high", "low", "close", "volume")}
    if not all(np.isfinite(column).all() for column in numbers.values()):
        return None
    at = frame["date"].astype("int64").to_numpy()
    order = np.argsort(at, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(at[order]) != 0]))
    ends = np.concatenate([starts[1:], [len(order)]]) - 1
    columns: dict[str, Any] = {"date": frame["date"].iloc[order[starts]].reset_index(drop=True)}
    for name, column in numbers.items():
        values = column[order]
        if name in MERGES:
            columns[name] = MERGES[name].reduceat(values, starts)
        else:
            columns[name] = values[starts if name == "open" else ends]
    return pd.DataFrame(columns)


def without_holes(frame: pd.DataFrame, step_ms: int) -> bool:
    """Whether every row follows the one before it after one step, on the timeframe's grid."""
    dates = frame["date"]
    at, step = dates.astype("int64").to_numpy(), step_ms * per_ms(dates)
    return bool(len(at) and at[0] % step == 0 and (np.diff(at) == step).all())


def per_ms(dates: pd.Series) -> int:
    """Units of a column of dates in a millisecond."""
    return {"ns": 1_000_000, "us": 1_000, "ms": 1}[dates.dt.unit]
