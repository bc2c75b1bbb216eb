"""How long a bot waits before it is built anew: ever longer while it cannot start, a moment when it ran since."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from observability.errors import ExchangeError
from trading.adapters.bot_runner import BotRunner
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
    runner.begin(
        BotSpec("swing", "swing", "swing", "sandbox", "dry-run", ("BTC/USDT",), "15m", str(tmp_path), "http://unused")
    )
    deadline = time.monotonic() + 60
    while runner._phase != "stopped" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert waited.waits[: len(waits)] == waits
    assert runner._restarts == len(loops)
