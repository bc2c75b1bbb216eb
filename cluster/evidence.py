"""What the run left behind, read back from its own records: journal, databases, ledger, exporters, stored series."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trading.adapters.bot_books import read_book
from trading.adapters.bot_database import Database, reading
from trading.adapters.bot_runner import BotStatus
from trading.adapters.fleet_books import FleetBooks, ledger_lines
from trading.events import Decided, Reported, from_rows
from trading.journal import Journal
from trading.orders import Approved
from trading.reconcile import journal_lines

APPROVED = "APPROVED"
POINTS = 1500  # more points than pixels tell nothing and make the page heavy


@dataclass(frozen=True)
class JournalStory:
    """What the journal tells: equity by account, every judged entry, and how often each rule spoke."""

    equity: dict[str, list[tuple[int, float]]]
    decisions: list[dict[str, Any]]
    by_rule: dict[str, int]

    @property
    def approved(self) -> int:
        """Entries approved."""
        return self.by_rule.get(APPROVED, 0)

    @property
    def refused(self) -> int:
        """Entries refused."""
        return sum(self.by_rule.values()) - self.approved


def journal_story(path: Path) -> JournalStory:
    """Read the risk manager's journal.

    Raises:
        JournalError: it cannot be trusted.
    """
    journal = Journal(path, read_only=True)
    with closing(journal):
        events = list(from_rows(journal.read()))
    equity: dict[str, list[tuple[int, float]]] = {}
    decisions, counts = [], Counter[str]()
    for event in events:
        if isinstance(event, Reported):
            equity.setdefault(event.report.account, []).append((event.report.as_of_ms, event.report.equity))
        elif isinstance(event, Decided):
            row = _decision_row(event)
            counts[row["decision"]] += 1
            decisions.append(row)
    curves = {name: thin(points) for name, points in sorted(equity.items())}
    return JournalStory(curves, decisions, dict(counts.most_common()))


def _decision_row(event: Decided) -> dict[str, Any]:
    intent, decision = event.intent, event.decision
    code, why = (APPROVED, "") if isinstance(decision, Approved) else (str(decision.code), decision.text)
    return {
        "time": stamp(event.at_ms),
        "bot": intent.bot,
        "pair": intent.pair,
        "order": f"{intent.action} {intent.side}",
        "amount": f"{intent.amount:.6g}",
        "price": f"{intent.price:.6g}",
        "decision": code,
        "why": why,
    }


def thin(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most about `POINTS` points, the last one always kept."""
    step = max(1, len(points) // POINTS)
    kept = list(points[::step])
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return kept


def trade_rows(databases: Mapping[str, Database]) -> list[dict[str, Any]]:
    """Every trade of every bot, newest last; the profit of an open one is not known yet."""
    text = (
        "SELECT pair, open_date, close_date, open_rate, close_rate, stake_amount, realized_profit, enter_tag,"
        " exit_reason, is_open FROM trades ORDER BY open_date"
    )
    rows = []
    for bot, database in databases.items():
        with reading(database) as ask:
            rows += [_trade_row(bot, trade) for trade in ask(text)]
    return sorted(rows, key=lambda row: str(row["opened"]))


def _trade_row(bot: str, trade: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bot": bot,
        "pair": trade["pair"],
        "opened": str(trade["open_date"])[:16],
        "closed": "open" if trade["is_open"] else str(trade["close_date"])[:16],
        "stake": f"{trade['stake_amount']:.2f}",
        "entry": f"{trade['open_rate']:.6g}",
        "exit": "" if trade["is_open"] else f"{trade['close_rate']:.6g}",
        "profit": "" if trade["is_open"] else f"{trade['realized_profit']:+.2f}",
        "why in": trade["enter_tag"] or "",
        "why out": trade["exit_reason"] or "",
    }


def book_facts(
    books: FleetBooks,
    databases: Mapping[str, Database],
    journal: Path,
    ledger: Mapping[str, Any],
    accounts: Iterable[str],
) -> dict[str, Any]:
    """The three books as counts and turnovers, and their difference (quote currency)."""
    names = list(accounts)
    opened = Journal(journal, read_only=True)
    with closing(opened):
        fills = list(opened.read("fill"))
    lines = {
        "bots": [line for database in databases.values() for line in read_book(database).values()],
        "journal": [line for name in names for line in journal_lines(fills, name).values()],
        "exchange": [line for name in names for line in ledger_lines(ledger, name).values() if line.filled > 0],
    }
    facts: dict[str, Any] = {
        name: {"orders": len(book), "turnover": round(sum(line.cost for line in book), 8)}
        for name, book in lines.items()
    }
    # Twelve digits: below that is what binary floating point makes of decimal numbers.
    difference = round(books.difference, 8)
    agree = books.agree
    return {
        **facts,
        "difference": difference if difference or not agree else 0,
        "agree": agree,
        "conserved": books.conserved,
    }


def exporter_facts(targets: Path) -> dict[str, Any]:
    """Scrape every exporter once, as Prometheus would: how many answered, and how many of our series they gave."""
    answered, series, forecasts = [], 0, 0.0
    for file in sorted(targets.glob("*.json")):
        for group in json.loads(file.read_text()):
            for target in group["targets"]:
                text = _scrape(target)
                lines = [line for line in text.splitlines() if line.startswith("mtst_")]
                series += len(lines)
                forecasts += sum(float(line.split()[-1]) for line in lines if line.startswith("mtst_forecasts_total"))
                if text:
                    answered.append(file.stem)
    return {"exporters": answered, "series": series, "forecasts_served": int(forecasts)}


def forecast_facts(metrics: Mapping[str, Any], bots: Iterable[BotStatus]) -> dict[str, Any]:
    """Forecasts that the service gave out, and the latency that the bots saw (ms, the slowest bot's)."""
    known = list(bots)
    return {
        "served": metrics["forecasts_served"],
        "p50_ms": max((each.forecast_p50_ms for each in known), default=0.0),
        "p99_ms": max((each.forecast_p99_ms for each in known), default=0.0),
        "errors": sum(each.forecast_errors for each in known),
    }


def _scrape(target: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return ""


def stamp(at_ms: int) -> str:
    """A time as people read it, UTC."""
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M")
