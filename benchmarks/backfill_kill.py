"""kill -9 at random moments of a backfill: is the store sound after each, and does a rerun end with the same content?

The real command as a process, against a real sandbox process, through unmodified ccxt. The peer is a run that nobody
disturbed: the content hashes of its series are what every killed and resumed run must end with.
"""

from __future__ import annotations

import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.figures import Figure, Figures
from cluster.settings import Settings
from cluster.stages import data, inspection
from cluster.stages.exchange import RunningExchange, start_exchange
from observability.errors import StartError, StoreError
from observability.files import DRAFT_SUFFIX
from observability.progress import NullProgress, Progress
from pipelines.store import SeriesKey

PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT")
TIMEFRAMES = ("15m", "1h")
DAYS = 100.0
BEGINS = "backfill from"
Contents = dict[SeriesKey, str]


@dataclass(frozen=True)
class Ground:
    """A running exchange, and what an undisturbed backfill of it took and holds."""

    exchange: RunningExchange
    seconds: float
    requests: int
    rows: int
    truth: Contents


@dataclass(frozen=True)
class Moment:
    """One kill: when, what it left, and what the rerun made of it."""

    at_s: float
    killed: bool
    rows: int
    drafts: int
    sound: bool
    same: bool
    requests: int


def run(progress: Progress, moments: int = 50, seed: int = 1, replay: Path | None = None) -> Figures:
    """Kill `moments` backfills, on a simulated market or on the real candles in `replay`."""
    with tempfile.TemporaryDirectory(prefix="mtst-kill-") as folder:
        root, drawn = Path(folder), random.Random(seed)
        with ground(root, replay) as place, progress.task("kill -9", total=moments) as task:
            done: list[Moment] = []
            with suppress(KeyboardInterrupt):  # who stops it early sees what it has found so far
                for number in range(moments):
                    at_s = drawn.uniform(0.0, place.seconds)
                    done.append(kill_once(root / f"{number}", place, at_s))
                    task.advance(1, f"after {at_s:.2f} s: {done[-1].rows:,} rows were stored")
    if not done:
        raise KeyboardInterrupt
    return _figures(done, place, replay)


@contextmanager
def ground(root: Path, replay: Path | None) -> Iterator[Ground]:
    """Start an exchange and let one backfill run in peace."""
    settings = _settings(root / "exchange", replay)
    running = start_exchange(settings, NullProgress())
    try:
        calm = _settings(root / "calm", replay)
        process, errors = _spawn(calm, running.url)
        if process.wait(timeout=120) != 0:
            raise StartError(f"the undisturbed backfill failed: {errors.tail()}", where=str(calm.workspace.root))
        errors.join(10)
        rows = sum(item.rows for item in inspection.inspect(calm, NullProgress()).series)
        again = _backfill(_settings(root / "counted", replay), running.url)
        yield Ground(running, errors.took_s, again.requests, rows, contents(calm))
    finally:
        running.stop()


def kill_once(root: Path, place: Ground, at_s: float) -> Moment:
    """Kill one backfill `at_s` seconds after it began to fetch; look; run it again; look again."""
    settings = _settings(root, None)
    process, _ = _spawn(settings, place.exchange.url)
    time.sleep(at_s)
    process.kill()
    killed = process.wait(timeout=30) == -signal.SIGKILL
    drafts = sum(1 for _ in settings.workspace.data_raw.rglob(f".*{DRAFT_SUFFIX}"))
    rows, sound = _look(settings)
    again = _backfill(settings, place.exchange.url)
    _, still_sound = _look(settings)
    left = list(settings.workspace.data_raw.rglob(f".*{DRAFT_SUFFIX}"))
    same = contents(settings) == place.truth and not left
    return Moment(at_s, killed, rows, drafts, sound and still_sound, same, again.requests)


def contents(settings: Settings) -> Contents:
    """The content hash of every stored series."""
    store = data.open_store(settings)
    return {key: store.manifest(key).content_hash for key in store.keys()}  # noqa: SIM118 - a store is no mapping


