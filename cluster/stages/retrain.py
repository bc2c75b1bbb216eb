"""Retraining on a schedule: fetch, search, judge, decide; again and again, with one line a round in the record.

Each round is a process of its own, so that one that is killed, runs out of memory or crashes is a failed round and not
the end of the schedule. Rounds are numbered through all starts of the schedule, by the record.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cluster.processes import PARENT_DEATH
from cluster.settings import Settings
from cluster.stages import data, enrichment, train
from observability.errors import MtstError
from observability.logging import get_logger
from observability.progress import Progress

RECORD = "retraining.jsonl"


@dataclass(frozen=True)
class Round:
    """One round: `status` champion or shadow with the decision in words, or failed with the reason."""

    number: int
    started: str
    status: str
    text: str
    model: str
    champion: str
    seconds: float


def retrain_once(settings: Settings, progress: Progress, number: int = 1) -> Round:
    """Fetch what is new, build its features, search, judge and decide; a failure is a round too, told in its text."""
    began, started = time.monotonic(), _now()
    try:
        data.backfill(settings, progress)
        enrichment.enrich(settings, progress)
        data.build(settings, progress)
        train.sweep(settings, progress)
        train.evaluate(settings, progress)
        made = train.promote(settings, progress)
    except (MtstError, OSError) as error:
        get_logger(__name__).error("retraining failed", round=number, error=str(error))
        return Round(number, started, "failed", str(error), "", "", time.monotonic() - began)
    seconds = time.monotonic() - began
    return Round(number, started, made.status, made.text, made.number, made.champion, seconds)


def retrain_apart(words: Sequence[str], number: int) -> Round:
    """The round as a process of its own: this program with these words, which prints its round as JSON.

    It ends with this one, whatever ends this one.
    """
    began, started = time.monotonic(), _now()
    command = [sys.executable, str(PARENT_DEATH), sys.executable, "-m", "cluster", *words]
    last = ""
    with tempfile.TemporaryFile("w+") as answer:
        with subprocess.Popen(command, stdout=answer, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            for line in process.stderr:  # what it tells goes on to who listens here
                sys.stderr.write(line)
                last = line.strip() or last
        answer.seek(0)
        try:
            return Round(**json.load(answer))
        except (json.JSONDecodeError, TypeError):
            code = process.returncode
            how = f"signal {-code}" if code < 0 else f"exit code {code}: {last}"
            text = f"the round's process ended with {how}"
            return Round(number, started, "failed", text, "", "", time.monotonic() - began)


def retrain(
    run: Callable[[int], Round],
    *,
    every_s: float,
    rounds: int,
    wait: Callable[[float], object],
    told: Callable[[Round], None],
    record: Path,
) -> None:
    """Rounds at a fixed pace until there were `rounds` (0: for ever); each is told and added to `record`, a line each.

    A round that fails does not end the schedule: the next one may find the exchange back. A round that takes longer
    than the pace is followed by the next at once; rounds are never made up for.

    Args:
        run: makes the round of that number, see `retrain_once`.
        wait: sleeps for so many seconds; `threading.Event.wait` ends early when it is set, by returning true.
    """
    record.parent.mkdir(parents=True, exist_ok=True)
    first = number = len(record.read_text().splitlines()) if record.exists() else 0
    while not rounds or number < first + rounds:
        number += 1
        began = time.monotonic()
        done = run(number)
        with record.open("a") as file:
            file.write(json.dumps(asdict(done)) + "\n")
        told(done)
        if number != first + rounds and wait(max(0.0, every_s - (time.monotonic() - began))):
            return


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
