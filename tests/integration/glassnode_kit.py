"""Glassnode's API as its documentation and its own recorded answers show it, served on loopback; the client is real."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from observability.progress import NullProgress
from pipelines.adapters.glassnode import GlassnodeWish, update_onchain
from pipelines.adapters.glassnode_client import Glassnode
from pipelines.store import CandleStore, SeriesKey

KEY = "2abcDEF-not-a-real-key"
DAY = 86_400_000
FIRST = 1_790_899_200_000  # of the recorded answer below
NOW = FIRST + 3 * DAY + 3_600_000
# As api.glassnode.com answered on /v1/metrics/addresses/active_count_pit?a=BTC&i=24h.
RECORDED = (
    '[{"t":1790899200,"v":729981,"computed_at":1790985731},{"t":1790985600,"v":631346,"computed_at":1791072134},'
    '{"t":1791072000,"v":555361,"computed_at":1791158538}]'
)
ACTIVE, ACTIVE_PIT = "/v1/metrics/addresses/active_count", "/v1/metrics/addresses/active_count_pit"
SERIES = SeriesKey("glassnode", "onchain", "BTC")
Answer = tuple[int, str, dict[str, str]]


@dataclass
class Api:
    """What the server says: `scripted` answers are used up first, then values by path; everything asked is kept."""

    values: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    scripted: list[Answer | None] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def answer(self, path: str, query: dict[str, str], key: str) -> Answer | None:
        self.asked.append((path, query))
        if self.scripted:
            return self.scripted.pop(0)
        if key != KEY:
            return 401, json.dumps({"message": f"invalid api key {key}"}), {}
        if path not in self.values:
            return 404, "metric not found", {}
        since, until = int(query["s"]), int(query["u"])
        return 200, json.dumps([row for row in self.values[path] if since <= row["t"] <= until]), self.headers


@contextmanager
def glassnode_server() -> Iterator[tuple[Api, str]]:
    """What it says, to be changed at will, and its address."""
    api = Api({ACTIVE_PIT: json.loads(RECORDED)})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            found = api.answer(url.path, query, self.headers.get("X-Api-Key", ""))
            if found is None:  # the connection breaks
                self.connection.close()
                return
            status, body, headers = found
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            return None

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield api, f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()
    thread.join()


def client(url: str, key: str = KEY, pauses: list[float] | None = None) -> Glassnode:
    slept = pauses if pauses is not None else []
    return Glassnode(key, url, attempts=4, first_wait_s=0.001, pause=slept.append)


def update(url: str, store: CandleStore, now: int = NOW, **wish: Any) -> Any:
    wanted = GlassnodeWish(**{"asset": "BTC", "metrics": ("active_addresses",), "since_ms": FIRST, **wish})
    return update_onchain(client(url), store, wanted, now, NullProgress())


def versions(store: CandleStore, column: str = "active_addresses") -> list[tuple[int, int, float]]:
    """(day, hours after FIRST from which on it counts, value)."""
    table = store.read(SERIES).drop_nulls(column).sort("timestamp", "available_at")
    days = (table["timestamp"].dt.timestamp("ms") - FIRST) // DAY
    hours = (table["available_at"].dt.timestamp("ms") - FIRST) // 3_600_000
    return list(zip(days, hours, table[column], strict=True))


def points(*values: float | None, start: int = FIRST) -> list[dict[str, Any]]:
    return [{"t": start // 1000 + i * 86_400, "v": value} for i, value in enumerate(values)]
