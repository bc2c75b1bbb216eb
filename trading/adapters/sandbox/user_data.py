"""User data streams: what happens to an account's orders, balances and positions, told as Binance tells it.

Spot: over `/ws-api/v3` after a signed `userDataStream.subscribe.signature`. Perpetuals: over `/private/ws?listenKey=`
with a key from `POST /fapi/v1/listenKey`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from trading.adapters.sandbox.endpoint import Call
from trading.adapters.sandbox.futures import assets
from trading.adapters.sandbox.futures_wire import algo_answer, average_text, order_answer, position_answer
from trading.adapters.sandbox.order_watch import Change, OrderWatch, What
from trading.adapters.sandbox.orders import Order, RefusalError
from trading.adapters.sandbox.perpetuals import AUTOCLOSE
from trading.adapters.sandbox.rules import SymbolRules, units_text
from trading.adapters.sandbox.venue import Venue


class SpotStream:
    """What happens to the spot orders of the account that signed in on one connection."""

    def __init__(self, venue: Venue) -> None:
        self._venue, self._account = venue, ""
        self._watch: OrderWatch | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sign in, or say that this method is not known."""
        if request.get("method") != "userDataStream.subscribe.signature":
            raise RefusalError(-1000, f"Unknown method {request.get('method')}")
        params = {str(name): str(value) for name, value in request.get("params", {}).items()}
        signed = urlencode(sorted((name, value) for name, value in params.items() if name != "signature"))
        venue = self._venue
        self._account = venue.gatekeeper.check(
            params.get("apiKey"), (signed, ""), params, venue.told_ms, venue.clock.lag_ms()
        )
        self._watch = OrderWatch(venue.spot.engine, self._account)
        return {"id": request.get("id"), "status": 200, "result": {"subscriptionId": 0}}

    def events(self) -> Iterator[dict[str, Any]]:
        """Every change of an order since the last call, and the balances after them."""
        changes = self._watch.changes() if self._watch else []
        for change in changes:
            yield {"subscriptionId": 0, "event": self._report(change)}
        if changes:
            yield {"subscriptionId": 0, "event": self._balances()}

    def _balances(self) -> dict[str, Any]:
        held = self._venue.ledger.balances(self._account)
        balances = [{"a": name, "f": units_text(b.free), "l": units_text(b.locked)} for name, b in held.items()]
        now = self._venue.now_ms
        return {"e": "outboundAccountPosition", "E": now, "u": now, "B": balances}

    def _report(self, change: Change) -> dict[str, Any]:
        order, rules = change.order, self._venue.market.rules[change.order.request.pair]
        request = order.request
        return {
            "e": "executionReport",
            "E": self._venue.now_ms,
            "s": rules.symbol,
            "c": order.client_id,
            "S": request.side,
            "o": str(request.kind),
            "f": request.time_in_force,
            "q": rules.lots_text(order.lots),
            "p": rules.price_text(request.price),
            "P": rules.price_text(request.stop_price),
            "F": "0.00000000",
            "g": -1,
            "C": order.client_id if change.what is What.CANCELED else "",
            # spot tells a met stop by a second report of a new order, which works now
            "x": "NEW" if change.what is What.TRIGGERED else str(change.what),
            "X": str(change.status),
            "r": "NONE",
            "i": order.order_id,
            "z": rules.lots_text(change.filled),
            **_traded(rules, change),
            "T": change.at_ms,
            "w": change.status.open and not (change.what is What.NEW and request.kind.conditional),
            "O": order.created_ms,
            "Z": units_text(change.cost),
            "Y": units_text(change.fill.cost if change.fill else 0),
            "Q": units_text(request.quote_units),
        }


