"""Where a bot keeps its trades: an SQLite file of its own, or a schema of its own in PostgreSQL.

A file is enough on one machine. Where a bot may come back on another node, a file would have to be on a network's file
system, whose locks SQLite does not trust; PostgreSQL is there for that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from observability.errors import SettingsError, TradingError
from observability.files import read_secret

PREFIX = "mtst_bot_"
BUSY_S = 5


@dataclass(frozen=True)
class BotSchema:
    """One bot's schema in the database that `dsn_file` (mode 0600, libpq's connection string) names.

    Attributes:
        folder: the bot's own folder; two bots of one name in two folders never share their books.
        name: the bot's name; mode: dry and live books are never mixed.
    """

    dsn_file: Path
    folder: Path
    name: str
    mode: str

    @property
    def schema(self) -> str:
        """Name of the schema."""
        return f"{PREFIX}{self.name}_{self.mode}"

    def url(self) -> str:
        """SQLAlchemy's address of the schema, password included; raises SecretError for a file open to others."""
        from psycopg.conninfo import conninfo_to_dict
        from sqlalchemy.engine import URL

        given = {key: str(value) for key, value in conninfo_to_dict(self._dsn()).items() if value is not None}
        user, password, host, database = (given.pop(key, None) for key in ("user", "password", "host", "dbname"))
        port = int(given.pop("port", "5432"))
        given["options"] = f'{given.get("options", "")} -csearch_path="{self.schema}"'.strip()
        url = URL.create("postgresql+psycopg", user, password, host, port, database, given)
        return url.render_as_string(hide_password=False)

    def claim(self) -> None:
        """Make the schema where it is not there.

        Raises:
            SecretError: the file is missing or open to others.
            SettingsError: the bot of another folder has its books there.
            TradingError: the database cannot be reached.
        """
        from psycopg.sql import SQL, Identifier, Literal

        here = str(self.folder.resolve())
        with _connected(self._dsn(), f"bot {self.name}") as db, db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(7305202)")  # two that start together make one schema
            owner = db.execute(
                "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s", (self.schema,)
            ).fetchone()
            if owner is None:
                db.execute(SQL("CREATE SCHEMA {}").format(Identifier(self.schema)))
                db.execute(SQL("COMMENT ON SCHEMA {} IS {}").format(Identifier(self.schema), Literal(here)))
            elif owner[0] != here:
                raise SettingsError(
                    f"the books of {self.name} in the database are those of another folder, {owner[0]}",
                    where=str(self.dsn_file), todo="give each workspace a database of its own",
                )  # fmt: skip

    def _dsn(self) -> str:
        return read_secret(self.dsn_file, "the connection string of the bots' database")

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection that only reads, and whose tables are the bot's. Raises as `claim`."""
        from psycopg.sql import SQL, Identifier

        with _connected(self._dsn(), f"bot {self.name}") as db:
            db.execute(SQL("SET search_path = {}").format(Identifier(self.schema)))
            db.execute("SET default_transaction_read_only = on")
            yield db


Database: TypeAlias = Path | BotSchema
"""An SQLite file, or a schema in PostgreSQL."""
Ask: TypeAlias = Callable[[str], list[dict[str, Any]]]
"""Rows of a query by column; none where the bot has written nothing yet."""


def bot_database(folder: Path, name: str, mode: str, dsn_file: str = "") -> Database:
    """Where the bot of a folder keeps its trades; without `dsn_file` in a file there."""
    return BotSchema(Path(dsn_file), folder, name, mode) if dsn_file else folder / f"trades-{mode}.sqlite"


def url_of(database: Database) -> str:
    """SQLAlchemy's address; that of a schema holds its password, and raises SecretError for a file open to others."""
    return f"sqlite:///{database.resolve()}" if isinstance(database, Path) else database.url()


@contextmanager
def reading(database: Database) -> Iterator[Ask]:
    """Asks a bot's books, in a language that both databases understand, over one connection.

    Raises:
        TradingError: the database cannot be reached or read.
    """
    if isinstance(database, BotSchema):
        with database.connection() as db:
            yield lambda text: _rows_of_schema(db, text)
    elif not database.exists():
        yield lambda _: []
    else:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as file:
            yield lambda text: _rows_of_file(file, database, text)


def schemas(dsn_file: Path, bots: Path) -> list[BotSchema]:
    """Every schema of a bot whose folder lies in `bots`, by name."""
    dsn = read_secret(dsn_file, "the connection string of the bots' database")
    with _connected(dsn, str(dsn_file)) as db:
        found = db.execute(
            "SELECT nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace"
            " WHERE starts_with(nspname, %s) ORDER BY nspname",
            (PREFIX,),
        ).fetchall()
    made = []
    for schema, folder in found:
        if folder and Path(folder).parent == bots.resolve():
            name, _, mode = schema.removeprefix(PREFIX).rpartition("_")
            made.append(BotSchema(dsn_file, Path(folder), name, mode))
    return made


def _rows_of_schema(db: Any, text: str) -> list[dict[str, Any]]:
    from psycopg import errors

    try:
        return _rows(db.execute(text))
    except errors.UndefinedTable:  # the tables are being made
        return []


def _rows_of_file(db: sqlite3.Connection, path: Path, text: str) -> list[dict[str, Any]]:
    try:
        return _rows(db.execute(text))
    except sqlite3.DatabaseError as error:
        if "no such table" in str(error):  # they are being made
            return []
        what = f"a bot's database cannot be read: {error}"
        raise TradingError(what, where=str(path), todo="look again, else restore it") from error


def _rows(cursor: Any) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@contextmanager
def _connected(dsn: str, where: str) -> Iterator[Any]:
    import psycopg

    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=BUSY_S) as db:
            yield db
    except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
        what = str(error).splitlines()[0]  # names host and user, never the password
        raise TradingError(
            f"the bots' database does not answer: {what}", where=where, todo="start PostgreSQL, or correct the file"
        ) from error
