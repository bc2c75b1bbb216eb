"""One budget of requests an exchange, shared by all threads and processes that come from this machine's address.

The rule is GCRA, the leaky bucket that needs two numbers: every unit of cost takes `interval_s`, and `burst` units may
be ahead of that pace. A refusal (429, 418) blocks everybody until the time that the exchange named.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

_LONGEST_MEMORY_S = 600.0  # a file that promises more is of another clock, or of an exchange that has long forgiven


@dataclass(frozen=True)
class Pace:
    """When the next unit is due and until when nobody may ask, in seconds since the epoch."""

    due: float = 0.0
    blocked: float = 0.0


def reserve(pace: Pace, now: float, cost: float, interval_s: float, burst: float) -> tuple[Pace, float]:
    """Take `cost` units: the pace after it, and the seconds to wait before asking."""
    due = max(pace.due, now - burst * interval_s)
    wait = max(0.0, due - now, pace.blocked - now)
    return Pace(due + cost * interval_s, pace.blocked), wait


class RateLimit:
    """A budget of requests.

    Args:
        interval_s: seconds that one unit of cost takes; 0 for no limit of our own.
        burst: units that may be taken at once after a pause.
        path: file through which the processes of this machine share the budget; None for this process alone.
    """

    def __init__(self, interval_s: float, burst: float = 10.0, path: Path | None = None) -> None:
        self._interval_s, self._burst, self._path = interval_s, burst, path
        self._lock, self._pace, self._closed = threading.Lock(), Pace(), threading.Event()
        self.requests, self.paused_s = 0, 0.0

    def take(self, cost: float = 1.0) -> None:
        """Wait until a request of this cost may be made."""
        with self._shared() as pace:
            changed, wait = reserve(pace, time.time(), cost, self._interval_s, self._burst)
            self._store(changed)
            self.requests += 1
        while wait > 0 and not self.rest(wait):
            wait = self._load().blocked - time.time()  # somebody may have been refused meanwhile

    def block(self, seconds: float) -> None:
        """Nobody may ask for so long: the exchange said so."""
        with self._shared() as pace:
            until = time.time() + seconds
            self._store(Pace(max(pace.due, until), max(pace.blocked, until)))
            self.paused_s += seconds

    def rest(self, seconds: float) -> bool:
        """Sleep; True at once when the budget was closed."""
        return self._closed.wait(seconds)

    def close(self) -> None:
        """End all waiting: nobody will ask any more."""
        self._closed.set()

    @contextmanager
    def _shared(self) -> Iterator[Pace]:
        with self._lock:
            if self._path is None:
                yield self._pace
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.with_suffix(".lock").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield self._load()

    def _load(self) -> Pace:
        if self._path is None:
            return self._pace
        try:
            pace, latest = Pace(**json.loads(self._path.read_text())), time.time() + _LONGEST_MEMORY_S
        except (FileNotFoundError, TypeError, ValueError):
            return Pace()
        return Pace(min(pace.due, latest), min(pace.blocked, latest))

    def _store(self, pace: Pace) -> None:
        self._pace = pace
        if self._path is not None:
            # Written over, not renamed: a torn file only means that the pace begins anew.
            self._path.write_text(json.dumps(asdict(pace)))


def shared_file(name: str) -> Path:
    """The file of one exchange's budget: a limit is an address's, so all workspaces of this user share it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "mtst-trader" / "rates" / f"{re.sub('[^A-Za-z0-9_.-]', '_', name)}.json"
