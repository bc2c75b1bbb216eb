"""The Ray cluster as a service of its own: a head that outlives this command, and jobs submitted to it."""

from __future__ import annotations

import json
import logging
import os
import shlex
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.environment import ray_environment, token_file
from cluster.processes import find, spawn, stop
from cluster.ray_local import (
    HEAD,
    OBJECT_STORE_BYTES,
    address_file,
    make_token,
    remove_temp_root,
    running_head,
    temp_root,
)
from cluster.settings import Settings
from observability.errors import ClusterError, StartError
from observability.files import read_secret, write_whole
from observability.ports import check_port, free_port
from observability.progress import Progress

AGENT_S = 20.0  # how long after its start a head may take no job yet
FINAL = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class ClusterStatus:
    """What is known of the head; empty addresses when none runs."""

    running: bool
    address: str = ""
    dashboard_url: str = ""
    cpus: float = 0.0
    gpus: float = 0.0
    nodes: int = 0


@dataclass(frozen=True)
class Job:
    """A job that the head knows."""

    job_id: str
    status: str
    command: str


@dataclass(frozen=True)
class JobResult:
    """A finished job: its state and the exit code of its driver."""

    job_id: str
    status: str
    exit_code: int


def up(settings: Settings, progress: Progress) -> ClusterStatus:
    """Start a head on loopback that outlives this command, and prove it with a real task.

    Raises:
        StartError: it is running already, a port is taken, or it does not come up.
    """
    workspace = settings.workspace
    workspace.make()
    if find(HEAD, workspace.run_dir) is not None:
        raise StartError("a Ray head runs in this workspace", where=str(workspace.run_dir), todo="cluster down first")
    gcs, dashboard = free_port(), settings.cluster.dashboard_port or free_port()
    check_port(dashboard, "the Ray dashboard")
    make_token(token_file(settings))
    os.environ.update(ray_environment(settings))
    root = temp_root(workspace.var)
    argv = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats",
        f"--port={gcs}", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--object-store-memory={OBJECT_STORE_BYTES}", f"--temp-dir={root}",
        # Its default is one fixed port: a second head on the machine would accept no job.
        f"--dashboard-agent-listen-port={free_port()}",
        "--min-worker-port=0", "--max-worker-port=0",
    ]  # fmt: skip
    if settings.cluster.num_cpus is not None:
        argv.append(f"--num-cpus={settings.cluster.num_cpus}")
    if settings.cluster.num_gpus is not None:
        argv.append(f"--num-gpus={settings.cluster.num_gpus}")
    with progress.task("Ray head"):
        spawn(
            HEAD, argv, run_dir=workspace.run_dir, log=workspace.logs / "ray-head.log",
            ready=lambda: _listens(gcs) and _listens(dashboard), detached=True,
        )  # fmt: skip
        url = f"http://127.0.0.1:{dashboard}"
        record = {"address": f"127.0.0.1:{gcs}", "dashboard_url": url, "temp_root": str(root)}
        write_whole(address_file(workspace.run_dir), json.dumps(record))
        return status(settings)


def down(settings: Settings) -> bool:
    """Stop the head with everything on it; False when none runs."""
    workspace = settings.workspace
    record, stopped = running_head(settings), stop(HEAD, workspace.run_dir, grace_s=5.0)
    address_file(workspace.run_dir).unlink(missing_ok=True)
    if record:
        remove_temp_root(Path(record["temp_root"]))
    return stopped


def status(settings: Settings) -> ClusterStatus:
    """Join the head, run one task, and say what the cluster has.

    Raises:
        ClusterError: a head should run, but no task does.
    """
    record = running_head(settings)
    if record is None:
        return ClusterStatus(running=False)
    os.environ.update(ray_environment(settings))
    import ray

    try:
        ray.init(address=record["address"], log_to_driver=False, logging_level=logging.ERROR)
        # `ray start` can report success while its raylet has died: only a task that ran is proof.
        answer = ray.get(ray.remote(num_cpus=0)(lambda: 1).remote(), timeout=30)
        resources = ray.cluster_resources()
        nodes = len([node for node in ray.nodes() if node["Alive"]])
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"the Ray head does not run tasks: {error}", where=record["address"], todo="cluster down, then cluster up"
        ) from error
    finally:
        ray.shutdown()
    return ClusterStatus(
        answer == 1, record["address"], record["dashboard_url"], resources.get("CPU", 0), resources.get("GPU", 0), nodes
    )


