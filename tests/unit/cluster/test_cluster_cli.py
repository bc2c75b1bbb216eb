"""The command line: every error is one sentence with an exit code, and help is quick because it imports nothing big."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.commands.trade import _farewell, _lines
from cluster.failure import FAILED, INTERRUPTED, WRONG_USE, blame_full_disk, explain
from cluster.stages.trade import TradeStatus
from observability import errors
from trading.adapters.bot_runner import BotStatus

OURS = sorted(
    (each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.MtstError)),
    key=lambda each: each.__name__,
)


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_every_class_of_error_becomes_one_sentence(kind: type[errors.MtstError]) -> None:
    failure = explain(kind("the\nthing is wrong", where="here", todo="mend it"))
    assert failure.sentence == "error: the thing is wrong [here] -> mend it"
    assert failure.code == (WRONG_USE if issubclass(kind, errors.SettingsError) else FAILED)
    assert failure.expected


class FromRay(errors.StoreError):
    """As Ray makes it: the error's class mixed into a wrapper whose text is the remote traceback."""

    def __init__(self, cause: errors.MtstError) -> None:
        self.cause = cause

    def __str__(self) -> str:
        return "ray::task()\n  File ...\nStoreError"


def test_the_wrapping_of_a_framework_is_taken_off() -> None:
    inner = errors.StoreError("a series is missing", where="BTC", todo="backfill")
    assert explain(FromRay(inner)).sentence == "error: a series is missing [BTC] -> backfill"
    outer = RuntimeError("task failed")
    outer.__cause__ = inner
    assert explain(outer).sentence == "error: a series is missing [BTC] -> backfill"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "x"),
        OSError(errno.EDQUOT, "Disk quota exceeded", "x"),
        RuntimeError("(sqlite3.OperationalError) database or disk is full"),
        errors.StartError("exchange ended at once: OSError: [Errno 28] No space left on device"),
    ],
)
def test_a_full_disk_is_named_whoever_says_it(error: Exception) -> None:
    assert explain(error).sentence.startswith("error: the disk is full")


def test_other_errors_name_their_path_or_their_line() -> None:
    denied = explain(PermissionError(errno.EACCES, "Permission denied", "/somewhere"))
    assert denied.sentence == "error: Permission denied [/somewhere] -> check that path and its owner"
    try:
        raise ValueError("seven\nis odd")
    except ValueError as error:
        fault = explain(error)
    assert not fault.expected
    assert "unexpected ValueError: seven is odd [test_cluster_cli.py:" in fault.sentence
    assert explain(KeyboardInterrupt()).code == INTERRUPTED


def test_a_disk_with_room_is_not_blamed(tmp_path: Path) -> None:
    blame_full_disk(ValueError("something else"), tmp_path / "not" / "there")


def test_help_imports_no_framework(repo_root: Path, tmp_path: Path) -> None:
    program = (
        "import runpy, sys\n"
        "sys.argv = ['mtst-trader', *sys.argv[1:]]\n"
        "try:\n    runpy.run_module('cluster', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'ray', 'torch', 'mlflow', 'bentoml', 'freqtrade', 'ccxt', 'pandas', 'polars', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(repo_root), "MTST_HOME": str(tmp_path)}
    for arguments in (["--help"], ["demo", "--help"], ["trade", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.strip() == "[]"
        assert "Usage" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_wrong_option_exits_with_2(repo_root: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(repo_root), "MTST_HOME": str(tmp_path)}
    for arguments, words in ((["demo", "--nonsense"], "--nonsense"), (["--log-level", "LOUD", "doctor"], "LOUD")):
        done = subprocess.run(
            [sys.executable, "-m", "cluster", *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_whoever_ends_the_bots_is_told_what_stays_open() -> None:
    last = {
        "swing": BotStatus("swing", 1, "stopped", open_trades=("BTC/USDT", "SOL/USDT")),
        "scalp": BotStatus("scalp", 2, "stopped"),
    }
    told = _farewell(last)
    assert "swing leaves BTC/USDT, SOL/USDT open" in told
    assert "nothing else watches them" in told
    assert _farewell({"scalp": last["scalp"]}) == "Stopped scalp."


def test_an_equity_that_is_not_known_is_not_shown_as_ruin() -> None:
    bots = (BotStatus("swing", 1, "running", equity=10.5), BotStatus("scalp", 2, "failed"))
    told = _lines(TradeStatus("active", "system", "the books agree", bots))
    assert "swing: running, equity 10.50" in told
    assert "scalp: failed, equity unknown" in told


def test_a_bot_whose_database_is_away_is_shown_alive_and_holds_nothing_only_if_that_is_known() -> None:
    away = "the bots' database does not answer: connection refused"
    bots = (
        BotStatus("swing", 7, "running", open_trades=("BTC/USDT",), database=away),
        BotStatus("scalp", 8, "failed", database=away),
    )
    told = _lines(TradeStatus("active", "system", "the books agree", bots))
    assert f"swing: running, equity unknown, alive, but {away} (open when it was read last: BTC/USDT)" in told
    assert f"scalp: failed, equity unknown, alive, but {away} (open when it was read last: unknown)" in told
    assert "nothing" not in told
