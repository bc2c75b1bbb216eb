"""Peak memory of this process since its program began. Imports nothing, so that a peer's environment can use it too."""

from __future__ import annotations


def peak_mib() -> float:
    """MiB by Linux's VmHWM: `getrusage` would count what the parent held at the moment of the fork, too."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
