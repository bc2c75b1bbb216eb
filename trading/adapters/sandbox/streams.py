"""WebSockets as Binance has them: candles as they form; user data is `trading.adapters.sandbox.user_data`'s.

A client subscribes with {"method": "SUBSCRIBE", "params": ["btcusdt@kline_15m"], "id": 1}. Events are sent whenever
virtual time has moved.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import orjson
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from trading.adapters.sandbox.orders import RefusalError
from trading.adapters.sandbox.side import Side
from trading.adapters.sandbox.user_data import PerpetualStream, SpotStream
from trading.adapters.sandbox.venue import Venue

PAUSE_S = 0.1
MISSED = 3  # closed candles that are still told after a leap
CUT, FORBIDDEN = 1012, 1008  # WebSocket's "service restart" and "policy violation"


class Stream(Protocol):
    """One side of a connection."""

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request; raises RefusalError."""

    def events(self) -> Iterator[dict[str, Any]]:
        """What is to be told since the last call."""


def stream_routes(venue: Venue) -> list[WebSocketRoute]:
    """All WebSocket routes of an exchange."""

    async def spot(socket: WebSocket) -> None:
        await _serve(venue, socket, MarketStream(venue, venue.spot))

    async def futures(socket: WebSocket) -> None:
        await _serve(venue, socket, MarketStream(venue, venue.futures))

    async def spot_account(socket: WebSocket) -> None:
        await _serve(venue, socket, SpotStream(venue))

    async def futures_account(socket: WebSocket) -> None:
        try:
            stream = PerpetualStream(venue, socket.query_params.get("listenKey", ""))
        except RefusalError:
            await socket.close(FORBIDDEN)
            return
        await _serve(venue, socket, stream)

    rooms = {"/ws": futures, "/stream/ws": spot, "/market/ws": futures, "/public/ws": futures}
    routes = [WebSocketRoute(path, side) for room, side in rooms.items() for path in (room, room + "/{number}")]
    accounts = (WebSocketRoute("/ws-api/v3", spot_account), WebSocketRoute("/private/ws", futures_account))
    return [*routes, *accounts]


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


async def _serve(venue: Venue, socket: WebSocket, stream: Stream) -> None:
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


def _answered(stream: Stream, text: str) -> dict[str, Any]:
    number: Any = None
    try:
        request = orjson.loads(text)
        number = request.get("id")
        return stream.answer(request)
    except RefusalError as refusal:
        return {"id": number, "status": 400, "error": {"code": refusal.code, "msg": refusal.message}}
    except (orjson.JSONDecodeError, AttributeError):
        return {"id": number, "status": 400, "error": {"code": 2, "msg": "Invalid request: no JSON object"}}
