"""A bot's books in an SQLite file and in PostgreSQL: Freqtrade writes both, and both are read alike."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from cluster.evidence import trade_rows
from observability.errors import SecretError, SettingsError, TradingError
from observability.ports import free_port
from tests.postgres_kit import Server
from trading.adapters.bot_books import TradeCounts, read_book, read_trades
from trading.adapters.bot_database import BotSchema, Database, bot_database, schemas, url_of
from trading.adapters.bot_runner import BEGUN, BotRunner
from trading.adapters.bot_spec import BotSpec
from trading.adapters.freqtrade_config import masked
from trading.reconcile import OrderLine

Make = Callable[..., Database]


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes the books of a bot in this workspace."""
    dsn = ""
    if request.param == "postgres":
        server: Server = request.getfixturevalue("postgres")
        dsn = str(_dsn_file(tmp_path, server))

    def make(name: str = "swing", mode: str = "live") -> Database:
        (tmp_path / "bots" / name).mkdir(parents=True, exist_ok=True)
        made = bot_database(tmp_path / "bots" / name, name, mode, dsn)
        if isinstance(made, BotSchema):
            made.claim()
        return made

    return make


def _dsn_file(folder: Path, server: Server) -> Path:
    name = f"b{free_port()}"
    with psycopg.connect(server.dsn + "postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    path = folder / "bots.dsn"
    path.touch(mode=0o600)
    path.write_text(server.dsn + name)
    return path


def _tables(database: Database) -> None:
    """Freqtrade's own, and one closed and one open trade in them."""
    import freqtrade.persistence  # noqa: F401 - declares the tables
    from freqtrade.persistence.base import ModelBase

    engine = create_engine(url_of(database))
    ModelBase.metadata.create_all(engine)
    trade = (
        "INSERT INTO trades (id, exchange, pair, is_open, fee_open, fee_close, open_rate, close_rate, stake_amount,"
        " amount, open_date, close_date, enter_tag, exit_reason, realized_profit, trading_mode, leverage, is_short,"
        " interest_rate, stop_loss, is_stop_loss_trailing, record_version) VALUES"
        " (:id, 'binance', :pair, :open, 0.001, 0.001, 100.0, 101.0, 50.0,"
        " 0.5, '2024-09-01 01:00:00', '2024-09-01 03:00:00', 'dip', 'roi', :profit,"
        " 'SPOT', 1.0, :no, 0.0, 90.0, :no, 2)"
    )
    order = (
        "INSERT INTO orders (id, ft_trade_id, ft_order_side, ft_pair, ft_is_open, ft_amount, ft_price, order_id, side,"
        " filled, cost, average, price) VALUES (:id, :trade, :side, :pair, :no, 0.5, 100.0, :order, :side,"
        " :filled, :cost, 100.0, 100.0)"
    )
    orders = (
        (1, 1, "buy", "BTC/USDT", "11", 0.5, 50.0),
        (2, 1, "sell", "BTC/USDT", "12", 0.5, None),
        (3, 2, "buy", "ETH/USDT", "13", 0.0, 0.0),
    )
    names = ("id", "trade", "side", "pair", "order", "filled", "cost")
    with engine.begin() as db:
        db.execute(text(trade), {"id": 1, "pair": "BTC/USDT", "open": False, "profit": 2.5, "no": False})
        db.execute(text(trade), {"id": 2, "pair": "ETH/USDT", "open": True, "profit": 0.0, "no": False})
        for values in orders:
            db.execute(text(order), {**dict(zip(names, values, strict=True)), "no": False})
    engine.dispose()


def test_books_are_read_alike(database: Make) -> None:
    here = database()
    _tables(here)
    assert read_trades(here) == TradeCounts(("ETH/USDT",), 1, 2, 2.5)
    assert read_book(here) == {
        "11": OrderLine("BTC/USDT", "buy", 0.5, 50.0),
        "12": OrderLine("BTC/USDT", "sell", 0.5, 50.0),
    }
    told = [(row["pair"], row["opened"], row["closed"], row["profit"]) for row in trade_rows({"swing": here})]
    assert told == [("BTC/USDT", "2024-09-01 01:00", "2024-09-01 03:00", "+2.50"), ("ETH/USDT", *told[1][1:])]
    assert told[1][2:] == ("open", "")


def test_a_bot_that_wrote_nothing_yet_has_empty_books(database: Make) -> None:
    here = database()
    assert read_trades(here) == TradeCounts((), 0, 0, 0.0)
    assert read_book(here) == {}
    assert trade_rows({"swing": here}) == []


def test_bots_and_modes_never_share_their_books(database: Make) -> None:
    _tables(database())
    for other in (database("scalp"), database("swing", "dry-run"), database("swing-2")):
        assert read_book(other) == {}
        _tables(other)


def test_two_workspaces_in_one_database_are_told(postgres: Server, tmp_path: Path) -> None:
    dsn, folders = _dsn_file(tmp_path, postgres), (tmp_path / "a" / "swing", tmp_path / "b" / "swing")
    first, second = (BotSchema(dsn, folder, "swing", "live") for folder in folders)
    first.claim()
    first.claim()
    with pytest.raises(SettingsError, match="another folder"):
        second.claim()
    replace(first, name="scalp-2", mode="dry-run", folder=tmp_path / "a" / "scalp-2").claim()
    found = [(each.name, each.mode) for each in schemas(dsn, tmp_path / "a")]
    assert found == [("scalp-2", "dry-run"), ("swing", "live")]
    assert schemas(dsn, tmp_path / "b") == []


def test_nobody_may_read_the_password_and_a_dead_database_is_told_without_it(tmp_path: Path) -> None:
    dsn = tmp_path / "bots.dsn"
    dsn.write_text(f"host=127.0.0.1 port={free_port()} user=risk password=hush dbname=none")
    dsn.chmod(0o644)
    books = BotSchema(dsn, tmp_path / "swing", "swing", "live")
    with pytest.raises(SecretError):
        books.url()
    dsn.chmod(0o600)
    assert "hush" in books.url()
    assert masked({"db_url": books.url()})["db_url"].startswith("postgresql+psycopg://risk:***@127.0.0.1:")
    assert masked({"db_url": "sqlite:////a/b.sqlite"})["db_url"] == "sqlite:////a/b.sqlite"
    for ask in (books.claim, lambda: read_book(books)):
        with pytest.raises(TradingError, match="does not answer") as told:
            ask()
        assert "hush" not in str(told.value)


class Idle(BotRunner):
    """A runner that was told what to trade and has not built its worker yet."""

    def _live(self) -> None:
        self._phase = "starting"


def _idle(folder: Path, dsn: Path) -> BotRunner:
    folder.mkdir(parents=True, exist_ok=True)
    spec = BotSpec(
        "swing", "swing", "swing", "sandbox", "live", ("BTC/USDT",), "15m", str(folder), "http://unused",
        dsn_file=str(dsn),
    )  # fmt: skip
    (folder / BEGUN).write_text(spec.to_json())
    made = Idle(folder, lambda: None)
    made._thread.join()
    return made


def test_a_bot_is_alive_while_its_database_is_away(postgres: Server, tmp_path: Path) -> None:
    folder, dsn = tmp_path / "bots" / "swing", _dsn_file(tmp_path, postgres)
    schema = bot_database(folder, "swing", "live", str(dsn))
    assert isinstance(schema, BotSchema)
    schema.claim()
    _tables(schema)
    bot = _idle(folder, dsn)
    there = bot.status()
    assert (there.database, there.open_trades, there.closed_trades, there.orders) == ("", ("ETH/USDT",), 1, 2)
    postgres.stop()
    try:
        away, fresh = bot.status(), _idle(folder, dsn).status()
    finally:
        postgres.start()
    assert away == replace(there, database=away.database)
    assert away.pid == os.getpid()
    assert "the bots' database does not answer" in away.database
    assert (fresh.phase, fresh.open_trades) == ("starting", ()), "nothing is known of it, and it says why"
    assert "does not answer" in fresh.database
    assert bot.status() == there
