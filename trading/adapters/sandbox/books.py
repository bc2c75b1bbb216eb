"""One account's books in plain words, as /sandbox/ledger tells them."""

from __future__ import annotations

from typing import Any

from trading.adapters.sandbox.orders import Fill, Order
from trading.adapters.sandbox.positions import Position
from trading.adapters.sandbox.rules import SymbolRules, units_text
from trading.adapters.sandbox.side import Side
from trading.adapters.sandbox.venue import Venue


def told(venue: Venue, side: Side, name: str) -> dict[str, Any]:
    """Initial and present balances, orders, fills, and on futures the positions; pairs of perpetuals end in :QUOTE."""
    engine = side.engine
    ledger, rules = engine.money.ledger, engine.rules
    positions = {"positions": [_position(rules[item.pair], item) for item in venue.margin.held(name)]}
    return {
        "initial": {asset: units_text(units) for asset, units in ledger.initial[name].items()},
        "balances": {
            asset: {"free": units_text(b.free), "locked": units_text(b.locked), "total": units_text(b.total)}
            for asset, b in ledger.balances(name).items()
        },
        "orders": [_order(rules[o.request.pair], o) for o in engine.orders.values() if o.request.account == name],
        "fills": [_fill(rules[f.pair], f) for f in engine.fills if f.account == name],
        **(positions if side is venue.futures else {}),
    }


def _position(rules: SymbolRules, position: Position) -> dict[str, Any]:
    sign = "-" if position.side < 0 else ""
    return {
        "pair": rules.name,
        "amount": f"{sign}{rules.lots_text(abs(position.lots))}",
        "cost": units_text(position.cost),
        "margin": units_text(position.margin),
        "leverage": position.leverage,
        "isolated": position.isolated,
    }


def _order(rules: SymbolRules, order: Order) -> dict[str, Any]:
    return {
        "order_id": str(order.order_id),
        "client_order_id": order.client_id,
        "pair": rules.name,
        "side": order.request.side.lower(),
        "type": str(order.request.kind).lower(),
        "status": str(order.status).lower(),
        "price": rules.price_text(order.request.price),
        "stop_price": rules.price_text(order.request.stop_price),
        "amount": rules.lots_text(order.lots),
        "filled": rules.lots_text(order.filled),
        "cost": units_text(order.cost),
        "created_ms": order.created_ms,
        "updated_ms": order.updated_ms,
    }


def _fill(rules: SymbolRules, fill: Fill) -> dict[str, Any]:
    return {
        "fill_id": str(fill.fill_id),
        "order_id": str(fill.order_id),
        "pair": rules.name,
        "side": fill.side.lower(),
        "price": rules.price_text(fill.price),
        "amount": rules.lots_text(fill.lots),
        "cost": units_text(fill.cost),
        "fee": units_text(fill.fee),
        "fee_asset": fill.fee_asset,
        "maker": fill.maker,
        "realized": units_text(fill.realized),
        "time_ms": fill.time_ms,
    }
