"""What stands beside the bots, each a process of its own that can be killed: the risk manager, and the forecasts."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.loss_stand.risk_wire import RiskServer
from trading.adapters.venue_clock import VenueClock
from trading.limits import RiskLimits
from trading.manager import RiskManager

PR_SET_PDEATHSIG = 1
LATE_MS = 4 * 900_000
SLOW_S = 3.0  # longer than a bot waits for its forecasts


def quiet(log: Path) -> None:
    """Words into a file; the end of the benchmark is the end of this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)


def limits(accounts: Sequence[str], pairs: Sequence[str], rule_bots: Sequence[str], step_ms: int) -> RiskLimits:
    """The product's own limits for these accounts; ages are counted in candles, as virtual time leaps by them.

    Entries are not rationed: the more orders, the more that can go wrong with them.
    """
    return replace(
        RiskLimits(),
        accounts=dict.fromkeys(accounts, "sandbox"),
        pairs=frozenset(pairs),
        rule_bots=frozenset(rule_bots),
        max_data_age_ms=2 * step_ms,
        max_report_age_ms=2 * step_ms,
        lease_ttl_ms=2 * step_ms,
        max_entries=1_000,
        max_pair_entries=1_000,
    )


def run_risk(journal: str, url: str, port: int, table: RiskLimits) -> None:
    """A risk manager on the journal that is there, by the exchange's clock."""
    quiet(Path(journal).with_suffix(".log"))
    RiskServer(RiskManager(Path(journal), table, VenueClock(url)), port)
    threading.Event().wait()


def run_forecasts(artifact: str, port: int) -> None:
    """Forecasts of a sealed model by the service's own answering code, on the smallest server there is.

    POST /forecast as the service; POST /trouble with a word of `TROUBLES`, or "" for none,
    answers how often the one before was met.
    """
    quiet(Path(artifact).with_suffix(".log"))
    import torch

    from mtst.answering import Answerer, StoredEnrichment
    from mtst.artifact import load_artifact
    from mtst.predictor import Predictor
    from observability.metrics import Meters

    torch.set_num_threads(1)
    predictor = Predictor(load_artifact(Path(artifact)))
    answerer = Answerer(predictor, "champion", StoredEnrichment("", "", predictor.spec), Meters("forecast"))
    ThreadingHTTPServer(("127.0.0.1", port), _handler(answerer.answer)).serve_forever()


def _nan(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["values"] = [[float("nan")] * len(values) for values in row["values"]]


def _stale(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["as_of_ms"] -= LATE_MS


def _wrong_pair(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["pair"] = "NEW/USDT"


def _late(_rows: list[dict[str, Any]]) -> None:
    threading.Event().wait(SLOW_S)


TROUBLES: dict[str, Callable[[list[dict[str, Any]]], None]] = {
    "NaN": _nan, "stale": _stale, "wrong pair": _wrong_pair, "late": _late,
}  # fmt: skip


def _handler(answer: Callable[[bytes], tuple[int, dict[str, Any]]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        trouble, met = "", 0

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/trouble":
                status, told = 200, {"met": Handler.met}
                Handler.trouble, Handler.met = body.decode(), 0
            else:
                status, told = answer(body)
                if Handler.trouble and status == 200:
                    Handler.met += 1
                    TROUBLES[Handler.trouble](told["forecasts"])
            text = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_args: Any) -> None:
            """Say nothing."""

    return Handler