def submit(settings: Settings, arguments: Sequence[str], say: Callable[[str], None]) -> JobResult:
    """Run `python -m cluster ARGUMENTS` as a Ray job, stream its output, and return how it ended.

    The job gets no secret: it reads its own files in the workspace, by path.

    Raises:
        ClusterError: no head runs or it does not answer.
    """
    office = _office(settings)
    job = start_job(settings, arguments)
    shown = 0
    while True:
        state = str(office.client.get_job_status(job).value)
        logs = office.client.get_job_logs(job)
        for line in logs[shown:].splitlines():
            say(line)
        shown = len(logs)
        if state in FINAL:
            return JobResult(job, state, _exit_code(f"{office.url}/api/jobs/{job}", office.headers, state))
        time.sleep(1.0)


def start_job(settings: Settings, arguments: Sequence[str]) -> str:
    """Start `python -m cluster ARGUMENTS` as a Ray job that needs nobody to watch it; returns its id.

    Raises:
        ClusterError: no head runs or it does not answer.
    """
    workspace = settings.workspace.root.resolve()
    words = (sys.executable, "-m", "cluster", "--workspace", str(workspace), *arguments)
    return _submitted(_office(settings).client, " ".join(shlex.quote(part) for part in words))


def jobs(settings: Settings) -> tuple[Job, ...]:
    """Every job that the head knows, the newest first."""
    found = [each for each in _office(settings).client.list_jobs() if each.submission_id]
    found.sort(key=lambda each: -(each.start_time or 0))
    return tuple(Job(each.submission_id, str(each.status.value), str(each.entrypoint)) for each in found)


def stop_job(settings: Settings, job: str) -> bool:
    """Ask a job to end; False when it had ended already.

    Raises:
        ClusterError: the head knows no such job.
    """
    office = _office(settings)
    if job not in {each.job_id for each in jobs(settings)}:
        raise ClusterError(f"there is no job {job}", where=office.url, todo="cluster jobs names them")
    return bool(office.client.stop_job(job))


@dataclass(frozen=True)
class _Office:
    """Where jobs are taken: Ray's client, its address, and what a plain request needs."""

    client: Any
    url: str
    headers: dict[str, str]


def _office(settings: Settings) -> _Office:
    record = running_head(settings)
    url = record["dashboard_url"] if record else os.environ.get("RAY_API_SERVER_ADDRESS", "")
    if not url:
        raise ClusterError("no Ray head runs in this workspace", where="jobs", todo="cluster up first")
    os.environ.update(ray_environment(settings))
    from ray.job_submission import JobSubmissionClient

    token = read_secret(token_file(settings), "Ray's token")
    headers = {"Authorization": f"Bearer {token}"}
    return _Office(JobSubmissionClient(url, headers=headers), url, headers)


def _submitted(client: Any, entrypoint: str) -> str:
    """Id of the new job; a head that has just started takes none for some seconds."""
    deadline = time.monotonic() + AGENT_S
    while True:
        try:
            return str(client.submit_job(entrypoint=entrypoint))
        except RuntimeError as error:
            if time.monotonic() > deadline:
                reason = str(error).strip().splitlines()[0]
                raise ClusterError(
                    f"Ray takes no job: {reason}", where="cluster submit", todo="cluster down, then cluster up"
                ) from error
            time.sleep(0.5)


def _exit_code(url: str, headers: dict[str, str], state: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:  # noqa: S310
            code = json.load(answer).get("driver_exit_code")
    except (urllib.error.URLError, json.JSONDecodeError):
        code = None
    return int(code) if code is not None else (0 if state == "SUCCEEDED" else 1)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
