"""One real Freqtrade bot on the sandbox exchange while its risk manager and its forecasts misbehave, one way at a time.

A program of its own, since the bot turns its whole process's clock. Arguments: folder, address of the exchange, key
file ("" for a dry run), pairs and scenarios by comma. Prints one JSON object: scenario -> what came of it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from observability.errors import GateError
from tests import books_kit
from trading.adapters.bot_books import read_book, read_trades
from trading.adapters.bot_runner import BotRunner
from trading.adapters.bot_spec import BotSpec
from trading.adapters.fleet_books import ledger_lines
from trading.adapters.sandbox.client import SandboxClient
from trading.adapters.venue_clock import Participant, VenueClock
from trading.journal import Journal
from trading.kill_switch import KillSwitch
from trading.lease import Lease
from trading.limits import RiskLimits
from trading.manager import RiskManager
from trading.orders import Approved, Decision, OrderIntent
from trading.reconcile import BooksDifference, compare_books, journal_lines

CANDLE = 900_000
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
UP = (-0.004, 0.004, 0.012, 0.02, 0.03)
WANTING = 2  # candles for which a misbehaviour lasts before everything is closed
Answer = Callable[[OrderIntent, Decision], Decision]
LIES: dict[str, Answer] = {
    "risk: NaN": lambda intent, _: _yes(intent, amount=float("nan")),
    "risk: negative": lambda intent, _: _yes(intent, amount=-intent.amount),
    "risk: too much": lambda intent, _: _yes(intent, amount=2 * intent.amount),
    "risk: another order": lambda intent, _: _yes(replace(intent, intent_id="another")),
    "risk: wrong kind": lambda _intent, _: "yes",  # type: ignore[dict-item, return-value]
}
FORECASTS = ("inference: dead", "inference: stale", "inference: NaN", "inference: wrong pair")
SCENARIOS = ("risk: dead", "risk: slow", "risk: old epoch", *LIES, *FORECASTS)


def _yes(intent: OrderIntent, **changes: Any) -> Approved:
    good = Approved(intent.intent_id, f"r-{intent.intent_id}", intent.amount, intent.price)
    return replace(good, **changes)


class Port:
    """The risk manager as the bot reaches it; `trouble` names what is wrong with it now."""

    def __init__(self, manager: RiskManager) -> None:
        self.manager, self.trouble = manager, ""

    def __getattr__(self, name: str) -> Any:
        if self.trouble == "risk: dead":
            raise GateError("nobody answers")
        return getattr(self.manager, name)

    def decide(self, intent: OrderIntent) -> Decision:
        if self.trouble == "risk: dead":
            raise GateError("nobody answers")
        if self.trouble == "risk: slow":
            threading.Event().wait(5.0)
        decision = self.manager.decide(intent)
        return LIES[self.trouble](intent, decision) if self.trouble in LIES else decision

    def renew_lease(self, account: str, holder: str, epoch: int) -> Lease:
        return self._aged(self.manager.acquire_lease(account, holder))

    def acquire_lease(self, account: str, holder: str, born_ms: int = 0) -> Lease:
        return self._aged(self.manager.acquire_lease(account, holder))

    def _aged(self, lease: Lease) -> Lease:
        if self.trouble == "risk: dead":
            raise GateError("nobody answers")
        return replace(lease, epoch=lease.epoch - 1) if self.trouble == "risk: old epoch" else lease


class Oracle(ThreadingHTTPServer):
    """A prediction service that always expects a rise, unless it misbehaves."""

    trouble = ""

    def rows(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        rows = []
        for pair, columns in asked["candles"].items():
            values = [float("nan")] * 5 if self.trouble == "inference: NaN" else list(UP)
            late = 4 * CANDLE if self.trouble == "inference: stale" else 0
            rows.append({
                "pair": "NEW/USDT" if self.trouble == "inference: wrong pair" else pair,
                "as_of_ms": int(columns["timestamp"][-1]) - late, "timeframe": asked["timeframe"], "horizons": [4],
                "levels": list(LEVELS), "values": [values], "model_name": "oracle", "model_version": "1",
                "spec_hash": "none", "status": "champion",
            })  # fmt: skip
        return rows


class Handler(BaseHTTPRequestHandler):
    """POST /forecast."""

    server: Oracle

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.trouble == "inference: dead":
            self.connection.close()
            return
        body = json.dumps({"forecasts": self.server.rows(asked)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence."""


