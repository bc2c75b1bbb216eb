"""What is asked on a random walk: the limits and the candle of its world, and entries in it, sound and odd ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from random import Random

from benchmarks.risk_tally import Tally
from trading.clock import FixedClock
from trading.limits import DAY_MS, RiskLimits
from trading.orders import ForecastRef, OrderIntent

START, CANDLE = 1_700_000_100_000, 900_000
LIMITS = RiskLimits(
    accounts={"spot": "sandbox", "perp": "binance"},
    short_venues=frozenset({"binance"}),
    rule_bots=frozenset({"swing"}),
    max_position=0.2, max_asset=0.25, max_gross=0.6, max_net=0.45, max_leverage=0.5, max_correlated=0.45,
    max_shortfall=0.08, max_trade_sigma=0.002, max_open_positions=4, max_entries=40, max_pair_entries=12,
    max_notional=2_500.0,
    max_losing_streak=5, max_report_age_ms=600_000, lease_ttl_ms=600_000, portfolio_take=0.3,
)  # fmt: skip


class Intents:
    """Makes entries by the dice.

    Args:
        dice, clock: of the walk; tally: its prices and epochs make an entry sound.
        numbers: names what is made.
    """

    def __init__(self, dice: Random, clock: FixedClock, tally: Tally, numbers: Iterator[int]) -> None:
        self.dice, self.clock, self.tally, self.numbers = dice, clock, tally, numbers

    def account(self) -> str:
        """One of the two accounts."""
        return self.dice.choice(("spot", "perp"))

    def intent(self, name: str) -> OrderIntent:
        """An entry of an account that is mostly sound; every limit refuses or cuts some."""
        dice, now = self.dice, self.clock.at_ms
        pair = dice.choice(sorted(self.tally.prices))
        side = "sell" if name == "perp" and dice.random() < 0.4 else "buy"
        price = self.tally.known_price(name, pair) * (1 + dice.uniform(-0.01, 0.01))
        stop = price * (1 + (0.03 if side == "sell" else -0.03) * dice.uniform(0.3, 2.0))
        forecast = ForecastRef(now - CANDLE, "m:1", "champion", dice.uniform(0.0, 0.01), dice.uniform(0.002, 0.03))
        return OrderIntent(
            f"i{next(self.numbers)}", "nn", name, LIMITS.accounts[name], pair, side, "entry",  # type: ignore[arg-type]
            math.exp(dice.uniform(math.log(5.0), math.log(4_000.0))) / price, price, stop,
            self.tally.accounts[name].epoch, now, now - CANDLE, forecast, CANDLE,
        )  # fmt: skip

    def spoilt(self, intent: OrderIntent) -> OrderIntent:
        """The intent with one thing wrong, or at least odd."""
        dice, forecast = self.dice, intent.forecast
        bad = dice.choice((math.nan, math.inf, -1.0, 0.0))
        assert forecast is not None  # every intent here is made with one
        odd = (
            {"amount": bad}, {"price": bad}, {"stop_price": bad}, {"stop_price": None}, {"pair": "BTCUSDT"},
            {"pair": "NEW/USDT"}, {"account": "other"}, {"venue": "elsewhere"}, {"lease_epoch": intent.lease_epoch - 1},
            {"created_ms": intent.created_ms - 60_000}, {"candle_ms": intent.candle_ms + 5 * CANDLE},
            {"candle_ms": intent.candle_ms - 5 * CANDLE}, {"forecast": None}, {"forecast": None, "bot": "swing"},
            {"forecast": replace(forecast, status="shadow")}, {"forecast": replace(forecast, edge=-0.01)},
            {"forecast": replace(forecast, sigma=bad)}, {"forecast": replace(forecast, as_of_ms=START - DAY_MS)},
            {"price": intent.price * 1.05}, {"stop_price": intent.price * (0.7 if intent.side == "buy" else 1.3)},
            {"intent_id": "i1"}, {"intent_id": self.tally.last_approved or "i2"}, {"side": "sell"}, {"bot": ""},
        )  # fmt: skip
        return replace(intent, **dice.choice(odd))
