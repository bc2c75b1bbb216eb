"""The sandbox's own API under /sandbox: its clock, its books and its faults. No keys: it listens on loopback only."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from trading.adapters.sandbox.audit import audit
from trading.adapters.sandbox.faults import READER
from trading.adapters.sandbox.orders import Fill, Order
from trading.adapters.sandbox.rules import SymbolRules, units_text
from trading.adapters.sandbox.venue import Venue

POLL_S = 20.0
ENDED_PAUSE_S = 0.25


class Who(BaseModel):
    """A participant of the clock."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    participant: str = Field(min_length=1, max_length=64)


class Nap(Who):
    """A participant and how long it sleeps."""

    until_ms: int


class Leap(BaseModel):
    """Where to move the clock."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to_ms: int


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; bytes are JSON already."""
    content = value if isinstance(value, bytes) else orjson.dumps(value)
    return Response(content, status, headers, media_type="application/json")


class Control:
    """Handlers of the control API on one exchange."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._moved = asyncio.Event()
        venue.listeners.append(self._beat)

    def routes(self) -> list[Route]:
        """All routes below /sandbox."""
        table: tuple[tuple[str, str, Callable[[Request], Awaitable[Response]]], ...] = (
            ("GET", "health", self.health),
            ("POST", "clock/join", self.join),
            ("POST", "clock/sleep", self.sleep),
            ("POST", "clock/leave", self.leave),
            ("POST", "clock/advance", self.advance),
            ("GET", "ledger", self.ledger),
            ("GET", "faults", self.planned_faults),
            ("POST", "faults", self.plan_fault),
            ("DELETE", "faults", self.clear_faults),
        )
        return [Route(f"/sandbox/{path}", _readable(handler), methods=[method]) for method, path, handler in table]

    async def health(self, _request: Request) -> Response:
        """Who this is and what time it is."""
        venue, clock = self._venue, self._venue.clock
        market = venue.market
        return answer(
            {
                "pid": os.getpid(),
                "instance": venue.config.instance,
                "now_ms": venue.now_ms,
                "open_ms": market.open_ms,
                "first_ms": market.first_ms,
                "end_ms": market.end_ms,
                "seed": market.seed,
                "market": market.name,
                "timeframe": market.timeframe,
                "pairs": market.pairs,
                "mode": venue.config.mode,
                "running": clock.running,
                "ended": clock.ended,
                "participants": clock.participants(),
            }
        )

    async def join(self, request: Request) -> Response:
        """Take part in the clock, busy for now."""
        self._venue.clock.join(Who.model_validate_json(await request.body()).participant)
        return self._time()

    async def sleep(self, request: Request) -> Response:
        """Sleep until a virtual time. Answers after 20 real seconds at the latest: then look at `now_ms`, ask again."""
        nap, clock = Nap.model_validate_json(await request.body()), self._venue.clock
        clock.sleep(nap.participant, nap.until_ms)
        deadline = time.monotonic() + POLL_S
        while clock.now_ms() < nap.until_ms and not clock.ended and (left := deadline - time.monotonic()) > 0:
            await self._wait(left)
        if clock.ended:
            await asyncio.sleep(ENDED_PAUSE_S)  # time is over: sleepers must not spin
        return self._time()

    async def leave(self, request: Request) -> Response:
        """Take part no more."""
        self._venue.clock.leave(Who.model_validate_json(await request.body()).participant)
        return self._time()

    async def advance(self, request: Request) -> Response:
        """Move the clock forward."""
        self._venue.clock.advance(Leap.model_validate_json(await request.body()).to_ms)
        return self._time()

    async def ledger(self, _request: Request) -> Response:
        """The books of every account, and whether they balance."""
        venue = self._venue
        problems = audit(venue.engine)
        accounts = {name: _account(venue, name) for name in venue.ledger.accounts()}
        verdict = {"conserved": not problems, "problems": problems, "digest": venue.engine.digest()}
        return answer({"now_ms": venue.now_ms, "accounts": accounts, **verdict})

    async def plan_fault(self, request: Request) -> Response:
        """Let something fail from now on."""
        self._venue.plan(READER.validate_json(await request.body()))
        return await self.planned_faults(request)

    async def clear_faults(self, request: Request) -> Response:
        """Plan no more failures."""
        self._venue.faults.clear()
        return await self.planned_faults(request)

    async def planned_faults(self, _request: Request) -> Response:
        """What is still to fail."""
        return answer({"faults": [fault.model_dump() for fault in self._venue.faults.planned(self._venue.now_ms)]})

    def _time(self) -> Response:
        clock = self._venue.clock
        return answer({"now_ms": clock.now_ms(), "ended": clock.ended, "running": clock.running})

    def _beat(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _wait(self, timeout_s: float) -> None:
        moved = self._moved
        try:
            await asyncio.wait_for(moved.wait(), timeout_s)
        except TimeoutError:
            return


def _readable(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def wrapped(request: Request) -> Response:
        try:
            return await handler(request)
        except ValidationError as error:
            return answer({"error": f"the request is wrong: {error.errors()[0]['msg']}"}, 422)

    return wrapped


def _account(venue: Venue, name: str) -> dict[str, Any]:
    rules, engine = venue.market.rules, venue.engine
    return {
        "initial": {asset: units_text(units) for asset, units in venue.ledger.initial[name].items()},
        "balances": {
            asset: {"free": units_text(b.free), "locked": units_text(b.locked), "total": units_text(b.total)}
            for asset, b in venue.ledger.balances(name).items()
        },
        "orders": [_order(rules[o.request.pair], o) for o in engine.orders.values() if o.request.account == name],
        "fills": [_fill(rules[f.pair], f) for f in engine.fills if f.account == name],
    }


def _order(rules: SymbolRules, order: Order) -> dict[str, Any]:
    return {
        "order_id": str(order.order_id),
        "client_order_id": order.client_id,
        "pair": order.request.pair,
        "side": order.request.side.lower(),
        "type": str(order.request.kind).lower(),
        "status": str(order.status).lower(),
        "price": rules.price_text(order.request.price),
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
        "pair": fill.pair,
        "side": fill.side.lower(),
        "price": rules.price_text(fill.price),
        "amount": rules.lots_text(fill.lots),
        "cost": units_text(fill.cost),
        "fee": units_text(fill.fee),
        "fee_asset": fill.fee_asset,
        "maker": fill.maker,
        "time_ms": fill.time_ms,
    }
