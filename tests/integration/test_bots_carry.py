"""Funding carry, live on the sandbox: spot bought and the perpetual sold while funding pays, closed when it turns."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from observability.files import write_whole
from observability.progress import NullProgress
from tests.integration.planted import trading_on, write_pair

pytestmark = pytest.mark.slow
LONG, SHORT = "carry-long", "carry-short"
HISTORY, TRADED, UNTIL_FUNDING = 470, 30, 10  # candles; the first payment of trading is due ten candles after it opens
RICH, TURNED = 0.0004, -0.004


@pytest.fixture(scope="module")
def messages() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """A server on loopback, and what was posted there: (path, body)."""
    heard: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", heard
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def trading(
    tmp_path_factory: pytest.TempPathFactory, messages: tuple[str, list[tuple[str, Any]]]
) -> Iterator[dict[str, Any]]:
    candles = tmp_path_factory.mktemp("carry") / "candles"
    candles.mkdir()
    rows = HISTORY + TRADED
    log_close = np.log(60_000.0) + np.cumsum(np.random.default_rng(9).normal(0.0, 0.0008, rows))
    payments = 1 + (rows - 1) // 32
    funding = np.where(np.arange(payments) * 32 < HISTORY, RICH, TURNED)
    write_pair(candles, "BTC/USDT", log_close, funding=funding)
    options = {"carry": {"policy": {"window": 3}}}
    tell = {kind: {"pair": "{pair}", "direction": "{direction}"} for kind in ("entry_fill", "exit_fill")}
    listed = {kind: [{"pair": "{pair}"}] for kind in tell}
    notify = write_whole(
        candles.parent / "notify.json",
        json.dumps(
            {
                "webhook": {"enabled": True, "url": f"{messages[0]}/webhook", "format": "json", **tell},
                "discord": {"enabled": True, "webhook_url": f"{messages[0]}/discord", **listed},
            }
        ),
        private=True,
    )
    trade = {"strategies": ("carry",), "options": options, "notify_file": notify}
    with trading_on(candles, ("BTC/USDT",), TRADED, **trade) as found:
        yield found


def _ledger(trading: dict[str, Any]) -> dict[str, Any]:
    with closing(trading["exchange"].client()) as client:
        found = client.ledger()
    assert found["problems"] == []
    return dict(found)


def test_both_legs_are_held_while_funding_pays_and_closed_when_it_turns(trading: dict[str, Any]) -> None:
    fleet = trading["fleet"]
    fleet.run_candles(UNTIL_FUNDING - 1, NullProgress())
    assert {name: state.open_trades for name, state in fleet.status().items()} == {
        LONG: ("BTC/USDT",), SHORT: ("BTC/USDT:USDT",),
    }, fleet.status()  # fmt: skip
    held = _ledger(trading)["futures"][SHORT]["positions"]
    assert held[0]["amount"].startswith("-")
    fleet.run_candles(8, NullProgress())
    states = fleet.status()
    assert {name: state.open_trades for name, state in states.items()} == {LONG: (), SHORT: ()}, states
    assert {name: state.doubts for name, state in states.items()} == {LONG: {}, SHORT: {}}
    assert fleet.books().agree
    assert fleet.books().difference < 1e-8


def test_what_the_legs_earned_is_what_their_wallets_gained_funding_included(trading: dict[str, Any]) -> None:
    ledger, states = _ledger(trading), trading["fleet"].status()
    wallet = ledger["futures"][SHORT]
    gained = float(wallet["balances"]["USDT"]["total"]) - float(wallet["initial"]["USDT"])
    assert gained == pytest.approx(states[SHORT].profit, abs=1e-5)
    fills = wallet["fills"]
    traded = sum(float(fill["realized"]) - float(fill["fee"]) for fill in fills)
    paid = float(held_notional(fills)) * TURNED
    assert gained - traded == pytest.approx(paid, rel=0.02), "the payment that turned was ours to make"


def test_both_bots_told_it_by_webhook_and_discord(
    trading: dict[str, Any], messages: tuple[str, list[tuple[str, Any]]]
) -> None:
    posted = [body for path, body in messages[1] if path == "/webhook"]
    told = Counter((body["pair"], body["direction"]) for body in posted)
    assert told == {("BTC/USDT", "Long"): 2, ("BTC/USDT:USDT", "Short"): 2}
    titles = Counter(body["embeds"][0]["title"] for path, body in messages[1] if path == "/discord")
    assert titles == {
        f"Trade: {pair} {kind}": 1 for pair in ("BTC/USDT", "BTC/USDT:USDT") for kind in ("entry_fill", "exit_fill")
    }


def held_notional(fills: list[dict[str, Any]]) -> float:
    """Worth of what was opened, by its fills."""
    return sum(float(fill["cost"]) for fill in fills if fill["side"] == "sell")
