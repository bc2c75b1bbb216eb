"""Money is conserved: no exchange and no fleet of a test is stopped before its books are compared.

`compared()` stands around every run of pytest (tests/conftest.py) and around every program that trades for a test, at
the few places where the product stops an exchange, a fleet, or a stand of one exchange and its bots: whoever starts one
need not think of it. A test whose books differ on purpose says so by `@pytest.mark.books_differ("why")`; its
exchanges' own books must balance nevertheless.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.loss_stand.stand import Stand
from cluster import processes
from cluster.settings import Settings
from cluster.stages import exchange as exchanges
from cluster.stages.running_fleet import announced
from observability.errors import TradingError
from observability.progress import NullProgress
from trading.adapters.bot_books import read_book
from trading.adapters.bot_database import Database, bot_database
from trading.adapters.bot_spec import BotSpec
from trading.adapters.fleet import Fleet
from trading.adapters.fleet_books import FleetBooks, fleet_books, ledger_lines
from trading.adapters.postgres_journal import open_journal
from trading.adapters.sandbox.client import SandboxClient
from trading.adapters.sandbox.config import load_config
from trading.journal import Journal
from trading.reconcile import BooksDifference, OrderLine, compare_books, journal_lines

TOLERANCE = 1e-8
PATIENCE_S = 20.0
CANDLE_MS = 900_000
QUIET = NullProgress()
Ledger = Mapping[str, Any]

_excuses: list[str] = []


class BooksDifferError(AssertionError):
    """Money was lost or made between the books."""


# --- what is compared ---------------------------------------------------------------------------------------------


def balanced(ledger: Ledger) -> Ledger:
    """An exchange's ledger; raises BooksDifferError unless it balances to the last unit."""
    if ledger["problems"] or ledger["conserved"] is not True:
        raise BooksDifferError(f"the exchange's own books do not balance: {ledger['problems']}")
    return ledger


def balanced_at(url: str) -> Ledger:
    """The ledger of the exchange that runs there, which balances."""
    with closing(SandboxClient(url)) as client:
        return balanced(client.ledger())


def agreed(found: Mapping[str, BooksDifference]) -> bool:
    """Whether every order is in every book, and all together differ by no more than `TOLERANCE`, by bot or account."""
    filled, cost = (sum(getattr(item, what) for item in found.values()) for what in ("filled", "cost"))
    return all(item.agree for item in found.values()) and max(filled, cost) <= TOLERANCE


def require_agreed(found: Mapping[str, BooksDifference]) -> None:
    """Raise BooksDifferError unless they are `agreed`."""
    if not agreed(found):
        told = {name: f"{item.text}; filled {item.filled:.3g}, cost {item.cost:.3g}" for name, item in found.items()}
        first = {name: next(iter(item.wrong.items()), None) for name, item in found.items() if item.wrong}
        raise BooksDifferError(f"the books differ: {told} {first or ''}")


def require_freqtrade_agrees(database: Database, ledger: Ledger, account: str, *, futures: bool = False) -> None:
    """Freqtrade's own database and the exchange's ledger, where nobody keeps a journal."""
    book = read_book(database)
    require_agreed({account: compare_books(book, book, ledger_lines(balanced(ledger), account, futures=futures))})


def settled(read: Callable[[], Mapping[str, BooksDifference]], go_on: Callable[[], object]) -> None:
    """Wait until the books agree: what was just filled is booked by the bot's next loop, for which `go_on` lets time
    pass.

    Raises:
        BooksDifferError: they do not, although time went on for `PATIENCE_S`.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not agreed(found := read()) and time.monotonic() < deadline:
        go_on()
    require_agreed(found)


# --- who is compared ----------------------------------------------------------------------------------------------


def fleet_agrees(fleet: Fleet) -> None:
    """Every bot's database, the risk manager's journal and the exchanges' ledgers; only sandboxes show a ledger."""
    if not all(spec.url for spec in fleet.bots.values()):
        return
    fleet.hold()

    def read() -> Mapping[str, BooksDifference]:
        if fleet.config.url:
            fleet.settle_down()
        books: FleetBooks = fleet.books()
        assert books.conserved
        return books.by_bot

    def go_on() -> None:
        try:
            fleet.run_candles(1, QUIET, max_s=5.0)
        except TradingError:  # its clock is the wall's, or the bots' own
            time.sleep(0.5)

    settled(read, go_on)


