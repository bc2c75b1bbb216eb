"""What training asks of the process: its number of threads, and memory that is kept instead of given back."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
LARGEST_FROM_HEAP, KEPT = 32 << 20, 1 << 30  # bytes; glibc takes no larger mmap threshold
HEAP_OF_A_THREAD = 64 << 20  # bytes; glibc's HEAP_MAX_SIZE on 64 bits


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

    A thread that is not the process's first (a trial of Ray Tune runs in one) has heaps of its own, which glibc cuts
    back to the padding at each free, whatever the other thresholds say: measured, a tenth of a training's time. Asked
    from such a thread, the padding is made as large as a heap, so that nothing is ever left to cut.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    wished = [(M_MMAP_THRESHOLD, LARGEST_FROM_HEAP), (M_TRIM_THRESHOLD, KEPT)]
    if threading.current_thread() is not threading.main_thread():
        wished.append((M_TOP_PAD, HEAP_OF_A_THREAD))
    return all(bool(mallopt(what, size)) for what, size in wished)
