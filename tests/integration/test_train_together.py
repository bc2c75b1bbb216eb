"""Two workers train what one would have trained, and go on from their checkpoint when one of them is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.share_driver import EPOCHS


@pytest.mark.slow
def test_two_workers_train_the_model_of_one_and_survive_a_death(tmp_path: Path, repo_root: Path) -> None:
    command = [sys.executable, "-m", "tests.integration.share_driver", str(tmp_path)]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    facts = json.loads((tmp_path / "share.json").read_text())
    one, two = facts["losses"]
    assert facts["names"]
    assert two == pytest.approx(one, rel=1e-5)
    assert facts["off"] < 1e-3  # of the largest weight of each tensor, after all epochs
    assert facts["killed"]
    assert facts["resumed_after"][0] == 0
    assert 1 <= facts["resumed_after"][1] < EPOCHS
    assert facts["same"]
    assert facts["judged"] == [2, 1, True]  # a fold, the sealed block, and the model for use
