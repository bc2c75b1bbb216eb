"""Prices by which an account may be valued: a close that leaps counts only when the exchange's ticker says so, too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from freqtrade.exceptions import FreqtradeException

from observability.logging import get_logger
from trading.adapters import holdings

log = get_logger(__name__)

LEAP = 1.2  # a close further from the one before than this factor, either way, is asked about


class Marks:
    """Remembers the last believed price of each pair of one bot.

    A garbled close, ten times too high, would make an account rich for a moment: the portfolio's target would sell it
    all, and every later worth would be a drawdown from a peak that never was. One far too low looks like ruin. A real
    crash shows in the ticker in the same second, and gets through.
    """

    def __init__(self) -> None:
        self._believed: dict[str, float] = {}

    def believed(self, bot: Any, marks: Mapping[str, float]) -> dict[str, float]:
        """Those of `marks` that lie near the pair's last believed price or near its ticker.

        A first one, after a start, is asked about where the account holds any of it; else nothing hangs on it.
        """
        good, held = {}, holdings.held(bot, marks)
        for pair, mark in marks.items():
            before = self._believed.get(pair, math.nan if pair in held else mark)
            if not _near(mark, before):
                last = _ticker(bot, pair)
                if not _near(mark, last):
                    log.warning("price_doubted", pair=pair, close=mark, before=before, ticker=last)
                    continue
            good[pair] = self._believed[pair] = mark
        return good


def _near(one: float, other: float) -> bool:
    return other > 0 and 1.0 / LEAP <= one / other <= LEAP


def _ticker(bot: Any, pair: str) -> float:
    """The last traded price now; NaN where the exchange does not tell it."""
    try:
        return float(bot.exchange.fetch_ticker(pair)["last"])
    except (FreqtradeException, KeyError, TypeError, ValueError) as error:
        log.warning("no_ticker", pair=pair, error=f"{type(error).__name__}: {error}"[:300])
        return math.nan
