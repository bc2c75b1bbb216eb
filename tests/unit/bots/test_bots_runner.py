"""What a bot waits for: before it is built anew ever longer while it cannot start, and until it is alone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from observability.errors import ExchangeError
from observability.only_one import only_one
from trading.adapters.bot_runner import ALONE, BotRunner
from trading.adapters.bot_spec import BotSpec


class Hurried(threading.Event):
    """Waits that are written down instead of waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None:
            self.waits.append(timeout)
        return super().wait(0)


class Failing(BotRunner):
    """A runner whose worker fails after some loops, as the exchange would make it; `loops` are those of each life."""

    loops: tuple[int, ...] = ()
    lives = 0

    def _build(self) -> None:
        self._worker = SimpleNamespace(
            _worker=self._one_loop, exit=lambda: None, loops=0,
            desk=SimpleNamespace(end_loop=lambda: None, books=SimpleNamespace(release_lease=lambda: None)),
        )  # fmt: skip
        self.left, self.lives = self.loops[self.lives], self.lives + 1

    def _one_loop(self, old_state: Any) -> Any:
        if self.left == 0:
            if self.lives == len(self.loops):
                self._stopping.set()
            raise ExchangeError("it went away")
        self.left -= 1
        return old_state


@pytest.mark.parametrize(
    ("loops", "waits"),
    [((0, 0, 0, 0), [1.0, 2.0, 4.0, 8.0]), ((0, 0, 3, 0), [1.0, 2.0, 1.0, 2.0]), ((5, 5, 5), [1.0, 1.0, 1.0])],
    ids=["never starts", "starts at last", "runs each time"],
)
def test_the_wait_counts_failures_in_a_row(tmp_path: Path, loops: tuple[int, ...], waits: list[float]) -> None:
    runner = Failing(tmp_path, lambda: None)
    runner.loops, runner._stopping = loops, (waited := Hurried())
    runner.begin(_spec(tmp_path))
    _until(lambda: runner._phase == "stopped")
    assert waited.waits[: len(waits)] == waits
    assert runner._restarts == len(loops)


def test_a_bot_waits_until_no_other_process_trades_from_its_folder(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from observability.only_one import only_one\n"
        "with only_one(Path(sys.argv[1]), 'its former self'): print('held', flush=True); time.sleep(60)"
    )
    former = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / ALONE)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert former.stdout is not None
    assert former.stdout.readline() == b"held\n"
    try:
        runner = Failing(tmp_path, lambda: None)
        runner.loops = (0,)
        runner.begin(_spec(tmp_path))
        _until(lambda: runner.status().phase == "waiting")
        time.sleep(1.0)
        assert (runner.status().phase, runner.lives) == ("waiting", 0), "it never began"
        assert f"is already running as process {former.pid}" in runner.status().last_error
    finally:
        former.kill()
        former.communicate()
    _until(lambda: runner._phase == "stopped")
    assert runner.lives == 1
    with only_one(tmp_path / ALONE, "the next"):
        pass


def test_a_bot_that_waits_can_be_stopped(tmp_path: Path) -> None:
    with only_one(tmp_path / ALONE, "its former self"):
        runner = Failing(tmp_path, lambda: None)
        runner.begin(_spec(tmp_path))
        _until(lambda: runner.status().phase == "waiting")
        assert runner.stop()
        assert (runner.status().phase, runner.lives) == ("stopped", 0)


def _spec(folder: Path) -> BotSpec:
    return BotSpec("swing", "swing", "swing", "sandbox", "dry-run", ("BTC/USDT",), "15m", str(folder), "http://unused")


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)
