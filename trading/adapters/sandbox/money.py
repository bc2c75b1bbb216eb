"""What the engine asks of the money behind its orders, and how spot answers: whole assets change hands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from trading.adapters.sandbox.ledger import FEES, MARKET_MAKER, Ledger
from trading.adapters.sandbox.orders import Order, RefusalError
from trading.adapters.sandbox.rules import PPM, SymbolRules

if TYPE_CHECKING:
    from trading.adapters.sandbox.matching import Engine


@dataclass(frozen=True, slots=True)
class Settled:
    """What a fill moved besides its cost: fee in units of `fee_asset`, and realised profit (futures)."""

    fee: int
    fee_asset: str
    realized: int = 0


class Money(Protocol):
    """One wallet system behind an engine; every amount in units, every price in ticks."""

    ledger: Ledger

    def reserve(self, order: Order, price: int) -> None:
        """Set aside what an order may need at `price`; raises RefusalError, changing nothing."""

    def wake(self, order: Order, price: int) -> bool:
        """Set aside for a conditional order whose stop was met; False when it cannot work."""

    def fillable(self, order: Order, lots: int, price: int) -> int:
        """How many of `lots` the order may fill at `price` now: fewer where it may only reduce or cannot pay."""

    def settle(self, order: Order, price: int, lots: int, fee_ppm: int, at_ms: int) -> Settled:
        """Move the money of a fill."""

    def release(self, order: Order) -> None:
        """Free what is still set aside for an order."""

    def next_ms(self, after_ms: int, until_ms: int) -> int | None:
        """When something happens by itself (funding, liquidation) in [after_ms, until_ms]."""

    def happen(self, at_ms: int, engine: Engine) -> None:
        """Let it happen."""


def fee_of(units: int, ppm: int) -> int:
    """A fee, rounded to the nearest unit."""
    return (units * ppm + PPM // 2) // PPM


class SpotMoney:
    """Base and quote are swapped with the market maker; the fee comes out of what was received."""

    def __init__(self, rules: Mapping[str, SymbolRules], ledger: Ledger) -> None:
        self.ledger, self._rules = ledger, rules

    def reserve(self, order: Order, price: int) -> None:
        """Lock the whole price of a buy, the whole amount of a sale."""
        request, rules = order.request, self._rules[order.request.pair]
        sells = request.side == "SELL"
        asset, units = (rules.base, rules.amount(order.lots)) if sells else (rules.quote, rules.cost(price, order.lots))
        if not self.ledger.lock(request.account, asset, units):
            raise RefusalError(-2010, "Account has insufficient balance for requested action.")
        order.locked = units

    def wake(self, order: Order, price: int) -> bool:
        """What it needs was set aside when it was placed."""
        return True

    def fillable(self, order: Order, lots: int, price: int) -> int:
        """All of them, unless a market stop met a price that its account cannot pay."""
        request, rules = order.request, self._rules[order.request.pair]
        short = rules.cost(price, lots) - order.locked if request.side == "BUY" else 0
        if short <= 0:
            return lots
        if not self.ledger.lock(request.account, rules.quote, short):
            return 0
        order.locked += short
        return lots

    def settle(self, order: Order, price: int, lots: int, fee_ppm: int, at_ms: int) -> Settled:
        """Swap, then pay the fee."""
        request, rules, ledger = order.request, self._rules[order.request.pair], self.ledger
        cost, amount = rules.cost(price, lots), rules.amount(lots)
        buys = request.side == "BUY"
        given, received = (cost, amount) if buys else (amount, cost)
        give_asset, get_asset = (rules.quote, rules.base) if buys else (rules.base, rules.quote)
        fee = fee_of(received, fee_ppm)
        ledger.pay_locked(request.account, MARKET_MAKER, give_asset, given)
        ledger.pay(MARKET_MAKER, request.account, get_asset, received)
        ledger.pay(request.account, FEES, get_asset, fee)
        order.locked -= given
        return Settled(fee, get_asset)

    def release(self, order: Order) -> None:
        """Unlock the rest."""
        rules = self._rules[order.request.pair]
        self.ledger.unlock(
            order.request.account, rules.quote if order.request.side == "BUY" else rules.base, order.locked
        )
        order.locked = 0

    def next_ms(self, after_ms: int, until_ms: int) -> int | None:
        """Nothing happens to spot by itself."""
        return None

    def happen(self, at_ms: int, engine: Engine) -> None:
        """Nothing to do."""
