"""Processes beside us: started, recognised again after a restart of ours, and stopped to the last grandchild.

A process is known by a small JSON file in the run folder: its pid and its start time, so that a recycled pid is never
mistaken for ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from observability.errors import StartError
from observability.files import write_whole

PR_SET_CHILD_SUBREAPER = 36
PARENT_DEATH = Path(__file__).with_name("parent_death.py")


@dataclass(frozen=True)
class Process:
    """A running process of ours."""

    name: str
    pid: int
    run_file: Path

    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        return find(self.name, self.run_file.parent) is not None

    def stop(self, grace_s: float = 10.0) -> None:
        """End it and all its descendants."""
        stop(self.name, self.run_file.parent, grace_s=grace_s)


def spawn(
    name: str,
    argv: Sequence[str],
    *,
    run_dir: Path,
    log: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
    detached: bool = False,
) -> Process:
    """Start `argv`, wait until `ready()`, and remember it in `run_dir`.

    The child leads its own session, so Ctrl-C reaches only us and we end it in order. Unless `detached`, it dies with
    the calling thread: call from a thread that lives as long as the child shall.

    Raises:
        StartError: already running, died early, or not ready in time; the end of its log is in the message.
    """
    if find(name, run_dir) is not None:
        raise StartError(f"{name} is already running", where=str(run_dir / f"{name}.json"), todo="stop it first")
    run_dir.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = list(argv) if detached else [sys.executable, "-I", "-S", str(PARENT_DEATH), *argv]
    before = log.stat().st_size if log.is_file() else 0  # what an earlier process wrote explains nothing of this one
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**(os.environ if env is None else env), "MTST_PARENT_PID": str(os.getpid())},
            start_new_session=True,
        )
    run_file = run_dir / f"{name}.json"
    write_whole(
        run_file, json.dumps({"name": name, "pid": child.pid, "started": psutil.Process(child.pid).create_time()})
    )
    process = Process(name, child.pid, run_file)
    deadline = time.monotonic() + timeout_s
    try:
        while not ready():
            if child.poll() is not None:
                raise StartError(
                    f"{name} ended at once with code {child.returncode}: {_tail(log, before)}", where=str(log)
                )
            if time.monotonic() > deadline:
                raise StartError(f"{name} was not ready within {timeout_s:.0f} s: {_tail(log, before)}", where=str(log))
            time.sleep(0.05)
    except BaseException:
        process.stop(grace_s=2.0)
        raise
    return process


def find(name: str, run_dir: Path) -> Process | None:
    """The running process of that name, or None (a stale file is removed)."""
    run_file = run_dir / f"{name}.json"
    try:
        record = json.loads(run_file.read_text())
        process = psutil.Process(int(record["pid"]))
        # Start times are compared with a second of slack: their resolution is a clock tick.
        same = abs(process.create_time() - float(record["started"])) < 1.0
        if same and process.status() != psutil.STATUS_ZOMBIE:
            return Process(name, process.pid, run_file)
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError, ValueError, psutil.Error):
        pass
    run_file.unlink(missing_ok=True)
    return None


def stop(name: str, run_dir: Path, grace_s: float = 10.0) -> bool:
    """End the process of that name with its descendants; False when none runs."""
    process = find(name, run_dir)
    if process is None:
        return False
    end_tree(process.pid, grace_s)
    process.run_file.unlink(missing_ok=True)
    return True


def end_tree(pid: int, grace_s: float = 10.0, *, include_root: bool = True) -> int:
    """SIGTERM, then SIGKILL after `grace_s`, to a process and all its descendants; returns how many were met."""
    try:
        root = psutil.Process(pid)
        family = root.children(recursive=True) + ([root] if include_root else [])
    except psutil.NoSuchProcess:
        return 0
    for member in [root] if include_root else family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=grace_s)
    for member in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(alive, timeout=5.0)
    return len(family)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that `end_children` finds all of them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_children(grace_s: float = 5.0) -> int:
    """End every descendant of this process; returns how many there were."""
    return end_tree(os.getpid(), grace_s, include_root=False)


def memory_bytes(pid: int | None = None) -> int:
    """Memory that a process and its descendants hold together; a shared page counts once (PSS)."""
    total = 0
    try:
        root = psutil.Process(pid or os.getpid())
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        with contextlib.suppress(psutil.Error):
            info = member.memory_full_info()
            total += int(getattr(info, "pss", info.rss))
    return total


def _tail(log: Path, begin: int, lines: int = 6) -> str:
    text = log.read_bytes()[begin:].decode(errors="replace").strip().splitlines() if log.is_file() else []
    traced = any(line.startswith("Traceback ") for line in text)
    return " | ".join(text[-1:] if traced else text[-lines:])[-800:] or "it wrote nothing"
