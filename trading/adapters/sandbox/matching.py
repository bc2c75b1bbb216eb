"""The matching engine: pure, deterministic, and knowing only a price path, never a clock or a network.

One deep market maker stands on the other side of every order. Marketable orders take its quote (price +- half the
spread) at once; resting orders fill at their own limit as soon as the price goes *through* it, not when it touches.
Spot and futures are two of these engines; what differs is the `Money` behind them.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import orjson

from trading.adapters.sandbox.checks import check_order
from trading.adapters.sandbox.money import Money
from trading.adapters.sandbox.orders import Fill, Kind, Order, OrderRequest, RefusalError, Status
from trading.adapters.sandbox.rules import PPM, SymbolRules


class Prices(Protocol):
    """Where the price goes; times in ms, prices in ticks."""

    def price(self, pair: str, at_ms: int) -> int:
        """Last traded price at a time."""

    def first_below(self, pair: str, after_ms: int, until_ms: int, level: int) -> int | None:
        """First time in (after_ms, until_ms] with a price under `level`."""

    def first_above(self, pair: str, after_ms: int, until_ms: int, level: int) -> int | None:
        """First time in (after_ms, until_ms] with a price over `level`."""


@dataclass(frozen=True, slots=True)
class Liquidity:
    """How much fills at once: quote units a fill (0: all), and the time until more may fill."""

    fill_units: int = 0
    refill_ms: int = 60_000


@dataclass(frozen=True)
class Terms:
    """What trading costs, in parts per million, and how deep the market is for resting orders."""

    maker_ppm: int = 1000
    taker_ppm: int = 1000
    spread_ppm: int = 100
    liquidity: Liquidity = Liquidity()


class Engine:
    """All orders and fills of all accounts on one market.

    Args:
        thin: says for a pair (a perpetual's ends in :QUOTE) and a time that only so much fills at once, marketable
            orders included; None: no bound.
    """

    def __init__(
        self,
        rules: Mapping[str, SymbolRules],
        prices: Prices,
        money: Money,
        terms: Terms,
        thin: Callable[[str, int], Liquidity | None] = lambda _pair, _at_ms: None,
    ) -> None:
        self.rules, self.money, self.terms = rules, money, terms
        self._prices, self._thin = prices, thin
        self.orders: dict[int, Order] = {}
        self.fills: list[Fill] = []
        self._open: dict[int, Order] = {}

    def quote(self, pair: str, at_ms: int) -> tuple[int, int]:
        """Best bid and ask; they differ by at least a tick."""
        last = self._prices.price(pair, at_ms)
        half = last * self.terms.spread_ppm // (2 * PPM)
        return max(last - half, 1), last + max(half, 1)

    def open_orders(self, account: str, pair: str | None = None) -> list[Order]:
        """Orders that can still fill, oldest first."""
        return [
            order
            for order in self._open.values()
            if order.request.account == account and pair in (None, order.request.pair)
        ]

    def find(self, account: str, pair: str, order_id: int | None, client_id: str | None) -> Order | None:
        """An account's order by its id or else by its client id (the newest of that name)."""
        if order_id is not None:
            found = self.orders.get(order_id)
            mine = found is not None and (found.request.account, found.request.pair) == (account, pair)
            return found if mine else None
        same = (o for o in reversed(self.orders.values()) if o.client_id == client_id and o.request.account == account)
        return next((order for order in same if order.request.pair == pair), None)

    def place(self, request: OrderRequest, now_ms: int) -> Order:
        """Accept an order, filling at once what can fill at once.

        Raises:
            RefusalError: a filter, the balance, an immediate trigger or an open order with the same client id forbids
                it; nothing has changed then.
        """
        quote = self.quote(request.pair, now_ms)
        bid, ask = quote
        lots = self._lots(request, ask)
        check_order(self.rules[request.pair], request, lots, quote, self.open_orders(request.account))
        marketable = ask <= request.price if request.side == "BUY" else bid >= request.price
        if request.kind is Kind.LIMIT_MAKER and marketable:
            raise RefusalError(-2010, "Order would immediately match and take.")
        order = Order(len(self.orders) + 1, request, request.client_id, lots, now_ms, now_ms, eligible_ms=now_ms)
        order.client_id = request.client_id or f"sandbox{order.order_id}"
        # an order without a limit is paid for at what it would cost now, or at its stop
        self.money.reserve(order, request.price or request.stop_price or ask)
        self.orders[order.order_id] = self._open[order.order_id] = order
        if request.kind is Kind.MARKET or (marketable and not request.kind.conditional):
            self._take(order, now_ms)
        elif request.time_in_force != "GTC" and not request.kind.conditional:
            self._close(order, Status.EXPIRED, now_ms)
        return order

    def force(self, request: OrderRequest, now_ms: int) -> Order:
        """An order of the house for an account (liquidation): no filters, nothing set aside, filled at once."""
        order = Order(len(self.orders) + 1, request, request.client_id, request.lots, now_ms, now_ms)
        self.orders[order.order_id] = self._open[order.order_id] = order
        bid, ask = self.quote(request.pair, now_ms)
        self._execute(order, ask if request.side == "BUY" else bid, order.lots, now_ms, maker=False)
        return order

    def cancel(self, order: Order, now_ms: int) -> Order:
        """Take an open order back; raises RefusalError -2011 when it is not open."""
        if not order.status.open:
            raise RefusalError(-2011, "Unknown order sent.")
        self._close(order, Status.CANCELED, now_ms)
        return order

    def expire(self, pair: str, now_ms: int, account: str | None = None) -> None:
        """End all open orders of a pair, of one account or of all."""
        for order in list(self._open.values()):
            if order.request.pair == pair and account in (None, order.request.account):
                self._close(order, Status.EXPIRED, now_ms)

    def advance(self, from_ms: int, to_ms: int) -> list[Fill]:
        """Let the price run over (from_ms, to_ms]; returns the fills in the order in which they happened."""
        before, at_ms = len(self.fills), from_ms
        events = [(at, order.order_id) for order in self._open.values() if (at := self._next(order, from_ms, to_ms))]
        heapq.heapify(events)
        while True:
            due = self.money.next_ms(at_ms, to_ms)
            if events and (due is None or events[0][0] <= due):
                at_ms, order_id = heapq.heappop(events)
                order = self._open.get(order_id)
                if order is None:
                    continue  # something else ended it meanwhile
                self._happen(order, at_ms)
                if order.status.open and (later := self._next(order, at_ms, to_ms)):
                    heapq.heappush(events, (later, order_id))
            elif due is not None:
                at_ms = due
                self.money.happen(at_ms, self)
            else:
                return self.fills[before:]

    def digest(self) -> str:
        """A hash of every order, fill and balance: equal histories have equal digests."""
        ledger = self.money.ledger
        story = {
            "fills": [[f.order_id, f.account, f.pair, f.side, f.price, f.lots, f.fee, f.time_ms] for f in self.fills],
            "orders": [[o.order_id, o.status, o.filled, o.cost, o.updated_ms] for o in self.orders.values()],
            "totals": {a: {k: b.total for k, b in ledger.balances(a).items()} for a in ledger.accounts()},
        }
        return hashlib.sha256(orjson.dumps(story, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def _next(self, order: Order, after_ms: int, until_ms: int) -> int | None:
        """When something next happens to a resting order: its stop is met or its limit is gone through."""
        request, after = order.request, max(after_ms, order.eligible_ms)
        buys = request.side == "BUY"
        if order.sleeping:
            if buys == request.kind.stops:
                return self._prices.first_above(request.pair, after, until_ms, request.stop_price - 1)
            return self._prices.first_below(request.pair, after, until_ms, request.stop_price + 1)
        crossed = self._prices.first_below if buys else self._prices.first_above
        return crossed(request.pair, after, until_ms, request.price)

    def _happen(self, order: Order, at_ms: int) -> None:
        request = order.request
        if order.sleeping:
            order.triggered_ms = order.updated_ms = at_ms
            bid, ask = self.quote(request.pair, at_ms)
            takes = ask <= request.price if request.side == "BUY" else bid >= request.price
            if not self.money.wake(order, request.price or (ask if request.side == "BUY" else bid)):
                self._close(order, Status.EXPIRED, at_ms)
            elif request.kind.priceless or takes:
                self._take(order, at_ms)
            return
        self._execute(order, request.price, self._capped(order, request.price, at_ms), at_ms, maker=True)

    def _take(self, order: Order, at_ms: int) -> None:
        """Take the market maker's quote, as far as it is deep; what an impatient order does not get, it leaves."""
        request, (bid, ask) = order.request, self.quote(order.request.pair, at_ms)
        price = ask if request.side == "BUY" else bid
        thin = self._thin(self.rules[request.pair].name, at_ms)
        lots = order.remaining if thin is None else self._capped(order, price, at_ms)
        if request.time_in_force != "FOK" or lots == order.remaining:
            self._execute(order, price, lots, at_ms, maker=False)
        if order.status.open and (request.kind.priceless or request.time_in_force != "GTC"):
            self._close(order, Status.EXPIRED, at_ms)

    def _capped(self, order: Order, price: int, at_ms: int) -> int:
        """Lots that fill at once at `price`; when that is not all, the next fill has to wait."""
        pair = order.request.pair
        liquidity = self._thin(self.rules[pair].name, at_ms) or self.terms.liquidity
        if not liquidity.fill_units:
            return order.remaining
        order.eligible_ms = at_ms + liquidity.refill_ms
        return min(order.remaining, max(1, liquidity.fill_units // self.rules[pair].cost(price, 1)))

    def _lots(self, request: OrderRequest, ask: int) -> int:
        if request.kind is Kind.MARKET and request.quote_units:
            price = ask if request.side == "BUY" else ask - 1
            return request.quote_units // self.rules[request.pair].cost(price, 1)
        return request.lots

    def _execute(self, order: Order, price: int, lots: int, at_ms: int, *, maker: bool) -> None:
        """Let the money change hands and write it down; an order that may fill no more is over."""
        lots = self.money.fillable(order, lots, price)
        if lots == 0:
            self._close(order, Status.EXPIRED, at_ms)
            return
        request, cost = order.request, self.rules[order.request.pair].cost(price, lots)
        ppm = self.terms.maker_ppm if maker else self.terms.taker_ppm
        settled = self.money.settle(order, price, lots, ppm, at_ms)
        order.filled += lots
        order.cost += cost
        order.updated_ms = at_ms
        self.fills.append(
            Fill(
                len(self.fills) + 1, order.order_id, request.account, request.pair, request.side,
                price, lots, cost, settled.fee, settled.fee_asset, maker, at_ms, settled.realized,
            )
        )  # fmt: skip
        if order.remaining:
            order.status = Status.PARTIALLY_FILLED
        else:
            self._close(order, Status.FILLED, at_ms)

    def _close(self, order: Order, status: Status, at_ms: int) -> None:
        """End an order and free what is still set aside for it."""
        self.money.release(order)
        order.status, order.updated_ms = status, at_ms
        self._open.pop(order.order_id, None)
