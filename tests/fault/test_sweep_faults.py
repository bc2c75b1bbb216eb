"""What befalls a sweep must not change what it finds: the same seeds, the same best trial, every MLflow run ended.

The searches here are repeatable ones (`scheduler="none"`): ASHA decides by who arrives first, so that its winner may
differ from run to run without any fault.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from mtst.adapters.tracking import Tracker
from observability.ports import free_port
from tests.fault.sweep_driver import AWAY_S, CONFIG

pytestmark = pytest.mark.slow


@dataclass
class Server:
    """MLflow's tracking server, which dies and comes back on the same port and database."""

    root: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.root.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.root / 'server.db'}"]
        command += ["--artifacts-destination", str(self.root / "artifacts")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, **quiet}, cwd=self.root, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 90
        while not self._answers():
            assert self.process.poll() is None, (self.root / "log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.3)

    def revive(self) -> None:
        """Wait until somebody stopped it, kill it half-way through its absence, and start it again after that."""
        assert self.process is not None
        watched = psutil.Process(self.process.pid)
        while watched.status() != psutil.STATUS_STOPPED:
            time.sleep(0.1)
        time.sleep(AWAY_S / 2)
        self.end()
        time.sleep(AWAY_S / 2)
        self.start()

    def end(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            return False


@dataclass(frozen=True)
class Lab:
    """All scenarios' drivers, two at a time, each group of them in a folder of its own."""

    root: Path
    repo: Path
    server: Server
    done: dict[str, Future[int]]

    def drive(self, name: str, *scenarios: str, before: tuple[str, ...] = (), **environment: str) -> int:
        root = self.root / name
        root.mkdir(exist_ok=True)
        command = [*before, sys.executable, "-m", "tests.fault.sweep_driver", str(root), *scenarios]
        with (root / "log").open("ab") as log:
            return subprocess.run(
                command, cwd=self.repo, env={**os.environ, "MLFLOW_LOGGING_LEVEL": "CRITICAL", **environment},
                stdout=log, stderr=log, timeout=280, check=False,
            ).returncode  # fmt: skip

    def with_server(self) -> int:
        self.server.start()
        assert self.server.process is not None
        pid = str(self.server.process.pid)
        reviver = threading.Thread(target=self.server.revive)
        reviver.start()
        code = self.drive("server", "server", MLFLOW_SERVER=self.server.url, MLFLOW_SERVER_PID=pid)
        reviver.join(120)
        return code

    def resume(self) -> int:
        assert self.done["cut"].result() == -signal.SIGKILL
        return self.drive("cut", "resume")

    def facts(self, run: str, folder: str, scenario: str) -> dict[str, Any]:
        """What a driver found, once it is done."""
        assert self.done[run].result() == 0, (self.root / folder / "log").read_text()[-3000:]
        read: dict[str, Any] = json.loads((self.root / folder / f"{scenario}.json").read_text())
        return read


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("faults")
    made = Lab(root, repo_root, Server(root / "server"), {})
    with ThreadPoolExecutor(2) as pool:
        made.done["server"] = pool.submit(made.with_server)
        made.done["cut"] = pool.submit(made.drive, "cut", "cut")
        made.done["resume"] = pool.submit(made.resume)
        made.done["calm"] = pool.submit(made.drive, "calm", "calm", "worker")
        made.done["node"] = pool.submit(made.drive, "node", "node")
        made.done["gone"] = pool.submit(made.drive, "gone", "gone")
        made.done["disk"] = pool.submit(made.drive, "disk", "disk", before=small_disk(root / "disk" / "small"))
        yield made
    made.server.end()


def small_disk(place: Path) -> tuple[str, ...]:
    """Words before a command that give it a disk of 16 MiB at `place`, which ends with it; none where not allowed."""
    place.mkdir(parents=True)
    who = () if os.geteuid() == 0 else ("--map-root-user",)
    mount = f'mount -t tmpfs -o size=16m none {place} && exec "$@"'
    words = ("unshare", *who, "--mount", "sh", "-c", mount, "sh")
    try:
        allowed = subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    return words if allowed else ()


def losses(facts: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Every trial's settings and loss, however it went."""
    return sorted((json.dumps(row["config"], sort_keys=True), row["loss"]) for row in facts["trials"])


def same_as_calm(lab: Lab, facts: Mapping[str, Any]) -> None:
    """To the last bit: training goes on from its checkpoint, or anew, to the same weights."""
    calm = lab.facts("calm", "calm", "calm")
    assert facts["best_config"] == calm["best_config"]
    assert facts["best_loss"] == calm["best_loss"]
    assert losses(facts) == losses(calm)
    assert [row["outcome"] for row in facts["trials"]] == ["completed"] * CONFIG.trials


def all_ended(uri: str, facts: Mapping[str, Any]) -> None:
    """Every trial has its run with its whole curve, FINISHED, and so has the sweep."""
    book, parent = Tracker(uri), facts["parent_run_id"]
    assert book.open_runs(parent) == []
    assert book.get(parent).info.status == "FINISHED"
    for row in facts["trials"]:
        run = book.get(row["run_id"])
        assert run.info.status == "FINISHED"
        assert run.data.tags["outcome"] == row["outcome"]
        assert run.data.metrics["final_loss"] == pytest.approx(row["loss"])
        assert book.steps(row["run_id"], "valid_loss") == set(range(1, CONFIG.epochs + 1))
    assert math.isfinite(facts["best_loss"])


def database(lab: Lab, name: str) -> str:
    return f"sqlite:///{lab.root / name / 'mlruns' / 'mlflow.db'}"


def test_a_killed_worker_and_a_locked_database(lab: Lab) -> None:
    facts = lab.facts("calm", "calm", "worker")
    assert facts["acted"] == 2
    assert facts["crashes"] >= 1
    assert facts["seconds"] > AWAY_S  # the sweep's own end waited for MLflow
    same_as_calm(lab, facts)
    all_ended(database(lab, "calm"), facts)
    all_ended(database(lab, "calm"), lab.facts("calm", "calm", "calm"))


def test_a_killed_driver(lab: Lab) -> None:
    facts = lab.facts("resume", "cut", "resume")
    same_as_calm(lab, facts)
    all_ended(database(lab, "cut"), facts)


def test_a_killed_node(lab: Lab) -> None:
    facts = lab.facts("node", "node", "node")
    assert facts["acted"] == 1
    assert facts["crashes"] >= 1
    same_as_calm(lab, facts)
    all_ended(database(lab, "node"), facts)


def test_a_full_disk_costs_checkpoints_and_nothing_else(lab: Lab) -> None:
    if not small_disk(lab.root / "probe"):
        pytest.skip("this user may not mount a small disk")
    facts = lab.facts("disk", "disk", "disk")
    assert facts["acted"] == 2
    assert 0 < facts["checkpoints"] < lab.facts("calm", "calm", "calm")["checkpoints"]
    same_as_calm(lab, facts)
    all_ended(database(lab, "disk"), facts)


def test_an_mlflow_server_that_hangs_dies_and_comes_back(lab: Lab) -> None:
    facts = lab.facts("server", "server", "server")
    assert facts["acted"] == 1
    assert facts["seconds"] > AWAY_S
    same_as_calm(lab, facts)
    all_ended(lab.server.url, facts)


def test_an_mlflow_that_stays_away_fails_the_sweep_and_resuming_writes_what_it_lacks(lab: Lab) -> None:
    facts = lab.facts("gone", "gone", "gone")
    assert facts["acted"] == 1
    same_as_calm(lab, facts)
    all_ended(database(lab, "gone"), facts)
