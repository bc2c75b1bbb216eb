"""The kill switch: in force without anybody alive, closed on every doubt, obeyed and journalled once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cluster.kill_switch import _answers
from observability.errors import TradingError
from observability.ports import free_port
from tests.unit.trading.trading_makers import NOW, intent, report
from trading.adapters.bot_database import bot_database
from trading.clock import FixedClock
from trading.journal import Journal
from trading.kill_switch import ACKS, RISK, KillSwitch
from trading.limits import RiskLimits
from trading.manager import RiskManager
from trading.orders import Approved
from trading.state import TradingState

LIMITS = RiskLimits(accounts={"acc": "binance"})


@pytest.fixture
def switch(tmp_path: Path) -> KillSwitch:
    made = KillSwitch(tmp_path / "kill-switch.jsonl")
    made.install()
    return made


@pytest.fixture
def manager(tmp_path: Path, switch: KillSwitch) -> Iterator[RiskManager]:
    made = RiskManager(tmp_path / "journal.db", LIMITS, FixedClock(NOW), None, switch)
    made.acquire_lease("acc", "nn")
    made.report(report("acc"))
    yield made
    made.close()


def test_only_the_newest_line_counts_and_another_reader_sees_it_at_once(switch: KillSwitch) -> None:
    reader = KillSwitch(switch.path)
    assert not reader.read().closed
    switch.order("halt", "ann", "news")
    assert (reader.read().closed, reader.read().who, reader.read().reason) == (True, "ann", "news")
    switch.order("flatten", "bob", "get out")
    switch.order("halt", "ann", "all of it")
    assert reader.read().flatten, "a halt does not withdraw the wish to close"
    switch.order("resume", "ann", "over")
    assert not reader.read().closed
    assert not reader.read().flatten
    assert len(reader.since(json.loads(switch.path.read_text().splitlines()[0])["id"])) == 4
    switch.install()
    assert len(switch.path.read_text().splitlines()) == 5, "what is there stays"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text(""),
        lambda path: path.write_bytes(path.read_bytes() + b'\n{"id": "x", "verb": "resu'),
        lambda path: path.write_bytes(path.read_bytes() + b'\n{"id": "x", "verb": "go"}'),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)  # fmt: skip
def test_whatever_cannot_be_read_is_a_halt_until_a_person_writes_again(
    switch: KillSwitch, manager: RiskManager, damage: object
) -> None:
    switch.order("resume", "ann", "fine")
    manager.obey()
    assert isinstance(manager.decide(intent(intent_id="first")), Approved)
    manager.settle("r-first", "cancelled")
    damage(switch.path)  # type: ignore[operator]
    assert KillSwitch(switch.path).read().closed
    assert not KillSwitch(switch.path).read().flatten, "doubt closes no position"
    assert manager.obey().state is TradingState.HALTED
    if switch.path.is_dir():
        switch.path.rmdir()
    before = manager.ping()["last_id"]
    manager.obey()
    assert manager.ping()["last_id"] == before, "said once"
    switch.order("resume", "ann", "mended")
    assert manager.obey().state is TradingState.ACTIVE


def test_mending_the_file_brings_no_old_resume_back(switch: KillSwitch, manager: RiskManager) -> None:
    switch.order("resume", "ann", "fine")
    manager.obey()
    kept = switch.path.read_bytes()
    switch.path.unlink()
    assert manager.obey().state is TradingState.HALTED
    switch.path.write_bytes(kept)
    assert manager.obey().state is TradingState.HALTED
    assert manager.report(report("acc")).state is TradingState.HALTED


def test_commands_are_journalled_once_with_who_when_and_why(
    switch: KillSwitch, manager: RiskManager, tmp_path: Path
) -> None:
    for verb, who in (("halt", "ann"), ("resume", "bob"), ("flatten", "cid")):
        switch.order(verb, who, f"{verb} it")  # type: ignore[arg-type]
    assert manager.obey().flatten
    manager.obey()
    again = RiskManager(tmp_path / "journal.db", LIMITS, FixedClock(NOW), None, switch)
    again.obey()
    assert again.state() == manager.state()
    again.close()
    journal = Journal(tmp_path / "journal.db", read_only=True)
    rows = [entry.payload for entry in journal.read("state") if entry.payload["command"]]
    journal.close()
    assert rows.pop(0)["latch"]["reason"].startswith("fresh start"), "the file's first line asks for nothing"
    told = [(row["latch"]["who"], row["latch"]["reason"], row["latch"]["since_ms"]) for row in rows]
    assert told == [("ann", "halt it", NOW), ("bob", "resume it", NOW), ("cid", "flatten it", NOW)]


def test_an_older_resume_does_not_lift_a_later_breaker(switch: KillSwitch, manager: RiskManager) -> None:
    switch.order("resume", "ann", "before the fall")
    assert manager.report(report("acc", equity=8_000.0)).state is TradingState.HALTED
    assert manager.obey().who == "DRAWDOWN"


def test_what_is_asked_of_the_manager_goes_through_the_switch(switch: KillSwitch, manager: RiskManager) -> None:
    manager.halt("odd", "ann")
    assert KillSwitch(switch.path).read().closed
    assert switch.acknowledged()["risk"].state == "halted"
    manager.resume("ann", "looked")
    assert not KillSwitch(switch.path).read().closed
    assert manager.state().state is TradingState.ACTIVE
    with pytest.raises(TradingError, match="named person"):
        manager.halt("why", " ")


def test_a_halt_that_cannot_be_written_closes_the_gates_all_the_same(
    switch: KillSwitch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(TradingError, match="every gate is closed"):
        switch.order("halt", "ann", "news")
    assert KillSwitch(switch.path).read().closed
    monkeypatch.undo()
    switch.install()
    assert KillSwitch(switch.path).read().closed, "starting anew does not lift it"
    switch.order("resume", "ann", "disk freed")
    assert not KillSwitch(switch.path).read().closed


def test_two_writers_lose_no_command(switch: KillSwitch) -> None:
    def pull(name: str) -> None:
        for number in range(50):
            KillSwitch(switch.path).order("halt", name, f"{number}" * 20)

    threads = [threading.Thread(target=pull, args=(name,)) for name in ("ann", "bob", "cid")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = json.loads(switch.path.read_text().splitlines()[0])["id"]
    assert len(KillSwitch(switch.path).since(first)) == 150


def command(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MTST_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "cluster", *words], env=environment, cwd=home, capture_output=True, text=True,
        timeout=30, check=False,
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace whose bots are announced and all dead, its settings broken."""
    monkeypatch.setenv("PYTHONPATH", str(repo_root))
    (tmp_path / "var" / "run").mkdir(parents=True)
    bots = [{"name": "swing", "folder": str(tmp_path / "swing"), "mode": "live"}]
    (tmp_path / "var" / "run" / "fleet.json").write_text(json.dumps({"address": "127.0.0.1:1", "bots": bots}))
    (tmp_path / "mtst-trader.toml").write_text("this is = no toml = at all")
    return tmp_path