def _look(settings: Settings) -> tuple[int, bool]:
    """Rows as `inspect` sees them, and whether it and a check of every byte find the store sound."""
    store = data.open_store(settings)
    try:
        report = inspection.inspect(settings, NullProgress())
        found = [store.read(key) for key in store.keys()]  # noqa: SIM118
    except StoreError:
        return 0, False
    whole = not any(store.mend(key, thorough=True) for key in store.keys())  # noqa: SIM118
    rows = sum(item.rows for item in report.series)
    return rows, whole and rows == sum(table.height for table in found)


class _Errors(threading.Thread):
    """Reads a process's standard error, so that it never blocks, and times the fetching that it tells of."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(daemon=True)
        self._stream, self._lines = stream, [""]
        self.begun, self.took_s, self._at = threading.Event(), 0.0, 0.0
        self.start()

    def run(self) -> None:
        """Until the process ends."""
        for line in self._stream:
            self._lines.append(line)
            if BEGINS in line and not self._at:
                self._at = time.monotonic()
                self.begun.set()
            elif BEGINS in line:
                self.took_s = time.monotonic() - self._at
        self.begun.set()

    def tail(self) -> str:
        """The last line."""
        return self._lines[-1].strip()


def _spawn(settings: Settings, url: str) -> tuple[subprocess.Popen[str], _Errors]:
    """The command, returned when it begins to fetch."""
    market = settings.market
    argv = [sys.executable, "-m", "cluster", "--workspace", str(settings.workspace.root), "data", "backfill"]
    argv += ["--url", url, "--days", str(market.history_days), "--json"]
    argv += [word for pair in market.pairs for word in ("--pair", pair)]
    argv += [word for each in TIMEFRAMES for word in ("--timeframe", each)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    errors = _Errors(process.stderr)
    errors.begun.wait(120)
    return process, errors


def _settings(root: Path, replay: Path | None) -> Settings:
    market: dict[str, Any] = {"pairs": PAIRS, "timeframe": TIMEFRAMES[0], "history_days": DAYS, "replay": replay}
    return Settings().changed(workspace={"root": root}, market=market)


def _backfill(settings: Settings, url: str) -> Any:
    settings.workspace.make()
    return data.backfill(settings, NullProgress(), base_url=url, timeframes=TIMEFRAMES)


def _figures(done: Sequence[Moment], place: Ground, replay: Path | None) -> Figures:
    count = len(done)
    rows = sorted(moment.rows for moment in done)
    resumed = statistics.median(moment.requests for moment in done)
    inside = sum(1 for moment in done if moment.killed)
    drafts = sum(1 for moment in done if moment.drafts)

    def all_of(name: str, value: int, note: str = "") -> Figure:
        return Figure(name, value, "kills", "of", count, value / count, 1.0, note=note)

    def share(name: str, value: float, unit: str, peer: str, whole: float) -> Figure:
        return Figure(name, value, unit, peer, whole, value / whole)

    return Figures(
        f"Backfill killed {count} times ({'real candles' if replay else 'simulated market'})",
        (
            all_of("store sound as inspect sees it", sum(moment.sound for moment in done), "also after the rerun"),
            all_of("rerun ends with the same content", sum(moment.same for moment in done), "as if undisturbed"),
            share("kills that met the running process", inside, "kills", "of", count),
            share("kills that met a file half-written", drafts, "kills", "of", count),
            share("rows stored at the kill, least", rows[0], "rows", "whole", place.rows),
            share("rows stored at the kill, median", rows[count // 2], "rows", "whole", place.rows),
            share("rows stored at the kill, most", rows[-1], "rows", "whole", place.rows),
            share("requests of a rerun, median", resumed, "requests", "undisturbed", place.requests),
        ),
        bound="what is lost is only what was on its way: pieces of at most four pages, and one file not yet renamed",
        facts={"seconds_undisturbed": place.seconds, "moments": [moment.__dict__ for moment in done]},
    )
