"""The journal in PostgreSQL, for a risk manager that may come back on another node: the same rows, hashes and fence.

A durable append returns only after the server's own sync (`synchronous_commit = on`); a report's may be written a
moment later, as in the file. The server's triggers keep the rows as they are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from observability.errors import JournalError
from observability.files import read_secret
from trading.journal import SCHEMA_VERSION, Entry, Journal, JournalStore, damaged, decoded, link

WAIT_S = 5
FETCH = 2_000
_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS mtst_journal;
CREATE TABLE IF NOT EXISTS mtst_journal.meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
CREATE TABLE IF NOT EXISTS mtst_journal.events (
    id BIGINT PRIMARY KEY, kind TEXT NOT NULL, payload TEXT NOT NULL, chain TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_by_kind ON mtst_journal.events (kind, id);
CREATE TABLE IF NOT EXISTS mtst_journal.snapshots (id BIGINT PRIMARY KEY, book TEXT NOT NULL, chain TEXT NOT NULL);
CREATE OR REPLACE FUNCTION mtst_journal.stay() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the journal is append-only'; END $$;
CREATE OR REPLACE TRIGGER events_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON mtst_journal.events
    FOR EACH STATEMENT EXECUTE FUNCTION mtst_journal.stay();
"""


def open_journal(path: Path, dsn_file: Path | None = None, *, read_only: bool = False) -> JournalStore:
    """The journal in the database that `dsn_file` names, or the SQLite file at `path`.

    Raises:
        JournalError: it cannot be opened. SecretError: the file with the connection string is open to others.
    """
    if dsn_file is None:
        return Journal(path, read_only=read_only)
    return PostgresJournal(read_secret(dsn_file, "the journal's connection string"), read_only=read_only)


