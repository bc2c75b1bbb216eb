"""The HTTP server: Binance's endpoints, each behind the same security, faults and counters, beside the control API."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from observability.metrics import Meters
from trading.adapters.sandbox import futures, futures_orders, private, public
from trading.adapters.sandbox.auth import parse_params
from trading.adapters.sandbox.control import Control, answer
from trading.adapters.sandbox.endpoint import Call, Endpoint
from trading.adapters.sandbox.faults import RequestFault
from trading.adapters.sandbox.orders import RefusalError
from trading.adapters.sandbox.streams import stream_routes
from trading.adapters.sandbox.venue import Venue

TICK_S = 0.02
METER = "mtst_exchange_requests_total"
UNKNOWN_OUTCOME = (
    -1007,
    "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
)


def build_app(venue: Venue, meters: Meters | None = None) -> Starlette:
    """The ASGI application of one exchange; counts requests in `meters` (service `exchange`) when given."""
    by_path: defaultdict[str, dict[str, Endpoint]] = defaultdict(dict)
    for endpoint in (*public.ENDPOINTS, *private.ENDPOINTS, *futures.ENDPOINTS, *futures_orders.ENDPOINTS):
        by_path[endpoint.path][endpoint.method] = endpoint
    routes = [Route(path, _serve(venue, methods, meters), methods=list(methods)) for path, methods in by_path.items()]

    @contextlib.asynccontextmanager
    async def ticking(_app: Starlette) -> AsyncIterator[None]:
        ticker = asyncio.create_task(_tick(venue))
        try:
            yield
        finally:
            ticker.cancel()

    return Starlette(routes=[*routes, *stream_routes(venue), *Control(venue).routes()], lifespan=ticking)


async def _tick(venue: Venue) -> None:
    while True:
        venue.clock.tick()
        await asyncio.sleep(TICK_S)


def _serve(
    venue: Venue, methods: dict[str, Endpoint], meters: Meters | None
) -> Callable[[Request], Awaitable[Response]]:
    """The HTTP handler of one path; what happens between reading the body and answering is one synchronous step."""

    async def serve(request: Request) -> Response:
        endpoint = methods["GET" if request.method == "HEAD" else request.method]
        query, body = request.url.query, (await request.body()).decode(errors="replace")
        try:
            response = await _handle(venue, endpoint, request, (query, body))
        except RefusalError as refusal:
            wait = refusal.retry_after_s or int(refusal.status in (418, 429))
            retry = {"Retry-After": str(wait)} if wait else None
            data = {} if refusal.data is None else {"data": refusal.data}
            response = answer({"code": refusal.code, "msg": refusal.message, **data}, refusal.status, retry)
        if meters is not None:
            meters.inc(METER, endpoint=endpoint.name, status=str(response.status_code))
        return response

    return serve


async def _handle(venue: Venue, endpoint: Endpoint, request: Request, texts: tuple[str, str]) -> Response:
    used = venue.traffic.weigh(endpoint.weight, venue.now_ms)
    params = parse_params(*texts)
    account, api_key = "", request.headers.get("x-mbx-apikey")
    if endpoint.keyed:
        account, _ = venue.gatekeeper.account(api_key)
    if endpoint.signed:
        account = venue.gatekeeper.check(api_key, texts, params, venue.told_ms, venue.clock.lag_ms())
    fault = venue.faults.take(endpoint.method, endpoint.path, account, params, venue.now_ms)
    if fault is not None and not fault.executes:
        return await _failed(fault, None)
    headers = {"x-mbx-used-weight": str(used), "x-mbx-used-weight-1m": str(used)}
    if endpoint.counts:
        headers["x-mbx-order-count-10s"] = str(venue.traffic.order(account, venue.now_ms))
    done = answer(endpoint.handler(venue, Call(params, account)), headers=headers)
    return done if fault is None else await _failed(fault, done)


async def _failed(fault: RequestFault, done: Response | None) -> Response:
    """What the client gets instead of `done`, the answer to what was executed."""
    if fault.kind == "error":
        raise RefusalError(fault.code, fault.message, fault.status, retry_after_s=fault.retry_after_s)
    if fault.kind in ("drop_before", "drop_after", "disconnect"):
        return Cut()
    if fault.kind == "garble" and done is not None:
        half = bytes(done.body)[: max(1, len(done.body) // 2)]
        return Response(half + b"\x00<html>", headers={"content-type": "application/json"})
    await asyncio.sleep(fault.hold_s)
    raise RefusalError(*UNKNOWN_OUTCOME, 504)


class Cut(Response):
    """An answer that breaks off behind its headers: the server then closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Promise a body and send none."""
        promised = [(b"content-type", b"application/json"), (b"content-length", b"512")]
        await send({"type": "http.response.start", "status": 200, "headers": promised})
