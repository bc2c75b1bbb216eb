"""A statistical pair on perpetuals in one bot: one leg long, the other short, each an ordinary trade with its own stop.

Not atomic: Freqtrade sends the two orders one after the other, and either may be refused, late or stopped out. A leg
whose partner is not there after the leg time-out is closed, and no leg is opened beside a partner that is older.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from freqtrade.persistence import Trade

from observability.errors import SettingsError
from trading.adapters.strategies.base import FailClosedStrategy
from trading.arbitrage.spread import PairPolicy, pair_signals

ALONE = "lone leg"


class StatArb(FailClosedStrategy):
    """`trading.arbitrage.spread`; settings: `legs` [A, B], `policy` fields of `PairPolicy`, `leg_stop` as a fraction,
    `leg_timeout` in candles.
    """

    can_short = True
    startup_candle_count = 600

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.policy = PairPolicy(**self.settings.get("policy", {}))
        legs = tuple(self.settings.get("legs", ()) or config.get("exchange", {}).get("pair_whitelist", ())[:2])
        if len(legs) != 2 or legs[0] == legs[1]:
            raise SettingsError("a statistical pair has two legs", where=f"mtst.legs = {legs}")
        self.legs: tuple[str, str] = (legs[0], legs[1])
        self.leg_stop = float(self.settings.get("leg_stop", 0.05))
        self.leg_timeout = int(self.settings.get("leg_timeout", 1))
        self._betas: dict[int, float] = {}

    def signals(self, frame: pd.DataFrame, pair: str) -> pd.DataFrame:
        """Of a leg; pairs that are none of the two have no signals."""
        first = pair == self.legs[0]
        if pair not in self.legs:
            nothing = {"entry": False, "exit": False, "entry_short": False, "exit_short": False}
            return pd.DataFrame({**nothing, "stop_distance": math.nan}, index=frame.index)
        other = self.dp.get_pair_dataframe(self.legs[1] if first else self.legs[0], self.timeframe)
        partner = (
            other.drop_duplicates("date", keep="last").set_index("date")["close"].reindex(frame["date"]).to_numpy()
        )
        own = frame["close"].to_numpy(dtype=float)
        a, b = (own, partner) if first else (partner, own)
        times = np.array([int(moment.timestamp() * 1000) for moment in frame["date"]])
        found = pair_signals(times, a, b, self.step_ms, self.policy).set_index(frame.index)
        self._betas = dict(zip(times.tolist(), found["beta"].tolist(), strict=True))
        buys, sells = ("long_a", "short_a") if first else ("short_a", "long_a")
        leaves = {"long_a": "exit_long", "short_a": "exit_short"}
        return pd.DataFrame(
            {
                "entry": found[buys],
                "exit": found[leaves[buys]],
                "entry_short": found[sells],
                "exit_short": found[leaves[sells]],
                "stop_distance": self.leg_stop,
                "beta": found["beta"],
                "z": found["z"],
            }
        )

    def stake_fraction(self, pair: str, stop_distance: float) -> float:
        """The same cap for the heavier leg; the other as the hedge says."""
        candle = self.candle(pair)
        beta = math.nan if candle is None else self._betas.get(candle, math.nan)
        if not math.isfinite(beta) or beta <= 0:
            return 0.0
        return super().stake_fraction(pair, stop_distance) * (1.0 if pair == self.legs[0] else beta) / max(1.0, beta)

    def confirm_trade_entry(  # noqa: PLR0917 - Freqtrade's signature
        self, pair: str, order_type: str, amount: float, rate: float, time_in_force: str, current_time: datetime,
        entry_tag: str | None, side: str, **kwargs: Any,
    ) -> bool:  # fmt: skip
        """Both legs of one moment, or none."""
        asked = super().confirm_trade_entry(
            pair, order_type, amount, rate, time_in_force, current_time, entry_tag, side, **kwargs
        )
        return asked and self._guard("legs", lambda: self._may_join(pair, side, current_time), False) is True

    def custom_exit(
        self, pair: str, trade: Trade, current_time: datetime, current_rate: float, current_profit: float, **kwargs: Any
    ) -> str | None:
        """A leg that stands alone after the time-out is closed."""
        asked = super().custom_exit(pair, trade, current_time, current_rate, current_profit, **kwargs)
        if asked:
            return asked
        return ALONE if self._partner(pair) is None and self._age(trade, current_time) >= self.leg_timeout else None

    def leverage(self, *args: Any, **kwargs: Any) -> float:
        """None: the short leg's liquidation stays far away."""
        return 1.0

    def _may_join(self, pair: str, side: str, now: datetime) -> bool:
        partner = self._partner(pair)
        if partner is None:
            return True
        opposite = partner.is_short == (side == "long")
        return opposite and self._age(partner, now) < self.leg_timeout

    def _partner(self, pair: str) -> Trade | None:
        other = self.legs[1] if pair == self.legs[0] else self.legs[0]
        return next((trade for trade in Trade.get_trades_proxy(is_open=True) if trade.pair == other), None)

    def _age(self, trade: Trade, now: datetime) -> float:
        """In candles."""
        return float((now - trade.open_date_utc).total_seconds() * 1000 / self.step_ms)
