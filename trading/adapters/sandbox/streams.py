"""WebSockets as Binance has them: candles as they form, and what happens to an account's orders.

A client subscribes with {"method": "SUBSCRIBE", "params": ["btcusdt@kline_15m"], "id": 1}; user data comes over
`/ws-api/v3` after a signed `userDataStream.subscribe.signature`. Events are sent whenever virtual time has moved.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from trading.adapters.sandbox.orders import Order, RefusalError
from trading.adapters.sandbox.rules import units_text
from trading.adapters.sandbox.side import Side
from trading.adapters.sandbox.venue import Venue

PAUSE_S = 0.1
MISSED = 3  # closed candles that are still told after a leap
CUT = 1012  # WebSocket's "service restart"


def stream_routes(venue: Venue) -> list[WebSocketRoute]:
    """All WebSocket routes of an exchange."""

    async def spot(socket: WebSocket) -> None:
        await _serve(venue, socket, MarketStream(venue, venue.spot))

    async def futures(socket: WebSocket) -> None:
        await _serve(venue, socket, MarketStream(venue, venue.futures))

    async def account(socket: WebSocket) -> None:
        await _serve(venue, socket, AccountStream(venue))

    rooms = {"/ws": futures, "/stream/ws": spot, "/market/ws": futures, "/public/ws": futures}
    routes = [WebSocketRoute(path, side) for room, side in rooms.items() for path in (room, room + "/{number}")]
    return [*routes, WebSocketRoute("/ws-api/v3", account)]


class MarketStream:
    """The candles that one connection wants, of spot or of perpetuals."""

    def __init__(self, venue: Venue, side: Side) -> None:
        self._venue, self._side, self._last_ms = venue, side, venue.now_ms
        self._wanted: dict[str, tuple[str, str]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take a subscription or end one."""
        for name in request.get("params", ()):
            pair, interval = self._parsed(str(name))
            if request.get("method") == "SUBSCRIBE":
                self._wanted[str(name)] = (pair, interval)
            else:
                self._wanted.pop(str(name), None)
        self._last_ms = -1  # tell the new ones at once
        return {"result": None, "id": request.get("id")}

    def events(self) -> Iterator[dict[str, Any]]:
        """The candles that have changed since the last call, closed ones first."""
        now = self._venue.now_ms
        if now == self._last_ms:
            return
        for pair, interval in self._wanted.values():
            seen = self._side.feed.rows(pair, interval, now, limit=MISSED + 1)
            for row in orjson.loads(seen):
                if row[6] > self._last_ms:
                    yield self._event(pair, interval, row, now)
        self._last_ms = now

    def _event(self, pair: str, interval: str, row: list[Any], now_ms: int) -> dict[str, Any]:
        symbol = self._venue.market.rules[pair].symbol
        names = ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q", "B")
        kline = dict(zip(names, row, strict=True)) | {"s": symbol, "i": interval, "x": row[6] < now_ms, "f": 0, "L": 0}
        return {"e": "kline", "E": now_ms, "s": symbol, "k": kline}

    def _parsed(self, name: str) -> tuple[str, str]:
        symbol, _, channel = name.partition("@")
        kind, _, interval = channel.partition("_")
        if kind != "kline" or interval not in self._side.klines.intervals():
            raise RefusalError(2, f"Invalid request: unknown stream {name}")
        return self._side.pair(symbol.upper()), interval


class AccountStream:
    """What happens to the spot orders of the account that signed in on one connection."""

    def __init__(self, venue: Venue) -> None:
        self._venue, self._account = venue, ""
        self._told: dict[int, tuple[str, int]] = {}

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
        self._told = {order.order_id: _state(order) for order in self._orders()}
        return {"id": request.get("id"), "status": 200, "result": {"subscriptionId": 0}}

    def events(self) -> Iterator[dict[str, Any]]:
        """Orders that have changed since the last call, and the balances after them."""
        changed = [order for order in self._orders() if self._told.get(order.order_id) != _state(order)]
        for order in changed:
            self._told[order.order_id] = _state(order)
            yield {"subscriptionId": 0, "event": self._report(order)}
        if changed:
            yield {"subscriptionId": 0, "event": self._balances()}

    def _orders(self) -> list[Order]:
        return [order for order in self._venue.spot.engine.orders.values() if order.request.account == self._account]

    def _balances(self) -> dict[str, Any]:
        held = self._venue.ledger.balances(self._account)
        balances = [{"a": name, "f": units_text(b.free), "l": units_text(b.locked)} for name, b in held.items()]
        now = self._venue.now_ms
        return {"e": "outboundAccountPosition", "E": now, "u": now, "B": balances}

    def _report(self, order: Order) -> dict[str, Any]:
        rules, request = self._venue.market.rules[order.request.pair], order.request
        fill = next((fill for fill in reversed(self._venue.spot.engine.fills) if fill.order_id == order.order_id), None)
        status = str(order.status)
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
            "C": order.client_id if status == "CANCELED" else "",
            "x": "TRADE" if fill and status in ("FILLED", "PARTIALLY_FILLED") else status,
            "X": status,
            "r": "NONE",
            "i": order.order_id,
            "l": rules.lots_text(fill.lots if fill else 0),
            "z": rules.lots_text(order.filled),
            "L": rules.price_text(fill.price if fill else 0),
            "n": units_text(fill.fee if fill else 0),
            "N": fill.fee_asset if fill else None,
            "T": order.updated_ms,
            "t": fill.fill_id if fill else -1,
            "w": order.status.open and not order.sleeping,
            "m": bool(fill and fill.maker),
            "O": order.created_ms,
            "Z": units_text(order.cost),
            "Y": units_text(fill.cost if fill else 0),
            "Q": units_text(request.quote_units),
        }


def _state(order: Order) -> tuple[str, int]:
    return str(order.status), order.filled


async def _serve(venue: Venue, socket: WebSocket, stream: MarketStream | AccountStream) -> None:
    """Answer requests and send events until either side goes, or a planned disconnection cuts the line."""
    if venue.faults.disconnected(venue.now_ms):
        await socket.close(CUT)
        return
    await socket.accept()
    listening = asyncio.create_task(socket.receive_text())
    try:
        with contextlib.suppress(WebSocketDisconnect):
            while not venue.faults.disconnected(venue.now_ms):
                await asyncio.wait([listening], timeout=PAUSE_S)
                if listening.done():
                    await socket.send_text(orjson.dumps(_answered(stream, listening.result())).decode())
                    listening = asyncio.create_task(socket.receive_text())
                for event in stream.events():
                    await socket.send_text(orjson.dumps(event).decode())
            await socket.close(CUT)
    finally:
        listening.cancel()


def _answered(stream: MarketStream | AccountStream, text: str) -> dict[str, Any]:
    number: Any = None
    try:
        request = orjson.loads(text)
        number = request.get("id")
        return stream.answer(request)
    except RefusalError as refusal:
        return {"id": number, "status": 400, "error": {"code": refusal.code, "msg": refusal.message}}
    except (orjson.JSONDecodeError, AttributeError):
        return {"id": number, "status": 400, "error": {"code": 2, "msg": "Invalid request: no JSON object"}}
