"""One budget for all threads and processes: its arithmetic, and that nobody gets past it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from pipelines.rate_limit import Pace, RateLimit, reserve, shared_file

COSTS = st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 3)), min_size=1, max_size=60)


@given(COSTS, st.floats(0.01, 2), st.integers(0, 5))
def test_no_stretch_of_time_grants_more_than_the_pace_and_the_burst(asks, interval, burst):
    pace, now, granted = Pace(), 1_000_000.0, []
    for pause, cost in asks:
        now += pause
        pace, wait = reserve(pace, now, cost, interval, burst)
        granted.append((now + wait, cost))
    for first in range(len(granted)):
        for last in range(first, len(granted)):
            # Between two grants lies the time that the costs from the first on (without the last) take, less the burst.
            spent = sum(cost for _, cost in granted[first:last])
            assert granted[last][0] - granted[first][0] >= (spent - burst) * interval - 1e-6


def test_a_block_holds_everybody_until_it_is_over():
    blocked = Pace(due=0.0, blocked=110.0)
    pace, wait = reserve(blocked, 100.0, 1.0, 0.5, 4)
    assert wait == 10.0
    assert reserve(pace, 111.0, 1.0, 0.5, 4)[1] == 0.0


def test_threads_share_a_budget_and_a_block():
    limit, times = RateLimit(0.01, burst=0), []

    def ask() -> None:
        for _ in range(5):
            limit.take()
            times.append(time.time())

    limit.block(0.2)
    started = time.time()
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limit.requests == 20
    assert min(times) >= started + 0.15
    assert max(times) - started >= 0.2 + 19 * 0.01 - 0.01


ASKER = """
import sys
from pathlib import Path
from pipelines.rate_limit import RateLimit
limit = RateLimit(0.5, burst=0, path=Path(sys.argv[1]))
limit.close()  # take without waiting
for _ in range(200):
    limit.take()
"""


def test_processes_share_a_budget_through_its_file(tmp_path, repo_root):
    path = tmp_path / "rates" / "x.json"
    before = time.time()
    askers = [subprocess.Popen([sys.executable, "-c", ASKER, str(path)], cwd=repo_root) for _ in range(3)]
    assert [asker.wait(timeout=60) for asker in askers] == [0, 0, 0]
    # Not one of the 600 units was lost between them: the next is due when all of them have had their time.
    assert before + 300 <= json.loads(path.read_text())["due"] <= time.time() + 300


def test_a_torn_file_or_one_of_another_clock_starts_the_pace_anew(tmp_path):
    path = tmp_path / "x.json"
    for text in ("", "{", '{"due": 1e18, "blocked": 0}', '{"other": 1}'):
        path.write_text(text)
        limit = RateLimit(1e-6, path=path)
        limit.close()  # whatever it waits for ends at once
        limit.take()
        assert json.loads(path.read_text())["due"] < time.time() + 601


def test_closing_ends_every_wait():
    limit = RateLimit(60.0, burst=0)
    limit.take()
    thread = threading.Thread(target=limit.take)
    thread.start()
    limit.close()
    thread.join(5)
    assert not thread.is_alive()


def test_the_file_is_the_users_not_the_workspaces(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert shared_file("bin/ance").parent == tmp_path / "mtst-trader" / "rates"
    assert shared_file("bin/ance").name == "bin_ance.json"
