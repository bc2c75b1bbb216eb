"""The schedule of retraining: its pace, its record, and that a bad round is not the end."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.settings import Settings
from cluster.stages.retrain import Round, retrain, retrain_once
from observability.progress import NullProgress


def made(number: int) -> Round:
    status = "failed" if number == 2 else "shadow"
    return Round(number, "2024-09-01 00:00:00", status, f"Round {number}.", str(number), "", 1.0)


def test_rounds_follow_at_their_pace_and_leave_a_line_each(tmp_path: Path) -> None:
    waits: list[float] = []
    told: list[Round] = []
    record = tmp_path / "var" / "retraining.jsonl"
    retrain(made, every_s=3600, rounds=3, wait=waits.append, told=told.append, record=record)
    assert [each.number for each in told] == [1, 2, 3]
    assert len(waits) == 2  # none after the last round
    assert all(3590 < wait <= 3600 for wait in waits)
    assert [json.loads(line)["status"] for line in record.read_text().splitlines()] == ["shadow", "failed", "shadow"]
    retrain(made, every_s=1, rounds=1, wait=waits.append, told=told.append, record=record)
    lines = [json.loads(line)["number"] for line in record.read_text().splitlines()]
    assert lines == [1, 2, 3, 4]  # a restart goes on with the same record


def test_the_schedule_ends_when_it_is_told_to(tmp_path: Path) -> None:
    told: list[Round] = []
    retrain(made, every_s=9, rounds=0, wait=lambda _: len(told) == 2, told=told.append, record=tmp_path / "record")
    assert len(told) == 2


def test_a_round_that_cannot_fetch_is_told_and_raises_nothing(tmp_path: Path) -> None:
    nowhere = Settings().changed(
        workspace={"root": tmp_path}, market={"exchange": "sandbox", "replay": tmp_path / "none"}
    )
    done = retrain_once(nowhere, NullProgress(), 7)
    assert (done.number, done.status) == (7, "failed")
    assert done.text
