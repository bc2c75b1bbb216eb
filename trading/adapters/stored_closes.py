"""Closes out of the candle store, for the estimate of how assets move and how far together."""

from __future__ import annotations

from collections.abc import Collection

from observability.errors import DataError
from observability.logging import get_logger
from pipelines.candles import timeframe_ms
from pipelines.store import CandleStore
from trading.question import base_asset

log = get_logger(__name__)

DAYS = 90  # what is older says little about today
DAY_MS = 86_400_000


def stored_closes(root: str, exchange: str, pairs: Collection[str]) -> dict[str, tuple[list[int], list[float]]]:
    """Asset -> (open times in ms, closes) of the last `DAYS` days, at each pair's finest stored timeframe.

    A pair that is not stored, or cannot be read, is left out and logged: the risk manager then takes its fallbacks.

    Args:
        root: of the store.
        exchange: whose candles count.
        pairs: which ones; empty takes all.
    """
    store = CandleStore(root)
    found: dict[str, tuple[list[int], list[float]]] = {}
    keys = [key for key in store.keys("ohlcv") if key.exchange == exchange and (not pairs or key.pair in pairs)]
    for key in sorted(keys, key=lambda key: timeframe_ms(key.timeframe)):
        asset = base_asset(key.pair)
        if asset in found:
            continue
        try:
            candles = store.read(key)
        except DataError as error:
            log.warning("closes_unread", pair=key.pair, error=str(error))
            continue
        at = candles["timestamp"].dt.epoch("ms").to_list()
        first = next((i for i, ms in enumerate(at) if at[-1] - ms <= DAYS * DAY_MS), 0)
        found[asset] = (at[first:], candles["close"].to_list()[first:])
    return found
