"""Exact money: every price, amount and balance is an integer, so books balance to zero and not to a tolerance.

Prices count ticks (10^-price_decimals of the quote asset), amounts count lots (10^-lot_decimals of the base asset) and
balances count units (10^-8 of any asset, Binance's resolution).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

UNIT_DECIMALS = 8
UNIT = 10**UNIT_DECIMALS
PPM = 1_000_000

INTERVALS_MS: dict[str, int] = {
    "1m": 60_000,
    "3m": 180_000,
    "5m": 300_000,
    "15m": 900_000,
    "30m": 1_800_000,
    "1h": 3_600_000,
    "2h": 7_200_000,
    "4h": 14_400_000,
    "6h": 21_600_000,
    "8h": 28_800_000,
    "12h": 43_200_000,
    "1d": 86_400_000,
    "3d": 259_200_000,
    "1w": 604_800_000,
}
"""Binance's kline intervals of fixed length, in milliseconds."""


def to_units(text: str) -> int:
    """Units of 10^-8 in a decimal text.

    Raises:
        ValueError: not a finite decimal number, or finer than 10^-8.
    """
    return scaled(text, UNIT_DECIMALS)


def scaled(text: str, decimals: int) -> int:
    """A decimal text as an integer count of 10^-decimals; raises ValueError when it is no such count."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a number") from None
    if not number.is_finite() or abs(number) > 10**15:
        raise ValueError(f"{text!r} is out of range")
    count = number.scaleb(decimals)
    if count != count.to_integral_value():
        raise ValueError(f"{text!r} has more than {decimals} decimals")
    return int(count)


def decimal_text(count: int, decimals: int) -> str:
    """Binance's fixed eight-decimal text of `count` x 10^-decimals."""
    units = count * 10 ** (UNIT_DECIMALS - decimals)
    sign, units = ("-", -units) if units < 0 else ("", units)
    return f"{sign}{units // UNIT}.{units % UNIT:08d}"


def units_text(units: int) -> str:
    """The text of a balance."""
    return decimal_text(units, UNIT_DECIMALS)


@dataclass(frozen=True, slots=True)
class SymbolRules:
    """How one pair is counted, and the filters that an order must pass."""

    pair: str
    price_decimals: int
    lot_decimals: int
    min_notional: int = 5 * UNIT
    max_lots: int = 10**12
    perpetual: bool = False

    def __post_init__(self) -> None:
        if self.price_decimals + self.lot_decimals > UNIT_DECIMALS:
            raise ValueError(f"{self.pair}: {self.price_decimals} price and {self.lot_decimals} lot decimals exceed 8")

    @property
    def base(self) -> str:
        """The asset that is bought and sold."""
        return self.pair.partition("/")[0]

    @property
    def quote(self) -> str:
        """The asset that prices are in."""
        return self.pair.partition("/")[2]

    @property
    def name(self) -> str:
        """What ccxt calls it: the pair, and of its perpetual BASE/QUOTE:QUOTE."""
        return f"{self.pair}:{self.quote}" if self.perpetual else self.pair

    @property
    def symbol(self) -> str:
        """Binance's name of the pair."""
        return self.pair.replace("/", "")

    def cost(self, ticks: int, lots: int) -> int:
        """Quote units of `lots` at `ticks`; exact."""
        return ticks * lots * int(10 ** (UNIT_DECIMALS - self.price_decimals - self.lot_decimals))

    def amount(self, lots: int) -> int:
        """Base units of `lots`."""
        return lots * int(10 ** (UNIT_DECIMALS - self.lot_decimals))

    def price_text(self, ticks: int) -> str:
        """Decimal text of a price."""
        return decimal_text(ticks, self.price_decimals)

    def lots_text(self, lots: int) -> str:
        """Decimal text of an amount."""
        return decimal_text(lots, self.lot_decimals)


def lot_decimals_for(price: float) -> int:
    """Lot decimals such that one lot is worth between 0.1 and 1 of the quote asset, as on Binance."""
    return min(max(math.floor(math.log10(price)) + 1, 0), UNIT_DECIMALS)


def price_decimals_for(price: float, lot_decimals: int) -> int:
    """Price decimals that give about six significant digits, as far as the lot decimals leave room."""
    return min(max(5 - math.floor(math.log10(price)), 0), UNIT_DECIMALS - lot_decimals)