def test_the_command_line_needs_nobody_alive_and_no_settings(home: Path) -> None:
    KillSwitch(home / "var" / "kill-switch.jsonl").install()
    done = command(home, "trade", "halt", "--who", "ann", "--reason", "odd", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["state"], told["who"], told["acknowledged"]) == ("halted", "ann", [])
    assert set(told["silent"]) == {"risk", "swing"}
    assert KillSwitch(home / "var" / "kill-switch.jsonl").read().closed
    assert command(home, "trade", "resume", "--wait", "0").returncode == 0
    assert not KillSwitch(home / "var" / "kill-switch.jsonl").read().closed
    assert "error: " in command(home, "trade", "halt", "--nonsense").stderr, "wrong words meet the full command line"


def test_flatten_tells_what_a_dead_bot_still_holds(home: Path) -> None:
    import sqlite3

    (home / "swing").mkdir()
    database = sqlite3.connect(home / "swing" / "trades-live.sqlite")
    database.executescript(
        "CREATE TABLE trades (id INTEGER, pair TEXT, is_open INTEGER, realized_profit REAL);"
        "CREATE TABLE orders (filled REAL);"
        "INSERT INTO trades VALUES (1, 'BTC/USDT', 1, 0);"
    )
    database.close()
    switch = KillSwitch(home / "var" / "kill-switch.jsonl")
    switch.install()
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    (switch.path.parent / ACKS).mkdir()
    told = {"name": "swing", "command": "older", "pid": ended.pid, "at_ms": 1}
    (switch.path.parent / ACKS / "swing.json").write_text(json.dumps(told))
    done = command(home, "trade", "flatten", "--who", "ann")
    assert "swing still holds BTC/USDT" in done.stdout
    assert f"its process {ended.pid} has ended" in done.stdout
    with closing(sqlite3.connect(home / "swing" / "trades-live.sqlite")) as database, database:
        database.execute("UPDATE trades SET is_open = 0")
    assert "nothing is open" in command(home, "trade", "flatten", "--who", "ann", "--wait", "0").stdout


def test_a_database_that_is_away_hides_nobody_who_has_heard_a_flatten(switch: KillSwitch, tmp_path: Path) -> None:
    dsn = tmp_path / "bots.dsn"
    dsn.touch(mode=0o600)
    dsn.write_text(f"host=127.0.0.1 port={free_port()} user=risk dbname=bots")
    asked = switch.order("flatten", "ann", "out")
    switch.acknowledge(RISK, "reducing")
    switch.acknowledge("swing")
    told = _answers(switch, asked, {"swing": bot_database(tmp_path, "swing", "live", str(dsn))}, 0.0).lines
    assert "acknowledged by risk, swing" in told
    assert "swing still holds what cannot be read: the bots' database does not answer" in told
    assert "nothing is open" not in told


@pytest.mark.parametrize(("state", "waits"), [("halted", True), ("active", False)])
def test_a_resume_that_waits_for_the_books_says_so(switch: KillSwitch, state: str, waits: bool) -> None:
    asked = switch.order("resume", "ann", "looked")
    switch.acknowledge(RISK, state)
    told = _answers(switch, asked, {}, 0.0).lines
    assert told.startswith(f"Trading is {state}: looked")
    assert ("until every account's books agree" in told) is waits


def test_the_kill_switch_imports_nothing_heavy(repo_root: Path) -> None:
    program = (
        "import sys; import cluster.kill_switch; "
        "heavy = {'ray', 'freqtrade', 'torch', 'pandas', 'numpy', 'polars', 'pydantic', 'typer', 'rich', 'httpx'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=repo_root, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"
