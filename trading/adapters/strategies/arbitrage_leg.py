"""One leg of an arbitrage over two books: it tells the coordinator what it sees, and does what that wants of it.

Leg "a" is bought, leg "b" sold short; each is a bot on an account of its own. Not atomic: between the first leg's fill
and the second's, and from one leg's stop to the other's exit, the position is a plain bet. Without the coordinator's
word nothing is entered; a leg that holds something and hears nothing for too long closes it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol, cast

import numpy as np
import pandas as pd
from freqtrade.persistence import Order, Trade

from observability.errors import SettingsError, TradingError
from trading.adapters.strategies.base import FailClosedStrategy
from trading.arbitrage.standing import LONG, SHORT, SILENCE_MS, Advice, LegView

FUNDING, FUNDING_STEP = "funding_rate", "1h"


class LegDesk(Protocol):
    """What a leg uses of its desk beside what every strategy does."""

    @property
    def ready(self) -> bool:
        """See the base."""

    @property
    def unsettled(self) -> bool:
        """Whether an approved entry's outcome is not known yet."""

    def equity(self) -> float:
        """See the base."""

    def advise(self, view: LegView) -> Advice:
        """What the coordinator wants of a leg that sees this; raises GateError when there is no answer."""


class ArbitrageLeg(FailClosedStrategy):
    """Settings: `leg` "a" or "b"; `leg_stop`, distance of its stop; `silence_ms` as in the coordinator's plan."""

    stoploss = -0.15
    startup_candle_count = 30
    process_only_new_candles = False  # what the coordinator wants may change within a candle

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.leg = LONG if self.settings.get("leg") == LONG else SHORT
        self.can_short = self.leg == SHORT
        pairs = config.get("exchange", {}).get("pair_whitelist", ())
        if len(pairs) != 1 or self.settings.get("leg") not in (LONG, SHORT):
            raise SettingsError("a leg trades one pair on one side", where=f"{pairs}, {self.settings.get('leg')!r}")
        self.pair: str = pairs[0]
        self.leg_stop = float(self.settings.get("leg_stop", 0.1))
        self._silence_s = float(self.settings.get("silence_ms", SILENCE_MS)) / 1000
        self._advice: Advice | None = None
        self._seen: LegView | None = None
        self._heard_s = time.time()

    def informative_pairs(self) -> list[tuple[str, str, str]]:
        """The funding payments, where this is a perpetual."""
        return [(self.pair, FUNDING_STEP, FUNDING)] if ":" in self.pair else []

    def prepare(self, marks: Mapping[str, float]) -> None:
        """Tell the coordinator what this leg sees and take its advice; none survives its loop.

        Raises:
            TradingError: a price is missing. GateError: nobody answers.
        """
        self._advice = None
        if self.desk is None or self._simulated():
            return
        desk = cast(LegDesk, self.desk)
        self._seen = self._view(desk)
        self._advice = desk.advise(self._seen)
        self._heard_s = time.time()

    def signals(self, frame: pd.DataFrame, pair: str) -> pd.DataFrame:
        """An entry now, if the coordinator wants this leg opened."""
        entry = np.zeros(len(frame), dtype=bool)
        entry[-1:] = self._wants("open")
        nothing = {"entry": False, "exit": False, "entry_short": False, "exit_short": False}
        side = "entry_short" if self.leg == SHORT else "entry"
        columns = {**nothing, side: entry, "stop_distance": self.leg_stop}
        return pd.DataFrame(columns, index=frame.index)

    def stake_fraction(self, pair: str, stop_distance: float) -> float:
        """The amount that both legs agreed on, as a part of this account."""
        equity = cast(LegDesk, self.desk).equity()
        if self._advice is None or self._seen is None or self._advice.verb != "open" or not equity > 0:
            return 0.0
        return self._advice.amount * (self._seen.bid if self.leg == SHORT else self._seen.ask) / equity

    def confirm_trade_entry(  # noqa: PLR0917 - Freqtrade's signature
        self, pair: str, order_type: str, amount: float, rate: float, time_in_force: str, current_time: datetime,
        entry_tag: str | None, side: str, **kwargs: Any,
    ) -> bool:  # fmt: skip
        """Only what the coordinator wants now, and only once."""
        asked = super().confirm_trade_entry(
            pair, order_type, amount, rate, time_in_force, current_time, entry_tag, side, **kwargs
        )
        if self.adopting:
            return asked
        return asked and self._wants("open") and side == ("short" if self.leg == SHORT else "long")

    def check_entry_timeout(self, pair: str, trade: Trade, order: Order, current_time: datetime, **kwargs: Any) -> bool:
        """Take an entry back that nobody wants any more; Freqtrade's own time-out goes on beside this."""
        asked = super().check_entry_timeout(pair, trade, order, current_time, **kwargs)
        return asked or self._wants("close") or self._forsaken()

    def custom_exit(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float, current_profit: float, **kwargs: Any
    ) -> str | None:
        """Close when the coordinator wants it, or when it was not heard for too long."""
        asked = super().custom_exit(pair, trade, current_time, current_rate, current_profit, **kwargs)
        if asked:
            return asked
        if self._advice is not None and self._wants("close"):
            return self._advice.phase.value
        return "no coordinator" if self._forsaken() else None

    def leverage(self, *args: Any, **kwargs: Any) -> float:
        """None: a short leg's liquidation stays far away."""
        return 1.0

    def _wants(self, verb: str) -> bool:
        return self._advice is not None and self._advice.verb == verb

    def _forsaken(self) -> bool:
        """Whether the coordinator was not heard for so long that it counts this leg as lost."""
        return not self._simulated() and time.time() - self._heard_s > self._silence_s

    def _view(self, desk: LegDesk) -> LegView:
        trades = [trade for trade in Trade.get_trades_proxy(is_open=True) if trade.pair == self.pair]
        bid, ask = self._best()
        cap = super().stake_fraction(self.pair, self.leg_stop)
        return LegView(
            leg=self.leg,
            held=float(sum(trade.amount for trade in trades)),
            pending=desk.unsettled or any(trade.has_open_orders for trade in trades),
            bid=bid,
            ask=ask,
            room=cap * desk.equity() / ask,
            ready=desk.ready,
            rates=self._rates(),
        )

    def _best(self) -> tuple[float, float]:
        book = self.dp.orderbook(self.pair, 1)
        try:
            bid, ask = float(book["bids"][0][0]), float(book["asks"][0][0])
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise TradingError(f"no prices in the order book: {error}", where=self.pair) from error
        if not 0 < bid <= ask < math.inf:
            raise TradingError(f"the order book says {bid} to {ask}", where=self.pair)
        return bid, ask

    def _rates(self) -> tuple[float, ...]:
        """Funding payments so far, oldest first; none of spot."""
        if ":" not in self.pair:
            return ()
        frame = self.dp.get_pair_dataframe(self.pair, FUNDING_STEP, FUNDING)
        return tuple(frame[FUNDING].dropna().astype(float)) if FUNDING in frame else ()
