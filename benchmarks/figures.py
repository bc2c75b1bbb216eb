"""What a benchmark hands back: one row a figure, with its peer, its goal and what bounds it."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    `value` is in `unit`; `peer` is the same thing done by `peer_name` in the same run; `goal` is a bound on
    `value` (or on the ratio, where `goal_of` says so) that holds from below or from above as `at_most` says.
    """

    name: str
    value: float
    unit: str
    peer_name: str = ""
    peer: float | None = None
    ratio: float | None = None
    goal: float | None = None
    at_most: bool = False
    goal_of: str = "ratio"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is no goal."""
        reached = self.ratio if self.goal_of == "ratio" else self.value
        if self.goal is None or reached is None:
            return None
        return reached <= self.goal if self.at_most else reached >= self.goal


@dataclass(frozen=True)
class Table:
    """Rows of text that belong to a benchmark, printed below its figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figures:
    """A benchmark's outcome: its figures, what bounds them in words, and the machine it ran on."""

    title: str
    figures: tuple[Figure, ...]
    bound: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the verdict of each goal and the machine."""
        rows = [asdict(figure) | {"met": figure.met} for figure in self.figures]
        about = {"title": self.title, "bound": self.bound, "machine": machine(), "facts": self.facts}
        return about | {"figures": rows, "tables": [asdict(table) for table in self.tables]}


def machine() -> dict[str, Any]:
    """The machine in a few words; figures of two machines do not compare, their ratios do."""
    return {"python": platform.python_version(), "system": platform.system(), "cores": os.cpu_count()}
