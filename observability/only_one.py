"""One process at a time in a folder: a lock that the kernel gives back even after kill -9."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from observability.errors import StartError


def lock_file(lock: Path, what: str) -> TextIO:
    """Hold `lock` until the returned file is closed or this process is dead, and not a moment less.

    Raises:
        StartError: another process holds it; its pid, and its host where that is another one, are in the message.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    file = lock.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        pid, _, host = file.read().strip().partition(" ")
        file.close()
        there = f" on {host}" if host not in ("", socket.gethostname()) else ""
        raise StartError(
            f"{what} is already running as process {pid or 'unknown'}{there}",
            where=str(lock),
            todo="wait for it, or end that process",
        ) from error
    file.truncate(0)
    file.write(f"{os.getpid()} {socket.gethostname()}")
    file.flush()
    return file


@contextmanager
def only_one(lock: Path, what: str) -> Iterator[None]:
    """Hold `lock` for the duration; raises StartError as `lock_file` does."""
    with lock_file(lock, what):
        yield
