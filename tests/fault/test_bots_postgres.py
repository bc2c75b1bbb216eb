"""A bot whose books lie in PostgreSQL: killed, and its database killed, it forgets nothing and buys nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks.loss_stand.scenarios import calm
from benchmarks.loss_stand.stand import CANDLE_MS, Stand, filled
from tests.postgres_kit import Server
from trading.adapters.bot_books import read_trades
from trading.adapters.bot_database import bot_database
from trading.adapters.sandbox.market import Market

pytestmark = pytest.mark.slow


def _in_and_out(market: Market) -> dict[str, Any]:
    plan = calm(market)
    leave_ms = plan["enter_from_ms"] + 8 * CANDLE_MS
    return {**plan, "enter_until_ms": leave_ms - CANDLE_MS, "exit_ms": leave_ms}


def test_neither_the_bots_death_nor_the_databases_costs_a_trade(postgres: Server, tmp_path: Path) -> None:
    with psycopg.connect(postgres.dsn + "postgres", autocommit=True) as admin:
        admin.execute("CREATE DATABASE bots")
    dsn = tmp_path / "bots.dsn"
    dsn.touch(mode=0o600)
    dsn.write_text(postgres.dsn + "bots")
    with Stand(ours=True, seed=7, plan=_in_and_out, grace_s=60.0, specs={"bot": {"dsn_file": str(dsn)}}) as stand:
        database = bot_database(stand.folder("bot"), "bot", "live", str(dsn))
        stand.client.advance(stand.plan["enter_from_ms"] - CANDLE_MS)
        stand.start()
        stand.run(3)
        assert len(read_trades(database).open_pairs) == 1
        assert not stand.database().exists(), "nothing lies in a file"

        stand.kill()
        stand.start()
        stand.run(1)
        postgres.stop()
        stand.run(1)
        assert any(order["status"] == "new" and "stop" in order["type"] for order in stand.orders()), "protected"
        postgres.start()
        stand.run_to(stand.plan["exit_ms"] + 3 * CANDLE_MS)

        (bought,), (sold,) = filled(stand.orders(), "buy"), filled(stand.orders(), "sell")
        assert float(sold["filled"]) == pytest.approx(float(bought["filled"]), rel=0.002), "all but the fee"
        trades = read_trades(database)
        assert (trades.open_pairs, trades.closed, trades.orders) == ((), 1, 2)
