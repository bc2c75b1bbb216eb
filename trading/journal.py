"""Append-only record of every intent, decision, state change, lease, fill and report; the source of recovery.

SQLite in WAL mode. A durable append returns only after its bytes reached the disk (synchronous=FULL); reports may use
the cheaper kind, which a killed process survives and only a power cut can lose. Each row carries a hash chained
to the row before it, so damage and tampering are found when the journal is read. The newest writer owns the
journal: a replaced process that still runs is refused at its next append.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from observability.errors import JournalError

SCHEMA_VERSION = 1
KINDS = (
    "intent", "decision", "state", "lease", "fill", "settle", "report", "market", "limit_change", "limit_refused",
    "recovery",
)  # fmt: skip
PLAIN_KINDS = frozenset({"intent", "decision", "report", "settle", "lease", "fill"})
"""Written often, and by our own `to_dict`, in which NaN is a text: these can go the fast way."""
OPEN_SECONDS = 5.0  # how long opening waits for a lock, e.g. of the writer that is being replaced
CHECKPOINT_PAGES = 10_000  # rarely, since an append waits for it; snapshots do it between appends
BUSY_MS = 200  # appends wait less: a bot waits behind them, and a refused entry is cheaper than a late stop
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, payload TEXT NOT NULL, chain TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS snapshots (id INTEGER PRIMARY KEY, book TEXT NOT NULL, chain TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_by_kind ON events (kind, id);
CREATE TRIGGER IF NOT EXISTS events_stay BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER IF NOT EXISTS events_remain BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the journal; ids rise by one."""

    id: int
    kind: str
    payload: Mapping[str, Any]


class JournalStore(Protocol):
    """A journal, wherever it is kept; see `Journal` for what each method promises."""

    @property
    def last_id(self) -> int: ...  # noqa: D102 - documented at Journal

    def append_encoded(self, events: Sequence[tuple[str, str]], *, durable: bool = True) -> int: ...  # noqa: D102

    def read(self, kind: str | None = None, after: int = 0) -> Iterator[Entry]: ...  # noqa: D102

    def latest(self, kind: str, limit: int) -> list[Entry]: ...  # noqa: D102

    def save_snapshot(self, text: str) -> None: ...  # noqa: D102

    def snapshot(self) -> tuple[int, str]: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


class Journal:
    """The journal file at `path`; `read_only` for people and reports, which never take it from its writer.

    Raises:
        JournalError: on opening, reading or writing, whenever the record cannot be trusted.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._read_only = read_only
        with _Told(path, "cannot be opened"):
            self._db = _connect(path, read_only)
            if not read_only:
                self._db.executescript(_SCHEMA)
            self._check_version()
            if self._newest_snapshot() is None:  # else reading every page would take ever longer
                self._check_pages()
            self._generation = 0 if read_only else self._claim()
            self._last_id, self._chain = self._tail()
            self._db.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            self._durable = True

    def append(self, kind: str, payload: Mapping[str, Any], *, durable: bool = True) -> int:
        """Add one event and return its id; see `append_all`."""
        return self.append_all([(kind, payload)], durable=durable)

    def append_all(self, events: Sequence[tuple[str, Mapping[str, Any]]], *, durable: bool = True) -> int:
        """Add several events or none of them; returns the last id once they are safe.

        Raises:
            JournalError: not written (disk full, lock, another writer); nothing of it will be read later.
        """
        return self.append_encoded([encoded(kind, payload) for kind, payload in events], durable=durable)

    def append_encoded(self, events: Sequence[tuple[str, str]], *, durable: bool = True) -> int:
        """The same for events that `encoded` made."""
        if self._read_only:
            raise JournalError("opened for reading only", where=str(self.path))
        with self._lock, _Told(self.path, "cannot be written"):
            if durable != self._durable:
                self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            self._db.execute("BEGIN IMMEDIATE")
            try:
                last_id, chain = self._insert(events)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._last_id, self._chain = last_id, chain
            return last_id

    def read(self, kind: str | None = None, after: int = 0) -> Iterator[Entry]:
        """Events with id > `after`, oldest first. Without `kind` every row's hash is checked on the way."""
        with self._lock, _Told(self.path, "cannot be read"):
            chain = self._chain_at(after)
            where = "id > ?" if kind is None else "id > ? AND kind = ?"
            query = f"SELECT id, kind, payload, chain FROM events WHERE {where} ORDER BY id"  # noqa: S608
            rows = self._db.execute(query, (after,) if kind is None else (after, kind)).fetchall()
        previous = after
        for row_id, row_kind, payload, row_chain in rows:
            if kind is None:
                expected = link(chain, row_id, row_kind, payload)
                if row_id != previous + 1 or row_chain != expected:
                    raise damaged(str(self.path), f"row {row_id} does not follow from the row before it")
                previous, chain = row_id, row_chain
            yield Entry(row_id, row_kind, decoded(payload, row_id, str(self.path)))

    def latest(self, kind: str, limit: int) -> list[Entry]:
        """The newest `limit` events of a kind, newest first."""
        with self._lock, _Told(self.path, "cannot be read"):
            query = "SELECT id, kind, payload FROM events WHERE kind = ? ORDER BY id DESC LIMIT ?"
            rows = self._db.execute(query, (kind, limit)).fetchall()
        return [Entry(row_id, row_kind, decoded(payload, row_id, str(self.path))) for row_id, row_kind, payload in rows]

    def save_snapshot(self, text: str) -> None:
        """Keep what all events so far led to, in place of the snapshot before the last; raises JournalError."""
        with self._lock, _Told(self.path, "cannot be written"):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                chain = link(self._chain, self._last_id, "snapshot", text)
                self._db.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", (self._last_id, text, chain))
                self._db.execute(
                    "DELETE FROM snapshots WHERE id NOT IN (SELECT id FROM snapshots ORDER BY id DESC LIMIT 2)"
                )
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def snapshot(self) -> tuple[int, str]:
        """Id of the last event in the newest snapshot, and its text; (0, "") where none can be trusted."""
        with self._lock, _Told(self.path, "cannot be read"):
            found = self._newest_snapshot()
            if found is None:
                return 0, ""
            row_id, text, chain = found
            return (row_id, text) if chain == link(self._chain_at(row_id), row_id, "snapshot", text) else (0, "")

    @property
    def last_id(self) -> int:
        """Id of the newest event; 0 when empty."""
        return self._last_id

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _insert(self, events: Sequence[tuple[str, str]]) -> tuple[int, str]:
        owner = self._db.execute("SELECT value FROM meta WHERE name = 'writer'").fetchone()
        if owner is None or owner[0] != self._generation:
            raise JournalError(
                "another writer has taken over", where=str(self.path), todo="stop this process; the newer one decides"
            )
        last_id, chain = self._last_id, self._chain
        for kind, text in events:
            last_id += 1
            chain = link(chain, last_id, kind, text)
            self._db.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (last_id, kind, text, chain))
        return last_id, chain

    def _check_version(self) -> None:
        row = self._db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        if row is None and not self._read_only:
            self._db.execute("INSERT INTO meta VALUES ('schema', ?)", (SCHEMA_VERSION,))
        elif row is None or row[0] != SCHEMA_VERSION:
            found = "none" if row is None else row[0]
            raise JournalError(
                f"written under schema {found}, this program knows {SCHEMA_VERSION}",
                where=str(self.path),
                todo="use the program version that wrote it, or start with a new journal",
            )

    def _check_pages(self) -> None:
        verdict = self._db.execute("PRAGMA quick_check").fetchone()[0]
        if verdict != "ok":
            raise damaged(str(self.path), str(verdict))

    def _claim(self) -> int:
        self._db.execute("BEGIN IMMEDIATE")
        row = self._db.execute("SELECT value FROM meta WHERE name = 'writer'").fetchone()
        generation = 1 if row is None else int(row[0]) + 1
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('writer', ?)", (generation,))
        self._db.execute("COMMIT")
        return generation

    def _tail(self) -> tuple[int, str]:
        row = self._db.execute("SELECT id, chain FROM events ORDER BY id DESC LIMIT 1").fetchone()
        return (0, "") if row is None else (int(row[0]), str(row[1]))

    def _newest_snapshot(self) -> tuple[int, str, str] | None:
        try:
            row = self._db.execute("SELECT id, book, chain FROM snapshots ORDER BY id DESC LIMIT 1").fetchone()
        except sqlite3.OperationalError:  # read only, and written before there were any
            return None
        return None if row is None else (int(row[0]), str(row[1]), str(row[2]))

    def _chain_at(self, row_id: int) -> str:
        row = self._db.execute("SELECT chain FROM events WHERE id = ?", (row_id,)).fetchone()
        return "" if row is None else str(row[0])


