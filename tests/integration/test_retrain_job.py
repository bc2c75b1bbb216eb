"""Retraining as a Ray job: nobody watches it, a round of it is killed, and the schedule goes on."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from mtst.adapters.tracking import Tracker
from tests.integration.test_cluster_commands import Terminal, terminal

__all__ = ["terminal"]
pytestmark = pytest.mark.slow
SMALLER = {"MTST__SWEEP__TRIALS": "2", "MTST__SWEEP__MAX_EPOCHS": "1", "MTST__SWEEP__MAX_WINDOWS": "400"}


def wait_for(there: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
    return found


def sweeping(home: Path) -> int:
    """Process of the round that searches in this workspace, 0 while none does."""
    for file in (home / "var" / "tune").glob("*/sweep.json"):
        state = json.loads(file.read_text())
        if not state["done"] and any(file.parent.glob("*/result.json")) and psutil.pid_exists(state["driver"]["pid"]):
            return int(state["driver"]["pid"])
    return 0


def test_a_schedule_submitted_as_a_job_outlives_a_killed_round(terminal: Terminal) -> None:
    here = Terminal(terminal.home, {**terminal.environment, **SMALLER})
    here.answer("exchange", "up", "--detach", "--json")
    here.answer("cluster", "up", "--json")
    words = ("train", "retrain", "--every", "1s", "--rounds", "2")
    job = here.answer("cluster", "submit", "--detach", "--json", *words)["job_id"]
    psutil.Process(wait_for(lambda: sweeping(here.home), 120)).send_signal(signal.SIGKILL)
    assert "a schedule of retraining is already running" in here.refusal(*words)

    record = here.home / "var" / "retraining.jsonl"
    lines = wait_for(lambda: record.exists() and len(record.read_text().splitlines()) == 2 and record, 240)
    first, second = (json.loads(line) for line in lines.read_text().splitlines())
    assert (first["number"], first["status"]) == (1, "failed")
    assert "signal 9" in first["text"]
    assert (second["number"], second["status"] in ("champion", "shadow")) == (2, True), second["text"]
    ended = wait_for(
        lambda: [each for each in here.answer("cluster", "jobs", "--json") if each["status"] != "RUNNING"], 30
    )
    assert [(each["job_id"], each["status"]) for each in ended] == [(job, "SUCCEEDED")]
    assert here.answer("cluster", "stop", job, "--json") == {"stopped": False}
    book = Tracker(f"sqlite:///{here.home / 'mlruns' / 'mlflow.db'}")
    runs = book.client.search_runs([book.experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED", "KILLED"}  # the killed round's, closed by the next
    for words in (("exchange", "down"), ("cluster", "down")):
        here.answer(*words, "--json")
    assert not here.processes()