class Stage:
    """The bot, its exchange, and the hand on the clock."""

    def __init__(self, folder: Path, url: str, key_file: str, pairs: tuple[str, ...]) -> None:
        self.client, self.hand = SandboxClient(url), Participant(url, "hand")
        self.now = self.hand.join()
        self.oracle = Oracle(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.oracle.serve_forever, daemon=True).start()
        self.switch = KillSwitch(folder / "kill-switch.jsonl")
        self.switch.install()
        limits = RiskLimits(
            accounts={"nn": "sandbox"}, max_open_positions=2, max_entries=10_000, max_pair_entries=10_000,
            lease_ttl_ms=10 * CANDLE, max_losing_streak=10_000, max_drawdown=0.9, max_daily_loss=0.9,
        )  # fmt: skip
        self.journal = folder / "journal.db"
        self.manager = RiskManager(self.journal, limits, VenueClock(url), None, self.switch)
        self.port = Port(self.manager)
        self.live = bool(key_file)
        self.spec = BotSpec(
            name="nn", strategy="nn_predictor", account="nn", venue="sandbox", mode="live" if self.live else "dry-run",
            pairs=pairs, timeframe="15m", folder=str(folder / "bot"), url=url, key_file=key_file, virtual_clock=True,
            forecast_url=f"http://127.0.0.1:{self.oracle.server_port}", switch=str(self.switch.path), api_server=False,
            settings={"max_history": 400, "policy": {"horizon": 4}},
        )  # fmt: skip
        self.runner = BotRunner(folder / "bot", lambda: self.port)
        self.runner.begin(self.spec)
        deadline = time.monotonic() + 90
        while self.runner.status().loops < 1 and time.monotonic() < deadline:
            threading.Event().wait(0.1)

    def step(self, candles: int) -> None:
        """Let time run, and wait until the bot sleeps again."""
        for _ in range(candles):
            target = (self.now // CANDLE + 1) * CANDLE
            while self.now < target:
                self.now = self.hand.sleep(target) or self.now
            self.hand.join()
            deadline = time.monotonic() + 20
            while self.client.health()["participants"].get("nn") is None and time.monotonic() < deadline:
                threading.Event().wait(0.02)

    def buys(self) -> int:
        """Entries so far: by the exchange's ledger, or, dry, by the bot's own database."""
        if self.live:
            orders = self.client.ledger()["accounts"]["nn"]["orders"]
            return sum(order["side"] == "buy" for order in orders)
        import sqlite3

        with closing(sqlite3.connect(self.spec.database)) as db:
            return int(db.execute("SELECT COUNT(*) FROM orders WHERE side = 'buy'").fetchone()[0])

    def open(self) -> int:
        return len(read_trades(self.spec.database).open_pairs)

    def play(self, trouble: str) -> dict[str, Any]:
        """Hold positions, misbehave, want entries, close everything, behave again."""
        for _ in range(12):
            if self.open():
                break
            self.step(1)
        held, before, refused = self.open(), self.buys(), sum((self.runner.status().refusals or {}).values())
        self.port.trouble = self.oracle.trouble = trouble
        self.step(WANTING)
        entered = self.buys() - before
        wanted = sum((self.runner.status().refusals or {}).values()) - refused
        self.switch.order("flatten", "tester", "close all, whatever is wrong")
        self.step(2)
        found = {"held": held, "entries": entered, "wanted": wanted, "left": self.open()}
        self.port.trouble = self.oracle.trouble = ""
        self.switch.order("resume", "tester", "over")
        self.manager.obey()
        self.step(2)  # a breaker that opened rests for some seconds
        threading.Event().wait(5.2 if trouble.startswith("risk") else 0.0)
        return found

    def books(self) -> dict[str, BooksDifference]:
        """Bot, journal and ledger beside one another; a dry run orders nothing of the exchange."""
        theirs = ledger_lines(books_kit.balanced(self.client.ledger()), "nn")
        with closing(Journal(self.journal, read_only=True)) as journal:
            told = journal_lines(journal.read("fill"), "nn")
        if not self.live:
            assert not theirs, "a dry run ordered"
            theirs = told
        return {"nn": compare_books(read_book(self.spec.database), told, theirs)}

    def end(self) -> None:
        """Stop everything."""
        self.hand.leave()
        self.runner.stop()
        self.manager.close()
        self.oracle.shutdown()


def main() -> None:
    folder, url, key_file, pairs, scenarios = sys.argv[1:6]
    stage = Stage(Path(folder), url, key_file, tuple(pairs.split(",")))
    try:
        found = {name: stage.play(name) for name in scenarios.split(",")}
        status = stage.runner.status()
        books_kit.settled(stage.books, lambda: stage.step(1))
        told = {"scenarios": found, "restarts": status.restarts, "error": status.last_error}
        sys.stdout.write(json.dumps(told))
        sys.stdout.flush()
    finally:
        stage.end()


if __name__ == "__main__":
    main()
