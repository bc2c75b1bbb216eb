"""Memory that training frees stays with the process, in its first thread and in others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import random, resource, sys, threading
import torch
from mtst.threads import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    assert keep_freed_memory()
    for number in range(15):
        if number == 5:
            before = faults()
        drawn = random.Random(1)
        held = [torch.ones(drawn.randrange(50_000, 4 << 20)) for _ in range(40)]  # 0.2 to 16 MB each
        while held:
            held.pop(0)
    print(faults() - before)

if sys.argv[1] == "first":
    work()
else:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
@pytest.mark.parametrize("thread", ["first", "another"])
def test_a_step_reuses_the_pages_of_the_step_before(repo_root: Path, thread: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, thread], cwd=repo_root, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 10_000  # of the 800,000 that ten steps touch; 110,000 where a thread's heaps are cut
