"""What can wait steps back, with all its threads, and never forward, which only root may."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from observability.priority import BACKGROUND

SCRIPT = """
import os, threading, time
from observability.priority import step_back

def nice_of_all():
    return {os.getpriority(os.PRIO_PROCESS, int(each)) for each in os.listdir("/proc/self/task")}

started, done = threading.Event(), threading.Event()
thread = threading.Thread(target=lambda: (started.set(), done.wait()))
thread.start(), started.wait()
os.nice({before})
step_back()
first = nice_of_all()
step_back()
later = threading.Thread(target=done.wait)
later.start()
print(sorted(first), sorted(nice_of_all()))
done.set()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the threads in /proc")
@pytest.mark.parametrize("before", [0, 3])
def test_every_thread_steps_back_once(repo_root: Path, before: int) -> None:
    assert _told(repo_root, before) == f"[{_at_least(0)}] [{_at_least(0)}]"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the threads in /proc")
def test_who_is_lower_already_stays_there(repo_root: Path) -> None:
    # The other thread was not lowered before, and now is.
    values = sorted({_at_least(0), 19})
    assert _told(repo_root, 19) == f"{values} {values}"


def _at_least(before: int) -> int:
    return max(BACKGROUND, psutil.Process().nice() + before)


def _told(root: Path, before: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{before}", str(before))],
        cwd=root, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.strip()
