"""A Ray node is killed with two bots on it: Ray brings them back on another, and nothing doubled or vanished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_bots_of_a_killed_node_come_back_with_their_positions(tmp_path: Path, repo_root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fault.bot_node_driver", str(tmp_path)],
        cwd=repo_root, env={**os.environ, "PYTHONPATH": str(repo_root)}, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert told["held"]["nn_predictor"], "nothing was open, so nothing is shown"
    for name, pairs in told["held"].items():
        assert set(pairs) <= set(told["held_after"][name])
    assert told["doubled"] == [[], []]
    assert told["agree"], told
    assert told["orders"] > 2
    assert min(told["loops"].values()) >= 8
