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

from trading.adapters.sandbox.audit import audit, audit_futures
from trading.adapters.sandbox.books import told
from trading.adapters.sandbox.faults import READER
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
        problems = (*audit(venue.spot.engine), *audit_futures(venue.futures.engine, venue.margin))
        books = {
            name: {account: told(venue, side, account) for account in venue.ledger.accounts()}
            for name, side in (("accounts", venue.spot), ("futures", venue.futures))
        }
        verdict = {"conserved": not problems, "problems": problems, "digest": venue.digest()}
        return answer({"now_ms": venue.now_ms, **books, **verdict})

    async def plan_fault(self, request: Request) -> Response:
        """Let something fail from now on."""
        self._venue.plan(READER.validate_json(await request.body()))
        return await self.planned_faults(request)

    async def clear_faults(self, request: Request) -> Response:
        """Plan no more failures, or none of those that `?name=` names."""
        self._venue.faults.clear(request.query_params.get("name", ""))
        return await self.planned_faults(request)

    async def planned_faults(self, _request: Request) -> Response:
        """What is still to fail, and how often each named fault was met."""
        faults = self._venue.faults
        planned = [fault.model_dump() for fault in faults.planned(self._venue.now_ms)]
        return answer({"faults": planned, "struck": faults.struck})

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