def stand_agrees(stand: Stand) -> None:
    """The three books of every account of a stand; what plain Freqtrade loses is what the stand is there to count."""
    if not stand.ours:
        return

    def read() -> Mapping[str, BooksDifference]:
        stand.revive()
        stand.until(lambda: all(stand.client.health()["participants"].get(name) for name in stand._bots))
        ledger = balanced(stand.client.ledger())
        with closing(Journal(stand.journal, read_only=True)) as journal:
            fills = list(journal.read("fill"))
        return {
            account: compare_books(books, journal_lines(fills, account), ledger_lines(ledger, account))
            for account, books in _stand_books(stand).items()
        }

    def go_on() -> None:
        if stand.client.health()["ended"]:
            time.sleep(0.5)
        else:
            stand.run(1)

    settled(read, go_on)


def _stand_books(stand: Stand) -> dict[str, dict[str, OrderLine]]:
    """What the bots of every account have in their databases."""
    books: dict[str, dict[str, OrderLine]] = {account: {} for account in stand.accounts}
    for name in stand._known():
        dsn = stand._specs.get(name, {}).get("dsn_file", "")
        books[stand.account(name)] |= read_book(bot_database(stand.folder(name), name, "live", dsn))
    return books


def workspace_balances(root: Path) -> None:
    """The exchange that a program of its own started in a workspace, before `exchange down`; none is well, too."""
    running = exchanges.find_exchange(_settings(root))
    if running is not None:
        balanced_at(running.url)


def workspace_agrees(root: Path) -> None:
    """The three books of bots that a program of its own started in a workspace, before `trade down`."""
    settings = _settings(root)
    try:
        specs = tuple(BotSpec.from_json(json.dumps(item)) for item in announced(settings)["bots"])
    except TradingError:
        return
    (url,) = {spec.url for spec in specs}
    with closing(SandboxClient(url)) as client:

        def read() -> Mapping[str, BooksDifference]:
            client.join("books")  # time stands while we read
            _asleep(client, [spec.name for spec in specs])
            journal = open_journal(settings.workspace.journal, None, read_only=True)
            with closing(journal):
                fills = list(journal.read("fill"))
            return fleet_books(specs, fills, {url: balanced(client.ledger())}).by_bot

        try:
            settled(read, lambda: client.sleep("books", client.now_ms() + CANDLE_MS))
        finally:
            client.leave("books")


def _settings(root: Path) -> Settings:
    return Settings().changed(workspace={"root": root})


def _asleep(client: SandboxClient, names: Iterable[str], patience_s: float = 2.0) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        sleeps = client.health()["participants"]
        if all(sleeps.get(name) is not None for name in names):
            return
        time.sleep(0.02)


# --- that it is compared ------------------------------------------------------------------------------------------


@contextmanager
def excused(why: str) -> Iterator[None]:
    """Within, the books of bots may differ if there is a reason; `""` is none."""
    _excuses.append(why)
    try:
        yield
    finally:
        _excuses.pop()


@contextmanager
def compared() -> Iterator[None]:
    """Within, whatever ends an exchange, a fleet or a stand compares its books first, and ends it all the same.

    Raises:
        BooksDifferError: where the end is asked for; and here, of an exchange that nobody stopped.
    """
    started: set[Path] = set()

    def before_exchange(name: str, run_dir: Path, *_: Any, **__: Any) -> None:
        if name == exchanges.NAME and processes.find(name, run_dir) is not None:
            started.discard(run_dir)
            config = load_config(run_dir.parent / f"{name}.json")
            balanced_at(f"http://{config.host}:{config.port}")

    def before_fleet(fleet: Fleet, *_: Any, **__: Any) -> None:
        if not any(_excuses):
            fleet_agrees(fleet)

    def before_stand(stand: Stand, kind: type[BaseException] | None = None, *_: Any) -> None:
        if kind is None and not any(_excuses):
            stand_agrees(stand)

    spawn = processes.spawn

    def spawned(name: str, *arguments: Any, run_dir: Path, **options: Any) -> Any:
        process = spawn(name, *arguments, run_dir=run_dir, **options)
        started.update({run_dir} if name == exchanges.NAME else ())
        return process

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "spawn", spawned)
        patch.setattr(processes, "stop", after(before_exchange, processes.stop))
        patch.setattr(Fleet, "stop", after(before_fleet, Fleet.stop))
        patch.setattr(Stand, "__exit__", after(before_stand, Stand.__exit__))
        yield
        if started:
            raise BooksDifferError(f"nobody stopped the exchanges of {sorted(map(str, started))}, or they died")


def after(look: Callable[..., None], end: Callable[..., Any]) -> Callable[..., Any]:
    """`end`, which comes after a `look` at what it ends, also where that raises."""

    @functools.wraps(end)
    def ended(*arguments: Any, **options: Any) -> Any:
        try:
            look(*arguments, **options)
        finally:
            told = end(*arguments, **options)
        return told

    return ended
