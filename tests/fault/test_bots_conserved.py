"""That money is conserved is looked at before the end of whatever trades: two units of the last decimal are seen."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.loss_stand.scenarios import calm
from benchmarks.loss_stand.stand import CANDLE_MS, Stand
from cluster import processes
from cluster.settings import Settings
from cluster.stages.exchange import start_exchange
from observability.progress import NullProgress
from tests import books_kit
from tests.books_kit import BooksDifferError
from trading.adapters.fleet import Fleet
from trading.adapters.sandbox.accounts import make_accounts
from trading.adapters.sandbox.app import build_app
from trading.adapters.sandbox.config import SandboxConfig, SimulatedConfig
from trading.adapters.sandbox.ledger import FEES
from trading.adapters.sandbox.market import Market
from trading.adapters.sandbox.venue import Venue, open_venue
from trading.reconcile import compare_books

SMALL = SimulatedConfig(pairs=("BTC/USDT",), history_days=2, trading_days=1)
ROW = ("BTC/USDT", "buy", 0.015, 900.0)


def _in_and_out(market: Market) -> dict[str, Any]:
    plan = calm(market)
    leave_ms = plan["enter_from_ms"] + 4 * CANDLE_MS
    return {**plan, "enter_until_ms": leave_ms, "exit_ms": leave_ms}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books_kit, "PATIENCE_S", 2.0)


def _traded(stand: Stand) -> None:
    """Let the bot of a stand go in and out; its books agree."""
    stand.client.advance(stand.plan["enter_from_ms"] - CANDLE_MS)
    stand.start()
    stand.run(9)
    assert len([order for order in stand.orders() if float(order["filled"]) > 0]) == 2
    books_kit.stand_agrees(stand)


def _plant(stand: Stand, what: str) -> None:
    """Two units of the last decimal more in the first order of the bot's database."""
    with closing(sqlite3.connect(stand.database())) as database, database:
        first = "(SELECT MIN(id) FROM orders WHERE filled > 0)"
        assert database.execute(f"UPDATE orders SET {what} = {what} + 2e-8 WHERE id = {first}").rowcount == 1


@pytest.mark.slow
@pytest.mark.parametrize("what", ["cost", "filled"])
def test_a_bots_books_that_differ_by_2e_8_are_seen_at_its_end(what: str) -> None:
    stand = Stand(ours=True, seed=7, plan=_in_and_out)
    try:
        _traded(stand)
        _plant(stand, what)
    finally:
        with pytest.raises(BooksDifferError, match=f"{what} 2e-08"):
            stand.__exit__(None, None, None)
    assert not stand.exchange.alive(), "it is ended all the same"


@pytest.mark.slow
@pytest.mark.books_differ("planted here, to see that what is declared is let pass")
def test_a_difference_that_is_declared_is_let_pass() -> None:
    with Stand(ours=True, seed=7, plan=_in_and_out) as stand:
        _traded(stand)
        _plant(stand, "cost")
        with pytest.raises(BooksDifferError):
            books_kit.stand_agrees(stand)


def _ledger(venue: Venue) -> dict[str, Any]:
    """As a running exchange tells it."""

    async def asked() -> dict[str, Any]:
        transport = httpx.ASGITransport(build_app(venue))
        async with httpx.AsyncClient(transport=transport, base_url="http://exchange") as client:
            return dict((await client.get("/sandbox/ledger")).json())

    return asyncio.run(asked())


def test_two_units_that_came_from_nowhere_are_seen(tmp_path: Path) -> None:
    accounts = make_accounts(tmp_path, ["trader"], {"USDT": "100"})
    venue = open_venue(SandboxConfig(market=SMALL, accounts=accounts))
    books_kit.balanced(_ledger(venue))
    venue.ledger.pay("trader", FEES, "USDT", 2)
    with pytest.raises(BooksDifferError, match="trader has 9999999998 free"):
        books_kit.balanced(_ledger(venue))


def test_every_end_of_what_trades_looks_first() -> None:
    """In the whole run: for the fixtures of modules, too."""
    for end in (processes.stop, Fleet.stop, Stand.__exit__):
        assert end.__code__ is books_kit.after(end, end).__code__, end


@pytest.mark.parametrize(("more", "same"), [(0.0, True), (0.9e-8, True), (2e-8, False), (float("nan"), False)])
@pytest.mark.parametrize("column", [2, 3])
def test_books_agree_to_the_eighth_decimal(more: float, same: bool, column: int) -> None:
    row, other = {"1": ROW}, list(ROW)
    other[column] += more  # type: ignore[operator]
    assert books_kit.agreed({"bot": compare_books({"1": tuple(other)}, row, row, 1.0)}) is same  # type: ignore[dict-item]


def test_an_exchange_that_nobody_stops_is_told(tmp_path: Path) -> None:
    settings = Settings().changed(workspace={"root": tmp_path}, market={"history_days": 2.0})
    with pytest.raises(BooksDifferError, match="nobody stopped"), books_kit.compared():
        exchange = start_exchange(settings, NullProgress())
    exchange.stop()
