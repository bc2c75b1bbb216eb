"""`doctor`: what of this machine and these settings would keep the system from running safely."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from cluster.settings import Settings
from observability.errors import MtstError, StartError
from observability.files import read_secret
from observability.ports import check_port

GIB = 2**30
MIN_DISK, MIN_MEMORY = 2 * GIB, 4 * GIB
# Floors below which a known hole is open (docs/SECURITY says which).
FLOORS = {"ray": (2, 52), "bentoml": (1, 4, 39), "mlflow": (3, 11), "freqtrade": (2026, 8), "torch": (2, 6)}
PROGRAMS = ("prometheus", "prometheus-alertmanager", "grafana-server")


@dataclass(frozen=True)
class Check:
    """One finding: `ok` False stops a start; `todo` says how to mend it."""

    name: str
    ok: bool
    text: str
    todo: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings."""

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing stops a start."""
        return all(check.ok for check in self.checks)


def diagnose(settings: Settings) -> Diagnosis:
    """Look at everything; never raises for what it finds."""
    return Diagnosis(
        (
            _python(),
            *_packages(),
            _memory(),
            _disk(settings.workspace.root),
            _writable(settings.workspace.root),
            _environment(),
            *_ports(settings),
            *_keys(settings),
            *_programs(),
        )
    )


def require_healthy(settings: Settings) -> Diagnosis:
    """The diagnosis, when nothing stops a start.

    Raises:
        StartError: the first finding that does.
    """
    diagnosis = diagnose(settings)
    for check in diagnosis.checks:
        if not check.ok:
            raise StartError(check.text, where=check.name, todo=check.todo)
    return diagnosis


def _python() -> Check:
    found = sys.version_info[:2]
    text = f"Python {found[0]}.{found[1]}"
    return Check("python", (3, 11) <= found <= (3, 13), text, "use Python 3.11 to 3.13")


def _packages() -> Iterator[Check]:
    for name, floor in FLOORS.items():
        wanted = ".".join(map(str, floor))
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Check(name, False, f"{name} is not installed", "run tools/start.sh, which installs it")
            continue
        numbers = tuple(int(part) for part in found.split("+")[0].split(".")[: len(floor)] if part.isdigit())
        yield Check(name, numbers >= floor, f"{name} {found} (at least {wanted})", "run tools/start.sh again")


def _memory() -> Check:
    free = psutil.virtual_memory().available
    text = f"{free / GIB:.1f} GiB of memory free, {os.cpu_count()} cores"
    return Check("memory", free >= MIN_MEMORY, text, f"close programs: {MIN_MEMORY // GIB} GiB are needed")


def _disk(root: Path) -> Check:
    place = next(folder for folder in (root.resolve(), *root.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    text = f"{free / GIB:.1f} GiB free on the disk of {place.name or place}"
    return Check("disk", free >= MIN_DISK, text, f"free some space: {MIN_DISK // GIB} GiB are needed")


def _writable(root: Path) -> Check:
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / ".write-probe"
        probe.write_text("x")
        probe.unlink()
    except OSError as error:
        return Check("workspace", False, f"cannot write to {root}: {error.strerror}", "choose another --workspace")
    return Check("workspace", True, f"workspace {root.resolve().name} can be written")


def _environment() -> Check:
    # Freqtrade merges such variables over every file: FREQTRADE__DRY_RUN=false would silently go live.
    names = sorted(name for name in os.environ if name.startswith("FREQTRADE__"))
    if names:
        return Check("environment", False, f"{', '.join(names)} would change how the bots trade", "unset it")
    return Check("environment", True, "no variable of the environment changes how the bots trade")


def _ports(settings: Settings) -> Iterator[Check]:
    wanted = {"serve.port": settings.serve.port, "cluster.dashboard_port": settings.cluster.dashboard_port}
    for name, port in wanted.items():
        if port == 0:
            continue
        try:
            check_port(port, name)
            yield Check(name, True, f"port {port} is free")
        except StartError as error:
            yield Check(name, False, error.what, error.todo)


def _keys(settings: Settings) -> Iterator[Check]:
    named = {f"trade.key_files.{bot}": path for bot, path in settings.trade.key_files.items()}
    if settings.trade.key_file is not None:
        named["trade.key_file"] = settings.trade.key_file
    if not named and settings.trade.mode == "live" and settings.market.exchange != "sandbox":
        yield Check("trade.key_file", False, "live trading needs an exchange key", "set trade.key_file")
    for name, path in named.items():
        try:
            read_secret(path, "the exchange's key")
            yield Check(name, True, "the key file is closed to others")
        except MtstError as error:
            yield Check(name, False, error.what, error.todo)


def _programs() -> Iterator[Check]:
    for program in PROGRAMS:
        found = shutil.which(program)
        yield Check(program, True, "installed" if found else "not installed: `observe` will go on without it")
