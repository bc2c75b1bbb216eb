"""Where a sweep's processor time goes: to its driver, to the trials' processes, or to Ray's own."""

from __future__ import annotations

import psutil

KINDS = ("driver", "trials", "ray")
TRIAL_ACTOR = "ImplicitFunc"  # what Tune calls it


def spent() -> dict[str, float]:
    """Seconds of CPU so far by kind; processes that are gone are not counted."""
    found = dict.fromkeys(KINDS, 0.0) | {"driver": cpu_of(psutil.Process())}
    for process in psutil.Process().children(recursive=True):
        found[_kind(process)] += cpu_of(process)
    return found


def _kind(process: psutil.Process) -> str:
    try:
        return "trials" if any(TRIAL_ACTOR in word for word in process.cmdline()) else "ray"
    except psutil.Error:
        return "ray"


def cpu_of(process: psutil.Process) -> float:
    """Seconds of CPU that a process has taken, 0 where it is gone."""
    try:
        return sum(process.cpu_times()[:2])
    except psutil.Error:
        return 0.0
