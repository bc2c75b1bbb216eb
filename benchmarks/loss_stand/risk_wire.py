"""A risk manager in a process of its own, over loopback HTTP: bots die and it lives on, as behind its Ray actor."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, get_type_hints

import httpx
from pydantic import TypeAdapter

from observability import errors
from observability.errors import GateError, MtstError
from trading.manager import RiskManager

METHODS = (
    "decide", "settle", "report", "directive", "record_fill", "acquire_lease", "renew_lease", "release_lease",
    "reservations", "ping", "state", "halt", "resume",
)  # fmt: skip


@cache
def _codec(method: str) -> tuple[dict[str, TypeAdapter[Any]], TypeAdapter[Any]]:
    """Readers of a method's arguments, by name, and the writer of its result."""
    hints = get_type_hints(getattr(RiskManager, method))
    result = hints.pop("return")
    return {name: TypeAdapter(kind) for name, kind in hints.items()}, TypeAdapter(result)


class RiskServer:
    """Answers for one risk manager until it is closed."""

    def __init__(self, manager: RiskManager, port: int = 0) -> None:
        codecs = {method: _codec(method) for method in METHODS}

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # one connection and one thread a bot, not one a question
            wbufsize = -1  # the answer leaves in one piece

            def do_POST(self) -> None:
                method = self.path.strip("/")
                readers, writer = codecs[method]
                told = json.loads(self.rfile.read(int(self.headers["content-length"])))
                try:
                    arguments = [
                        reader.validate_python(value, strict=False)
                        for reader, value in zip(readers.values(), told, strict=False)
                    ]
                    status, body = 200, writer.dump_json(getattr(manager, method)(*arguments))
                except MtstError as error:
                    status, body = 409, json.dumps({"kind": type(error).__name__, "what": str(error)}).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class RemoteRisk:
    """`RiskPort` over HTTP; errors of the risk manager arrive as what they are."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=5.0, trust_env=False)
        self._codecs = {method: _codec(method) for method in METHODS}

    def close(self) -> None:
        """Give the connection back."""
        self._http.close()

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method not in METHODS:
            raise AttributeError(method)
        return lambda *args: self._call(method, *args)

    def _call(self, method: str, *args: Any) -> Any:
        readers, result = self._codecs[method]
        body = [reader.dump_python(value, mode="json") for reader, value in zip(readers.values(), args, strict=False)]
        try:
            answer = self._http.post(f"/{method}", json=body)
        except httpx.HTTPError as error:
            raise GateError(f"the risk manager does not answer: {error!r}", where=method) from error
        if answer.status_code == 200:
            return result.validate_json(answer.content)
        told = answer.json()
        raise getattr(errors, told["kind"], GateError)(told["what"])