class PostgresJournal:
    """See `trading.journal.Journal`, whose promises it keeps.

    Args:
        dsn: libpq's connection string, such as "host=db dbname=mtst user=risk".
        read_only: for people and reports; never takes the journal from its writer.

    Raises:
        JournalError: on opening, reading or writing, whenever the record cannot be trusted.
    """

    def __init__(self, dsn: str, *, read_only: bool = False) -> None:
        self._lock, self._read_only, self._dsn = threading.RLock(), read_only, dsn
        with _Told("cannot be opened"):
            self._db = self._connect()
            if not read_only:
                self._db.execute("SELECT pg_advisory_lock(7305201)")  # two that start together make one schema
                self._db.execute(_SCHEMA)
            self._check_version()
            self._generation = 0 if read_only else self._claim()
            if not read_only:
                self._db.execute("SELECT pg_advisory_unlock(7305201)")
            self._last_id, self._chain = self._tail()

    @property
    def last_id(self) -> int:
        """Id of the newest event; 0 when empty."""
        return self._last_id

    def append_encoded(self, events: Sequence[tuple[str, str]], *, durable: bool = True) -> int:
        """Add several events or none; returns the last id once they are safe."""
        if self._read_only:
            raise JournalError("opened for reading only")
        rows, last_id, chain = [], self._last_id, self._chain
        for kind, text in events:
            last_id += 1
            chain = link(chain, last_id, kind, text)
            rows.append((last_id, kind, text, chain))
        with self._lock, _Told("cannot be written"):
            self._reconnect()
            with self._db.transaction():
                self._db.execute(f"SET LOCAL synchronous_commit = {'on' if durable else 'off'}")
                # the row's lock makes a writer that is being replaced wait, see the new owner, and give up
                owner = self._one("SELECT value FROM mtst_journal.meta WHERE name = 'writer' FOR SHARE")
                if owner is None or owner[0] != self._generation:
                    raise JournalError("another writer has taken over", todo="stop this process; the newer one decides")
                with self._db.cursor() as cursor:
                    cursor.executemany("INSERT INTO mtst_journal.events VALUES (%s, %s, %s, %s)", rows)
            self._last_id, self._chain = last_id, chain
            return last_id

    def read(self, kind: str | None = None, after: int = 0) -> Iterator[Entry]:
        """Events with id > `after`, oldest first. Without `kind` every row's hash is checked on the way."""
        chain, previous = self._chain_at(after), after
        while True:
            with self._lock, _Told("cannot be read"):
                rows = self._db.execute(
                    "SELECT id, kind, payload, chain FROM mtst_journal.events WHERE id > %s"
                    " AND (%s::text IS NULL OR kind = %s) ORDER BY id LIMIT %s",
                    (previous, kind, kind, FETCH),
                ).fetchall()
            for row_id, row_kind, payload, row_chain in rows:
                if kind is None and (row_id != previous + 1 or row_chain != link(chain, row_id, row_kind, payload)):
                    raise damaged("PostgreSQL", f"row {row_id} does not follow from the row before it")
                previous, chain = row_id, row_chain
                yield Entry(row_id, row_kind, decoded(payload, row_id, "PostgreSQL"))
            if len(rows) < FETCH:
                return

    def latest(self, kind: str, limit: int) -> list[Entry]:
        """The newest `limit` events of a kind, newest first."""
        with self._lock, _Told("cannot be read"):
            rows = self._db.execute(
                "SELECT id, kind, payload FROM mtst_journal.events WHERE kind = %s ORDER BY id DESC LIMIT %s",
                (kind, limit),
            ).fetchall()
        return [Entry(row_id, row_kind, decoded(payload, row_id, "PostgreSQL")) for row_id, row_kind, payload in rows]

    def save_snapshot(self, text: str) -> None:
        """Keep what all events so far led to, in place of the snapshot before the last."""
        chain = link(self._chain, self._last_id, "snapshot", text)
        with self._lock, _Told("cannot be written"), self._db.transaction():
            self._db.execute(
                "INSERT INTO mtst_journal.snapshots VALUES (%s, %s, %s) ON CONFLICT (id) DO UPDATE"
                " SET book = EXCLUDED.book, chain = EXCLUDED.chain",
                (self._last_id, text, chain),
            )
            self._db.execute(
                "DELETE FROM mtst_journal.snapshots WHERE id NOT IN"
                " (SELECT id FROM mtst_journal.snapshots ORDER BY id DESC LIMIT 2)"
            )

    def snapshot(self) -> tuple[int, str]:
        """Id of the last event in the newest snapshot, and its text; (0, "") where none can be trusted."""
        with self._lock, _Told("cannot be read"):
            found = self._one("SELECT id, book, chain FROM mtst_journal.snapshots ORDER BY id DESC LIMIT 1")
        if found is None:
            return 0, ""
        row_id, text, chain = found
        return (row_id, text) if chain == link(self._chain_at(row_id), row_id, "snapshot", text) else (0, "")

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._db.close()

    def _connect(self) -> psycopg.Connection[Any]:
        db = psycopg.connect(self._dsn, autocommit=True, connect_timeout=WAIT_S, application_name="mtst-journal")
        db.execute(f"SET lock_timeout = '{WAIT_S}s'")
        if self._read_only:
            db.execute("SET default_transaction_read_only = on")
        return db

    def _reconnect(self) -> None:
        """Go on after the server was away; what another writer wrote meanwhile makes the fence refuse us."""
        if self._db.closed or self._db.broken:
            with suppress(psycopg.Error):
                self._db.close()
            self._db = self._connect()

    def _one(self, query: str) -> tuple[Any, ...] | None:
        return self._db.execute(query).fetchone()  # type: ignore[arg-type]

    def _claim(self) -> int:
        row = self._one(
            "INSERT INTO mtst_journal.meta VALUES ('writer', 1) ON CONFLICT (name) DO UPDATE"
            " SET value = mtst_journal.meta.value + 1 RETURNING value"
        )
        assert row is not None  # RETURNING of an upsert gives its row
        return int(row[0])

    def _check_version(self) -> None:
        row = self._one("SELECT value FROM mtst_journal.meta WHERE name = 'schema'")
        if row is None and not self._read_only:
            self._db.execute("INSERT INTO mtst_journal.meta VALUES ('schema', %s)", (SCHEMA_VERSION,))
        elif row is None or row[0] != SCHEMA_VERSION:
            raise JournalError(
                f"written under schema {'none' if row is None else row[0]}, this program knows {SCHEMA_VERSION}",
                todo="use the program version that wrote it, or start with a new journal",
            )

    def _tail(self) -> tuple[int, str]:
        row = self._one("SELECT id, chain FROM mtst_journal.events ORDER BY id DESC LIMIT 1")
        return (0, "") if row is None else (int(row[0]), str(row[1]))

    def _chain_at(self, row_id: int) -> str:
        with self._lock, _Told("cannot be read"):
            row = self._db.execute("SELECT chain FROM mtst_journal.events WHERE id = %s", (row_id,)).fetchone()
        return "" if row is None else str(row[0])


class _Told:
    """Turns what the server and the line to it raise into JournalError."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(error, (psycopg.Error, OSError)):
            raise JournalError(
                f"the journal {self._what}: {type(error).__name__}: {str(error).strip()[:300]}",
                where="PostgreSQL",
                todo="check the server and the connection; entries stay refused until it works",
            ) from error
