"""A statistical pair live on the sandbox's perpetuals: signed orders, stops on the exchange, three books that agree."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from observability.progress import NullProgress
from tests.integration.planted import reverting, trading_on, write_pair
from trading.journal import Journal

pytestmark = pytest.mark.slow
A, B = "BTC/USDT:USDT", "ETH/USDT:USDT"
HISTORY, TRADED = 700, 300


@pytest.fixture(scope="module")
def trading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    candles = tmp_path_factory.mktemp("pair") / "candles"
    candles.mkdir()
    rng, rows = np.random.default_rng(11), HISTORY + TRADED
    log_b = np.log(3_000.0) + np.cumsum(rng.normal(0.0, 0.0025, rows))
    write_pair(candles, "BTC/USDT", np.log(60_000.0) + log_b - log_b[0] + reverting(rng, rows, 0.85, 0.004))
    write_pair(candles, "ETH/USDT", log_b)
    options = {"stat_arb": {"policy": {"window": 240, "refit": 48}, "stake_fraction": 0.15}}
    pairs = ("BTC/USDT", "ETH/USDT")
    with trading_on(candles, pairs, TRADED, strategies=("stat_arb",), options=options) as found:
        yield {**found, "seen": _watched(found["fleet"], found["exchange"])}


def _watched(fleet: Any, exchange: Any) -> list[dict[str, Any]]:
    """Trade candle by candle; what the exchange shows of the account after each."""
    seen = []
    with closing(exchange.client()) as client:
        for _ in range(TRADED - 20):
            fleet.run_candles(1, NullProgress())
            seen.append(client.ledger()["futures"]["stat_arb"])
    return seen


def _journal(trading: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    with closing(Journal(trading["settings"].workspace.journal, read_only=True)) as journal:
        return [dict(entry.payload) for entry in journal.read(kind)]


def test_both_sides_of_the_spread_were_traded_and_the_books_agree(trading: dict[str, Any]) -> None:
    (state,) = trading["fleet"].status().values()
    books = trading["fleet"].books()
    assert state.doubts == {}, state
    assert books.agree, {name: book.text for name, book in books.by_bot.items()}
    assert books.difference < 1e-8
    assert state.closed_trades >= 8, state
    entries = {(row["pair"], row["side"]) for row in _journal(trading, "intent")}
    assert entries == {(A, "buy"), (A, "sell"), (B, "buy"), (B, "sell")}


def test_every_position_had_its_stop_resting_on_the_exchange(trading: dict[str, Any]) -> None:
    held = 0
    for account in trading["seen"]:
        stops = {
            order["pair"]: (order["side"], order["amount"])
            for order in account["orders"]
            if order["type"].startswith("stop") and order["status"] == "new"
        }
        for position in account["positions"]:
            short = position["amount"].startswith("-")
            assert stops.get(position["pair"]) == ("buy" if short else "sell", position["amount"].lstrip("-"))
            held += 1
    assert held > 50


def test_legs_were_opposite_and_none_stood_alone_for_longer_than_a_candle(trading: dict[str, Any]) -> None:
    alone = 0
    for account in trading["seen"]:
        sides = [position["amount"].startswith("-") for position in account["positions"]]
        assert len(sides) < 2 or sides[0] != sides[1]
        alone = alone + 1 if len(sides) == 1 else 0
        assert alone <= 1


def test_the_risk_manager_saw_both_legs(trading: dict[str, Any]) -> None:
    reports = [row for row in _journal(trading, "report") if len(row["positions"]) == 2]
    assert reports
    for report in reports:
        worth = [
            (1.0 if held["side"] == "long" else -1.0) * held["amount"] * held["mark"] for held in report["positions"]
        ]
        assert abs(sum(worth)) < 0.35 * sum(map(abs, worth)), "the hedge nets most of it"
        assert all(held["stop"] for held in report["positions"])
        assert report["mismatch"] is False
    assert not [row for row in _journal(trading, "report") if row["mismatch"]]


def test_a_killed_bot_takes_its_legs_up_again_and_a_flatten_closes_both(trading: dict[str, Any]) -> None:
    from cluster.stages import trade as stage

    fleet = trading["fleet"]
    for _ in range(15):
        if len(fleet.status()["stat_arb"].open_trades) == 2:
            break
        fleet.run_candles(1, NullProgress())
    recovery = fleet.kill_and_recover("stat_arb")
    assert recovery.trades_after == recovery.trades_before
    assert len(recovery.trades_before) in (0, 2)
    stage.flatten("tester", "enough seen")
    fleet.run_candles(2, NullProgress())
    with closing(trading["exchange"].client()) as client:
        ledger = client.ledger()
    account = ledger["futures"]["stat_arb"]
    assert account["positions"] == []
    assert [order for order in account["orders"] if order["status"] == "new"] == []
    assert ledger["problems"] == []
    assert fleet.books().agree


def test_what_the_bot_earned_is_what_the_wallet_gained(trading: dict[str, Any]) -> None:
    with closing(trading["exchange"].client()) as client:
        account = client.ledger()["futures"]["stat_arb"]
    with closing(sqlite3.connect(trading["fleet"].bots["stat_arb"].database)) as db:
        open_trades, earned = db.execute("SELECT SUM(is_open), SUM(realized_profit) FROM trades").fetchone()
    assert open_trades == 0, "the flatten before this closed them"
    gained = float(account["balances"]["USDT"]["total"]) - float(account["initial"]["USDT"])
    assert gained == pytest.approx(earned, abs=1e-5), "fees and funding payments included"
    assert earned > 0, "the planted spread pays for its four orders"
