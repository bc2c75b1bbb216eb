"""Processes: known by pid and start time, stopped to the last grandchild, gone when their parent is killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster.processes import end_tree, find, memory_bytes, spawn, stop
from observability.errors import StartError
from observability.only_one import only_one
from observability.ports import check_port, free_port


def wait_gone(pid: int, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_spawn_find_stop(tmp_path: Path) -> None:
    process = spawn("a", ["sleep", "60"], run_dir=tmp_path, log=tmp_path / "a.log", ready=lambda: True)
    assert process.alive()
    assert find("a", tmp_path) == process
    with pytest.raises(StartError, match="already running"):
        spawn("a", ["sleep", "60"], run_dir=tmp_path, log=tmp_path / "a.log", ready=lambda: True)
    assert stop("a", tmp_path)
    assert not process.alive()
    assert not stop("a", tmp_path)
    assert wait_gone(process.pid)


def test_grandchildren_end_too_even_when_they_ignore_the_polite_signal(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 60 & echo $! > kid; wait"
    argv = ["sh", "-c", f"cd {tmp_path}; {script}"]
    kid = tmp_path / "kid"
    process = spawn(
        "g",
        argv,
        run_dir=tmp_path,
        log=tmp_path / "g.log",
        ready=lambda: kid.exists() and bool(kid.read_text().strip()),
    )
    grandchild = int(kid.read_text())
    process.stop(grace_s=0.5)
    assert wait_gone(process.pid)
    assert wait_gone(grandchild)


def test_a_process_that_dies_at_once_tells_why(tmp_path: Path) -> None:
    (tmp_path / "d.log").write_text("an earlier life's last words\n")
    with pytest.raises(StartError, match="code 3: no disk left"):
        spawn(
            "d",
            ["sh", "-c", "echo no disk left; exit 3"],
            run_dir=tmp_path,
            log=tmp_path / "d.log",
            ready=lambda: False,
        )
    assert find("d", tmp_path) is None


def test_a_process_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="not ready within"):
        spawn("n", ["sleep", "60"], run_dir=tmp_path, log=tmp_path / "n.log", ready=lambda: False, timeout_s=0.3)
    assert find("n", tmp_path) is None


def test_a_recycled_pid_is_not_mistaken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"name": "r", "pid": os.getpid(), "started": 1.0}))
    assert find("r", tmp_path) is None
    assert not stop("r", tmp_path)
    (tmp_path / "h.json").write_text('{"name": "h", "pi')
    assert find("h", tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux only")
def test_children_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from cluster.processes import spawn; d = Path(sys.argv[1]);"
        "p = spawn('k', ['sleep', '60'], run_dir=d, log=d / 'k.log', ready=lambda: True);"
        "(d / 'pid').write_text(str(p.pid)); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[3])
    pid_file = tmp_path / "pid"
    deadline = time.monotonic() + 20
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(pid_file.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_gone(child)


def test_end_tree_of_a_stranger_that_is_gone_is_no_error() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert end_tree(child.pid) == 0


def test_a_taken_port_is_named() -> None:
    port = free_port()
    check_port(port, "the test")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(StartError, match=f"port {port} for the test is taken"):
            check_port(port, "the test")


def test_memory_counts_children() -> None:
    alone = memory_bytes()
    code = "x = bytearray(60_000_000); print('up', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    assert memory_bytes() - alone > 50_000_000
    child.communicate(b"\n")


def test_only_one_at_a_time_and_a_killed_owner_frees_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "demo.lock"
    code = (
        "import sys, time; from pathlib import Path; from observability.only_one import only_one\n"
        "with only_one(Path(sys.argv[1]), 'the demo'): print('held', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"held\n"
    with (
        pytest.raises(StartError, match=f"the demo is already running as process {owner.pid}"),
        only_one(lock, "the demo"),
    ):
        pass
    owner.kill()
    owner.communicate()
    with only_one(lock, "the demo"):
        assert lock.read_text().split()[0] == str(os.getpid())