class _Told:
    """Turns what SQLite and the system raise into JournalError with the file's name."""

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, (sqlite3.Error, OSError)):
            raise JournalError(
                f"the journal {self.what}: {error}",
                where=str(self.path),
                todo="check the disk and the file; entries stay refused until it works",
            ) from error


def _connect(path: Path, read_only: bool) -> sqlite3.Connection:
    if read_only:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, timeout=OPEN_SECONDS, isolation_level=None, check_same_thread=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # trades are nobody else's business
    db = sqlite3.connect(path, timeout=OPEN_SECONDS, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    return db


def link(chain: str, row_id: int, kind: str, payload: str) -> str:
    """The hash of a row, chained to that of the row before it."""
    return hashlib.sha256(f"{chain}|{row_id}|{kind}|{payload}".encode()).hexdigest()[:32]


def encoded(kind: str, payload: Mapping[str, Any]) -> tuple[str, str]:
    """An event as the journal stores it; raises JournalError for an unknown kind or what is not plain JSON."""
    if kind not in KINDS:
        raise JournalError(f"unknown kind of event '{kind}'", where=kind, todo=", ".join(KINDS))
    try:
        if kind in PLAIN_KINDS:
            text = orjson.dumps(payload, option=orjson.OPT_SORT_KEYS).decode()
            if "null" in text and not _finite(payload):  # orjson writes null for NaN, and a lost number is a lost fill
                raise ValueError("a number is not finite")
            return kind, text
        return kind, json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise JournalError(f"an event is not plain JSON: {error}", where=kind) from error


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(_finite(each) for each in value.values())
    return not isinstance(value, list | tuple) or all(_finite(each) for each in value)


def decoded(payload: str, row_id: int, where: str = "journal") -> Mapping[str, Any]:
    """What `encoded` wrote; raises JournalError when it is damaged."""
    try:
        value = orjson.loads(payload)
    except (TypeError, ValueError) as error:
        raise damaged(where, f"row {row_id} is not JSON") from error
    if not isinstance(value, dict):
        raise damaged(where, f"row {row_id} is not a table")
    return value


def damaged(where: str, what: str) -> JournalError:
    """The error for a record that cannot be trusted."""
    return JournalError(
        f"the journal is damaged: {what}",
        where=where,
        todo="keep the file, restore a backup or start a new journal and reconcile with the exchange",
    )
