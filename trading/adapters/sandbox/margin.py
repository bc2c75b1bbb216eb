"""The money of perpetuals: margin is set aside, profit and loss are paid by and to the market maker, funding is due.

Losses that an account's margin does not cover are the insurance fund's, so the books balance even through a gap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from trading.adapters.sandbox.ledger import FEES, INSURANCE, MARKET_MAKER, Ledger
from trading.adapters.sandbox.money import Settled, fee_of
from trading.adapters.sandbox.orders import Order, RefusalError
from trading.adapters.sandbox.positions import Position
from trading.adapters.sandbox.rules import SymbolRules


@dataclass(frozen=True, slots=True)
class Income:
    """One movement of an account's wallet, in Binance's words of it."""

    income_id: int
    account: str
    pair: str
    kind: str
    asset: str
    units: int
    time_ms: int
    fill_id: int = 0


class MarginMoney:
    """Positions, margins and incomes of all accounts. Isolated and cross margin, one-way mode."""

    def __init__(self, rules: Mapping[str, SymbolRules], ledger: Ledger) -> None:
        self.ledger, self.rules = ledger, rules
        self.incomes: list[Income] = []
        self._positions: defaultdict[str, dict[str, Position]] = defaultdict(dict)
        self._fills = 0

    def position(self, account: str, pair: str) -> Position:
        """An account's position of a pair, made flat when there was none."""
        return self._positions[account].setdefault(pair, Position(account, pair))

    def held(self, account: str | None = None) -> list[Position]:
        """Positions that are not flat, of one account or of all."""
        names = list(self._positions) if account is None else [account]
        return [item for name in names for item in self._positions[name].values() if item.lots]

    def reserve(self, order: Order, price: int) -> None:
        """Lock the initial margin of what would open; a conditional order locks nothing while it sleeps."""
        if not order.sleeping:
            self._reserve(order, price)

    def wake(self, order: Order, price: int) -> bool:
        """Reserve for an order whose stop was met; False when it can do nothing."""
        request = order.request
        if request.close_position:
            order.lots = self._opposite(order)
            return order.lots > 0
        try:
            self._reserve(order, price)
        except RefusalError:
            return False
        return True

    def fillable(self, order: Order, lots: int, price: int) -> int:
        """No more than there is to reduce; none where the margin of what would open is missing."""
        request, opposite = order.request, self._opposite(order)
        if request.reduce_only or request.close_position:
            return min(lots, opposite)
        needed = self._margin(request.account, request.pair, price, max(0, lots - opposite))
        free = self.ledger.balance(request.account, self.rules[request.pair].quote).free
        return lots if needed <= free + order.locked * lots // order.remaining else 0

    def settle(self, order: Order, price: int, lots: int, fee_ppm: int, at_ms: int) -> Settled:
        """Close what is opposite, open the rest, pay the fee."""
        request, rules = order.request, self.rules[order.request.pair]
        share = order.locked * lots // order.remaining
        self.ledger.unlock(request.account, rules.quote, share)
        order.locked -= share
        self._fills += 1
        position, closing = self.position(request.account, request.pair), min(lots, self._opposite(order))
        realized = self._close(position, closing, price, at_ms) if closing else 0
        if lots > closing:
            self._open(position, (lots - closing) * (1 if request.side == "BUY" else -1), price)
        position.updated_ms = at_ms
        fee = self._charge(position, "COMMISSION", fee_of(rules.cost(price, lots), fee_ppm), FEES, at_ms)
        return Settled(fee, rules.quote, realized)

    def release(self, order: Order) -> None:
        """Unlock the rest."""
        self.ledger.unlock(order.request.account, self.rules[order.request.pair].quote, order.locked)
        order.locked = 0

    def fund(self, position: Position, mark: int, rate_e8: int, at_ms: int) -> None:
        """A funding payment: longs pay a positive rate, shorts a negative one; isolated margin pays for itself."""
        rules = self.rules[position.pair]
        units = position.side * position.notional(rules, mark) * rate_e8 // 10**8
        if units > 0:
            self._charge(position, "FUNDING_FEE", units, MARKET_MAKER, at_ms, from_margin=position.isolated)
        elif units < 0:
            self.ledger.pay(MARKET_MAKER, position.account, rules.quote, -units)
            if position.isolated:
                self.ledger.lock(position.account, rules.quote, -units)
                position.margin -= units
            self._note(position, "FUNDING_FEE", -units, at_ms)

    def wallet(self, position: Position) -> int:
        """Units that carry a position: its own margin when isolated, else all that is not isolated elsewhere."""
        if position.isolated:
            return position.margin
        quote = self.rules[position.pair].quote
        elsewhere = sum(item.margin for item in self.held(position.account) if item.isolated)
        return self.ledger.balance(position.account, quote).total - elsewhere

    def available(self, account: str, quote: str, _at_ms: int) -> int:
        """Units that new orders may lock."""
        return self.ledger.balance(account, quote).free

    def penalise(self, position: Position, units: int, at_ms: int) -> None:
        """Liquidation's own fee, as far as there is money left for it."""
        free = self.ledger.balance(position.account, self.rules[position.pair].quote).free
        self._charge(position, "INSURANCE_CLEAR", min(units, free), INSURANCE, at_ms)

    def _reserve(self, order: Order, price: int) -> None:
        request, opposite = order.request, self._opposite(order)
        if request.reduce_only:
            if not opposite:
                raise RefusalError(-2022, "ReduceOnly Order is rejected.")
            return
        units = self._margin(request.account, request.pair, price, max(0, order.lots - opposite))
        quote = self.rules[request.pair].quote
        # an order that is placed or wakes has just been touched
        if units > self.available(request.account, quote, order.updated_ms):
            raise RefusalError(-2019, "Margin is insufficient.")
        self.ledger.lock(request.account, quote, units)
        order.locked = units

    def _opposite(self, order: Order) -> int:
        """Lots of the position that this order would close."""
        lots = self.position(order.request.account, order.request.pair).lots
        return max(0, -lots if order.request.side == "BUY" else lots)

    def _margin(self, account: str, pair: str, price: int, lots: int) -> int:
        return -(-self.rules[pair].cost(price, lots) // self.position(account, pair).leverage)

    def _open(self, position: Position, lots: int, price: int) -> None:
        rules = self.rules[position.pair]
        free = self.ledger.balance(position.account, rules.quote).free
        margin = min(free, self._margin(position.account, position.pair, price, abs(lots)))
        self.ledger.lock(position.account, rules.quote, margin)
        position.lots += lots
        position.cost += rules.cost(price, abs(lots))
        position.margin += margin

    def _close(self, position: Position, lots: int, price: int, at_ms: int) -> int:
        """Close some of a position; returns the profit. What a loss exceeds the margin by, the insurance pays."""
        rules, whole, side = self.rules[position.pair], abs(position.lots), position.side
        entry, margin = position.cost * lots // whole, position.margin * lots // whole
        profit = side * (rules.cost(price, lots) - entry)
        position.lots -= side * lots
        position.cost -= entry
        position.margin -= margin
        self.ledger.unlock(position.account, rules.quote, margin)
        if profit >= 0:
            self.ledger.pay(MARKET_MAKER, position.account, rules.quote, profit)
        else:
            free = self.ledger.balance(position.account, rules.quote).free
            borne = min(-profit, margin if position.isolated else free, free)
            self.ledger.pay(position.account, MARKET_MAKER, rules.quote, borne)
            self.ledger.pay(INSURANCE, MARKET_MAKER, rules.quote, -profit - borne)
            profit = -borne
        self._note(position, "REALIZED_PNL", profit, at_ms)
        return profit

    def _charge(
        self, position: Position, kind: str, units: int, payee: str, at_ms: int, *, from_margin: bool = False
    ) -> int:
        """Take units from an account, from the insurance what it does not have; returns what the account paid."""
        quote = self.rules[position.pair].quote
        if from_margin:
            freed = min(units, position.margin)
            self.ledger.unlock(position.account, quote, freed)
            position.margin -= freed
        paid = min(units, self.ledger.balance(position.account, quote).free)
        self.ledger.pay(position.account, payee, quote, paid)
        self.ledger.pay(INSURANCE, payee, quote, units - paid)
        self._note(position, kind, -paid, at_ms)
        return paid

    def _note(self, position: Position, kind: str, units: int, at_ms: int) -> None:
        if units:
            asset = self.rules[position.pair].quote
            fill = 0 if kind == "FUNDING_FEE" else self._fills
            number = len(self.incomes) + 1
            self.incomes.append(Income(number, position.account, position.pair, kind, asset, units, at_ms, fill))
