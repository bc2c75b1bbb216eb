"""One journal, two keepers: the SQLite file and PostgreSQL, run for real where it is installed, promise the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from observability.errors import JournalError, SecretError
from observability.ports import free_port
from tests.unit.trading.trading_makers import LIMITS, NOW, intent, report
from trading.adapters.postgres_journal import PostgresJournal, open_journal
from trading.clock import FixedClock
from trading.journal import Journal, JournalStore, encoded
from trading.manager import RiskManager
from trading.orders import Approved
from trading.recovery import recovered

Open = Callable[..., JournalStore]


@pytest.fixture(params=["sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens one and the same journal, again and again."""
    made: list[JournalStore] = []

    def keep(store: JournalStore) -> JournalStore:
        made.append(store)
        return store

    if request.param == "sqlite":
        yield lambda **how: keep(Journal(tmp_path / "journal.db", **how))
    else:
        import psycopg

        base, name = request.getfixturevalue("postgres").dsn, f"t{free_port()}"
        with psycopg.connect(base + "postgres", autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}")
        yield lambda **how: keep(PostgresJournal(base + name, **how))
    for store in made:
        store.close()


def rows(count: int, kind: str = "recovery") -> list[tuple[str, str]]:
    return [encoded(kind, {"n": number}) for number in range(count)]


def test_events_come_back_in_order_and_by_kind(opened: Open) -> None:
    journal = opened()
    assert journal.append_encoded(rows(3)) == 3
    assert journal.append_encoded([*rows(1, "limit_change"), *rows(2)], durable=False) == 6
    assert [(entry.id, entry.kind) for entry in journal.read()] == [
        (number, "limit_change" if number == 4 else "recovery") for number in range(1, 7)
    ]
    assert [entry.id for entry in journal.read("limit_change")] == [4]
    assert [entry.id for entry in journal.read(after=4)] == [5, 6]
    assert [entry.id for entry in journal.latest("recovery", 2)] == [6, 5]
    again = opened(read_only=True)
    assert again.last_id == 6
    with pytest.raises(JournalError, match="reading only"):
        again.append_encoded(rows(1))


def test_the_newest_writer_owns_it(opened: Open) -> None:
    old = opened()
    old.append_encoded(rows(1))
    new = opened()
    with pytest.raises(JournalError, match="taken over"):
        old.append_encoded(rows(1))
    assert new.append_encoded(rows(1)) == 2


def test_rows_stay_as_they_are_and_a_changed_one_is_found(opened: Open) -> None:
    journal = opened()
    journal.append_encoded(rows(4))
    db = journal._db  # type: ignore[attr-defined]
    table = "events" if isinstance(journal, Journal) else "mtst_journal.events"
    for change in (f"UPDATE {table} SET payload = '{{}}' WHERE id = 2", f"DELETE FROM {table} WHERE id = 2"):
        with pytest.raises(Exception, match="append-only"):
            db.execute(change)
    if isinstance(journal, Journal):
        db.execute("DROP TRIGGER events_stay")
    else:
        db.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    db.execute(f"UPDATE {table} SET payload = '{{}}' WHERE id = 2")
    with pytest.raises(JournalError, match="row 2"):
        list(journal.read())


def test_a_manager_recovers_from_its_snapshot_and_what_came_after(opened: Open) -> None:
    clock = FixedClock(NOW)
    manager = RiskManager(opened, LIMITS, clock)
    for account in ("acc", "toy"):
        manager.acquire_lease(account, "nn")
        manager.report(report(account))
    assert isinstance(manager.decide(intent()), Approved)
    assert manager.snapshot(1)
    kept = opened(read_only=True).snapshot()[0]
    assert kept == manager.ping()["last_id"]
    assert not manager.snapshot(1), "nothing new"
    manager.settle("r-i-1", "filled", 0.01, 50_000.0)
    before = manager.book()
    again = RiskManager(opened, LIMITS, clock)
    assert again.book() == before
    assert opened(read_only=True).last_id == manager.ping()["last_id"] + 1, "and told that it recovered"


def test_a_damaged_snapshot_is_passed_over(opened: Open) -> None:
    clock = FixedClock(NOW)
    manager = RiskManager(opened, LIMITS, clock)
    manager.acquire_lease("acc", "nn")
    manager.snapshot(1)
    manager.acquire_lease("acc", "nn")
    journal = opened()
    table = "snapshots" if isinstance(journal, Journal) else "mtst_journal.snapshots"
    for book in ("{}", "no json"):
        journal._db.execute(f"UPDATE {table} SET book = '{book}'")  # type: ignore[attr-defined]
        assert journal.snapshot() == (0, "")
        assert recovered(journal) == manager.book()


def test_the_connection_string_lies_in_a_closed_file(tmp_path: Path) -> None:
    secret = tmp_path / "dsn"
    secret.write_text("host=127.0.0.1 port=1 user=nobody connect_timeout=1")
    with pytest.raises(SecretError):
        open_journal(tmp_path / "journal.db", secret)
    secret.chmod(0o600)
    with pytest.raises(JournalError, match="cannot be opened"):
        open_journal(tmp_path / "journal.db", secret)
    journal = open_journal(tmp_path / "journal.db")
    assert isinstance(journal, Journal)
    journal.close()