class PerpetualStream:
    """What happens to the perpetuals of the account that a listen key belongs to, until that key ends."""

    def __init__(self, venue: Venue, listen_key: str) -> None:
        self._venue, self._key = venue, listen_key
        self._account = venue.listen_keys.account(listen_key)
        if not self._account:
            raise RefusalError(-1125, "This listenKey does not exist.")
        self._watch, self._incomes = OrderWatch(venue.futures.engine, self._account), len(venue.margin.incomes)
        self._over = False

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """There is nothing to ask for here."""
        raise RefusalError(2, f"Invalid request: {request.get('method')}")

    def events(self) -> Iterator[dict[str, Any]]:
        """Every change of an order since the last call, then wallet and positions where money has moved."""
        if self._over:
            return
        if self._venue.listen_keys.account(self._key) != self._account:
            self._over = True
            yield {"e": "listenKeyExpired", "E": self._venue.now_ms, "listenKey": self._key}
            return
        for change in self._watch.changes():
            yield from self._told(change)
        yield from self._moved()

    def _told(self, change: Change) -> Iterator[dict[str, Any]]:
        """One change: a sleeping order is told as a conditional one, a working one as an order, a met stop as both."""
        order, rules = change.order, self._venue.futures.market.rules[change.order.request.pair]
        conditional = order.request.kind.conditional
        over = change.what in (What.CANCELED, What.EXPIRED) or not change.status.open
        if conditional and (order.triggered_ms is None or change.what in (What.NEW, What.TRIGGERED)):
            yield self._algo(rules, order, change.at_ms, str(change.what))
        if not conditional or (order.triggered_ms is not None and change.what is not What.NEW):
            yield self._order(rules, change)
            if conditional and over:
                unmet = change.what is What.EXPIRED and not change.filled
                yield self._algo(rules, order, change.at_ms, "EXPIRED" if unmet else "FINISHED")

    def _moved(self) -> Iterator[dict[str, Any]]:
        """Wallet and positions, once for each reason that they have changed for."""
        incomes = self._venue.margin.incomes
        since, self._incomes = incomes[self._incomes :], len(incomes)
        mine = [item for item in since if item.account == self._account]
        for reason, funding in (("FUNDING_FEE", True), ("ORDER", False)):
            pairs = sorted({item.pair for item in mine if (item.kind == "FUNDING_FEE") == funding})
            if pairs:
                paid = sum(item.units for item in mine if item.kind == "FUNDING_FEE") if funding else 0
                yield self._account_update(reason, pairs, paid)

    def _account_update(self, reason: str, pairs: list[str], paid: int) -> dict[str, Any]:
        venue, now = self._venue, self._venue.now_ms
        balances = [
            {
                "a": item["asset"],
                "wb": item["walletBalance"],
                "cw": item["crossWalletBalance"],
                "bc": units_text(paid if item["asset"] == venue.futures.market.rules[pairs[0]].quote else 0),
            }
            for item in assets(venue, Call({}, self._account))
        ]
        positions = [self._position(pair) for pair in pairs]
        return {"e": "ACCOUNT_UPDATE", "E": now, "T": now, "a": {"m": reason, "B": balances, "P": positions}}

    def _position(self, pair: str) -> dict[str, Any]:
        venue = self._venue
        position = venue.margin.position(self._account, pair)
        told = position_answer(venue.margin, position, venue.now_ms, venue.now_ms)
        realized = sum(
            item.units
            for item in venue.margin.incomes
            if (item.account, item.pair, item.kind) == (self._account, pair, "REALIZED_PNL")
        )
        return {
            "s": told["symbol"],
            "pa": told["positionAmt"],
            "ep": told["entryPrice"],
            "bep": told["breakEvenPrice"],
            "cr": units_text(realized),
            "up": told["unRealizedProfit"],
            "mt": told["marginType"],
            "iw": told["isolatedWallet"],
            "ps": "BOTH",
            "ma": told["marginAsset"],
        }

    def _order(self, rules: SymbolRules, change: Change) -> dict[str, Any]:
        order = change.order
        answer = order_answer(rules, order)
        executed = "NEW" if change.what is What.TRIGGERED else str(change.what)
        if change.fill and order.client_id.startswith(AUTOCLOSE):
            executed = "CALCULATED"  # so Binance calls a liquidation
        told = {
            "s": rules.symbol,
            "c": order.client_id,
            "S": order.request.side,
            "o": answer["type"],
            "f": answer["timeInForce"],
            "q": answer["origQty"],
            "p": answer["price"],
            "ap": average_text(rules, change.cost, change.filled),
            "sp": answer["stopPrice"],
            "x": executed,
            "X": str(change.status),
            "i": order.order_id,
            "z": rules.lots_text(change.filled),
            **_traded(rules, change),
            "T": change.at_ms,
            "R": answer["reduceOnly"],
            "wt": "CONTRACT_PRICE",
            "ot": answer["origType"],
            "ps": "BOTH",
            "cp": answer["closePosition"],
            "rp": units_text(change.fill.realized if change.fill else 0),
        }
        return {"e": "ORDER_TRADE_UPDATE", "E": self._venue.now_ms, "T": change.at_ms, "o": told}

    def _algo(self, rules: SymbolRules, order: Order, at_ms: int, status: str) -> dict[str, Any]:
        answer = algo_answer(rules, order)
        told = {
            "caid": order.client_id,
            "aid": order.order_id,
            "at": "CONDITIONAL",
            "o": answer["orderType"],
            "s": rules.symbol,
            "S": order.request.side,
            "ps": "BOTH",
            "f": answer["timeInForce"],
            "q": answer["quantity"],
            "X": status,
            **_became(rules, order, status),
            "tp": answer["triggerPrice"],
            "p": answer["price"],
            "wt": "CONTRACT_PRICE",
            "cp": answer["closePosition"],
            "R": answer["reduceOnly"],
            "tt": answer["triggerTime"],
        }
        return {"e": "ALGO_UPDATE", "E": self._venue.now_ms, "T": at_ms, "o": told}


def _traded(rules: SymbolRules, change: Change) -> dict[str, Any]:
    """What a change traded, in the fields that spot and perpetuals share."""
    fill = change.fill
    return {
        "l": rules.lots_text(fill.lots if fill else 0),
        "L": rules.price_text(fill.price if fill else 0),
        "n": units_text(fill.fee if fill else 0),
        "N": fill.fee_asset if fill else None,
        "t": fill.fill_id if fill else -1,
        "m": bool(fill and fill.maker),
    }


def _became(rules: SymbolRules, order: Order, status: str) -> dict[str, Any]:
    """The order that a conditional one became, if it has by then: its number, average price, amount and type."""
    if status == "NEW" or order.triggered_ms is None:
        return {"ai": "", "ap": "0", "aq": "0"}
    answer = order_answer(rules, order)
    return {"ai": str(answer["orderId"]), "ap": answer["avgPrice"], "aq": answer["executedQty"], "act": answer["type"]}
