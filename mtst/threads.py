"""What training asks of the process: its number of threads, and memory that is kept instead of given back."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST_FROM_HEAP, KEPT = 32 << 20, 1 << 30  # bytes; glibc takes no larger mmap threshold


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Torch's number of threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> bool:
    """Have glibc keep freed memory, for the rest of the process: steps reuse their pages instead of faulting them in.

    By default each temporary above 128 kB is a mapping of its own, cleared by the kernel page by page at every step:
    measured, 1.6 times the time of a whole step. False where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_FROM_HEAP)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
