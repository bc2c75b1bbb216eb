"""Signals, short folders and leftovers: what a run does to the machine it stands on."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from cluster import short_folder as folders
from cluster.interrupts import SIGNALS, Interrupts
from cluster.processes import find
from cluster.ray_local import remove_temp_root, temp_root


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Signals as in a foreground: a shell starts what it puts into the background with Ctrl-C ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_interrupts_and_later_ones_wait(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with Interrupts() as interrupts:
        interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        for each in SIGNALS:
            os.kill(os.getpid(), each)  # the clean-up goes on
        interrupts.arm()
        assert all(signal.getsignal(each) is signal.SIG_IGN for each in SIGNALS)
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_an_interrupt_that_a_callback_swallowed_is_raised_again() -> None:
    with Interrupts() as interrupts:
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_a_handler_that_a_framework_put_over_ours_is_replaced() -> None:
    with Interrupts() as interrupts:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        interrupts.arm()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            interrupts.check()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_next_run_removes_the_short_folder_of_a_killed_one(tmp_path: Path) -> None:
    var = tmp_path / "a workspace with a path that is much too long for the sockets of Ray"
    killed = folders.short_folder(var, "tmp")
    (killed / "left").write_text("by kill -9")
    assert len(str(killed)) <= folders.LONGEST
    after = folders.short_folder(var, "tmp")
    assert not killed.exists()
    folders.remove_short_folder(var, "tmp")
    assert not after.exists()
    folders.remove_short_folder(var, "tmp")


def test_a_short_workspace_keeps_its_temporary_files_inside() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="") as name:
        var = Path(name)
        folder = folders.short_folder(var, "tmp")
        assert folder == (var / "tmp").resolve()
        folders.remove_short_folder(var, "tmp")
        assert not folder.exists()


@pytest.mark.parametrize("temporary", ["/tmp", "/tmp/a-system-folder-that-is-long-already"])
def test_rays_longest_socket_fits_wherever_the_workspace_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temporary: str
) -> None:
    spec = find_spec("ray")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    modules = (Path(spec.submodule_search_locations[0]) / "dashboard" / "modules").rglob("*.py")
    parts = [name for file in modules for name in re.findall(r"class (\w+)\(SubprocessModule", file.read_text())]
    monkeypatch.setattr(tempfile, "tempdir", temporary)
    root = temp_root(tmp_path / "a workspace that lies deep below the folders of its user")
    try:
        session = root / "session_2026-12-31_23-59-59_999999_4194304" / "sockets"
        assert max(len(str(session / f"dash_{name}")) for name in parts) <= 107
    finally:
        remove_temp_root(root)
    assert not root.parent.exists()


def test_a_link_that_is_not_ours_is_never_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tmp.folder").symlink_to(precious)
    folders.remove_short_folder(tmp_path, "tmp")
    assert precious.is_dir()


@pytest.mark.parametrize("content", ["[1, 2]", "{}", "null", '{"pid": "x"}', "{half", json.dumps({"pid": 0})])
def test_a_file_that_is_no_record_of_a_process_names_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    assert find("x", tmp_path) is None
