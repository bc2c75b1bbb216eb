"""What a person sees while work goes on: bars on a terminal, one line a step elsewhere, nothing with `--quiet`."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from datetime import UTC, datetime
from enum import Enum
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichBars

QUIET_LINE_EVERY_S = 5.0


class BarTask:
    """A task drawn as a bar (terminal) or as lines (log)."""

    def __init__(self, owner: ConsoleProgress, title: str, total: float | None) -> None:
        self._owner, self._title, self._total = owner, title, total
        self._count, self._started, self._spoke = 0.0, time.monotonic(), time.monotonic()
        bars = owner.bars
        self._bar = bars.add_task(title, total=total, note="") if bars is not None else None
        self._ended = False
        if bars is None:
            owner.say(f"{title} ...")

    def advance(self, n: float = 1.0, note: str = "") -> None:
        """Move on by `n` units."""
        self._count += n
        if self._owner.bars is not None and self._bar is not None:
            self._owner.bars.update(self._bar, advance=n, note=note)
        elif time.monotonic() - self._spoke >= QUIET_LINE_EVERY_S:
            self._spoke = time.monotonic()
            of = f"/{self._total:g}" if self._total else ""
            self._owner.say(f"{self._title}: {self._count:g}{of} {note}".rstrip())

    def done(self, note: str = "") -> None:
        """Close the task with what came of it."""
        if self._ended:
            return
        self._ended = True
        seconds = time.monotonic() - self._started
        if self._owner.bars is not None and self._bar is not None:
            self._owner.bars.remove_task(self._bar)
        self._owner.say(f"[green]done[/] {self._title} [dim]{seconds:5.1f} s[/] {note}".rstrip())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.done()
        elif self._owner.bars is not None and self._bar is not None:
            self._owner.bars.remove_task(self._bar)


class ConsoleProgress:
    """Progress on standard error, so that standard output stays free for `--json`."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console if console is not None else Console(stderr=True, highlight=False)
        self.bars: RichBars | None = None
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("[dim]{task.fields[note]}"),
            )
            self.bars = RichBars(*columns, console=self.console, transient=True)
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = None

    def say(self, text: str) -> None:
        """One line with the seconds since the start."""
        self.console.print(f"[dim]{time.monotonic() - self._started:6.1f}[/] {text}", soft_wrap=True)

    def task(self, title: str, total: float | None = None) -> BarTask:
        """Open a task of `total` units (None: unknown length)."""
        return BarTask(self, title, total)


def plain(value: Any) -> Any:
    """Summaries as plain JSON values: frozen dataclasses, enums, paths, tuples and NaN included."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has neither NaN nor infinity
    return value


def to_json(value: Any) -> str:
    """A summary as indented JSON."""
    return json.dumps(plain(value), indent=2, default=str)


def day(ms: int) -> str:
    """The day of a time in ms UTC, as a table shows it; empty for none."""
    return datetime.fromtimestamp(ms / 1000, UTC).date().isoformat() if ms else ""
