"""Who yields to whom for processor time, by the process's nice value: training and features yield to trading.

Ray gives every worker process the same nice value, 15, so that by default a sweep has the same claim to a core as the
bots beside it. A value can be raised by anybody and lowered by root alone; so workers start at the node's own value
(`PLAIN` in the environment of `ray start`), and what can wait steps back.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

BACKGROUND = 15
"""Nice value of what can wait: for one core it gets a thirtieth of what a process at 0 beside it gets."""
PLAIN = {"RAY_worker_niceness": "0"}
"""Environment of a Ray node whose workers shall have the node's own priority. Ray adds the number to its own value."""
YIELDING = {"RAY_worker_niceness": str(BACKGROUND)}
"""Environment (`runtime_env`) of Ray tasks that can wait. Ray keeps workers of another environment apart, so that none
of these ever becomes a bot; a task that lowered itself would leave its worker low for whoever comes next."""
_THREADS = Path("/proc/self/task")


def step_back() -> None:
    """Give this process, with every thread that it has and will have, the priority of what can wait.

    For actors, whose process is nobody else's later. Once is as good as twice, and a process that is lower stays so.
    """
    # On Linux the value is a thread's, and children take their parent's; elsewhere it is the process's.
    threads = [int(each.name) for each in _THREADS.iterdir()] if _THREADS.is_dir() else [0]
    for thread in threads:
        with suppress(ProcessLookupError):  # it has just ended
            os.setpriority(os.PRIO_PROCESS, thread, max(BACKGROUND, os.getpriority(os.PRIO_PROCESS, thread)))
