"""The front door decides rightly: what to trust, what to install, what to say. Nothing large is installed here."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import environment
import installers
import pytest
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
BLOCKS = st.dictionaries(
    NAMES, st.lists(st.from_regex(r"[0-9a-f]{64}", fullmatch=True), min_size=1, max_size=3), max_size=6
)


def block(name: str, hashes: list[str]) -> str:
    return (
        f"{name}==1.0 ; sys_platform == 'linux' \\\n"
        + " \\\n".join(f"    --hash=sha256:{one}" for one in hashes)
        + "\n"
    )


@given(BLOCKS, st.sets(NAMES, max_size=4))
def test_dropping_packages_drops_their_blocks_and_nothing_else(blocks: dict[str, list[str]], extra: set[str]) -> None:
    drop = extra | set(list(blocks)[:2])
    lock = "# head\n" + "".join(block(name, hashes) for name, hashes in blocks.items())
    left = "# head\n" + "".join(block(name, hashes) for name, hashes in blocks.items() if name not in drop)
    assert environment.without_packages(lock, drop) == left


def test_the_cpu_lock_has_one_torch_and_no_cuda() -> None:
    text = environment.cpu_lock(environment.LOCK.read_text(), environment.TORCH_CPU.read_text())
    names = [line.split("==")[0] for line in text.splitlines() if line[:1].isalnum()]
    assert names.count("torch") == 1
    assert [line for line in text.splitlines() if line.startswith("torch==") and "+cpu" in line]
    assert not [name for name in names if name.startswith(("nvidia-cu", "cuda-", "triton"))]
    assert {"ray", "freqtrade", "nvidia-ml-py"} <= set(names), "bentoml needs nvidia-ml-py, with a GPU or without"


def test_every_locked_package_has_hashes() -> None:
    for lock in (environment.LOCK, environment.TORCH_CPU, environment.ROOT / "tools" / "bootstrap.lock"):
        lines = lock.read_text().splitlines()
        for number, line in enumerate(lines):
            if line[:1].isalnum():
                assert lines[number + 1].strip().startswith("--hash=sha256:"), f"{lock.name}: {line}"


def test_the_locks_are_in_step_with_pyproject() -> None:
    done = subprocess.run(
        [sys.executable, "tools/lock.py", "--check"], cwd=environment.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_stamp_is_read_back_and_a_cut_off_one_is_none(tmp_path: Path) -> None:
    stamp = environment.Stamp("abc", "cpu", "3.11.7", "default")
    stamp.write(tmp_path)
    assert environment.Stamp.read(tmp_path) == stamp
    (tmp_path / environment.STAMP).write_text("abc cpu")
    assert environment.Stamp.read(tmp_path) is None
    assert environment.Stamp.read(tmp_path / "nowhere") is None


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "thesis.txt").write_text("years of work")
    with pytest.raises(installers.EnvironmentTrouble, match="in the way"):
        environment.prepare_folder(tmp_path / "env", environment.Say())
    assert (tmp_path / "env" / "thesis.txt").read_text() == "years of work"


def test_the_stamp_goes_before_anything_else_is_done(tmp_path: Path) -> None:
    venv = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    environment.Stamp("abc", "cpu", "3.11.7", "cpu").write(venv)
    environment.prepare_folder(venv, environment.Say())
    assert environment.Stamp.read(venv) is None
    assert environment.same_python(venv)


def test_two_at_once_wait_for_each_other(tmp_path: Path) -> None:
    venv, said, order = tmp_path / "env", [], []
    with (tmp_path / "env.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)

        def second() -> None:
            with environment.only_one(venv, said.append):  # type: ignore[arg-type]
                order.append("second")

        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 10
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        order.append("first")
        fcntl.flock(handle, fcntl.LOCK_UN)
    thread.join(10)
    assert order == ["first", "second"]
    assert "waiting" in said[0]


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("error: Failed to write\n  Caused by: No space left on device (os error 28)", "disk is full"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("error: Request failed\n  Caused by: dns error: failed to lookup address", "index cannot be reached"),
        ("ERROR: Could not fetch: Connection refused", "index cannot be reached"),
        ("error: Hash mismatch for `polars==2.1`", "not the one that was locked"),
        ("PermissionError: [Errno 13] Permission denied: '/opt/env'", "cannot be written"),
        ("error: something new", "something new"),
        ("", "it said nothing"),
    ],
)
def test_failures_become_one_sentence(log: str, words: str) -> None:
    sentence = installers.explain(log, Path("env"))
    assert words in sentence
    assert "\n" not in sentence


def test_pips_places_are_passed_on_to_uv() -> None:
    listed = (
        "global.cert='/etc/ssl/ca.pem'\nglobal.extra-index-url='https://one/wheels https://two/wheels'\n"
        "global.find-links='\\n/wheels\\n/more'\n:env:.find-links='/wheels'\n"
    )
    found = installers.parse_pip_config(listed, {"PIP_FIND_LINKS": "/third", "PIP_INDEX_URL": "https://mirror/wheels"})
    assert found.find_links == ("/wheels", "/more", "/third")
    assert found.extra_indexes == ("https://one/wheels", "https://two/wheels")
    assert found.index == "https://mirror/wheels"
    assert found.uv_arguments() == [
        "--find-links=/wheels", "--find-links=/more", "--find-links=/third", "--default-index=https://mirror/wheels",
        "--index=https://one/wheels", "--index=https://two/wheels", "--index-strategy=unsafe-best-match",
    ]  # fmt: skip
    assert found.indexes_only().uv_arguments() == ["--default-index=https://mirror/wheels"]


def test_without_an_index_folders_serve_everything() -> None:
    found = installers.parse_pip_config("", {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"})
    assert found.indexes_only().uv_arguments() == ["--no-index", "--find-links=/wheels"]


def test_uvs_own_index_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = dict(os.environ) | {"PIP_INDEX_URL": "https://mirror/wheels"}
    assert installers.pip_settings(environ).index == "https://mirror/wheels"
    assert installers.pip_settings(environ | {"UV_DEFAULT_INDEX": "https://own/wheels"}).index == ""


@pytest.mark.skipif(not shutil.which("uv"), reason="uv is not installed here")
def test_a_package_that_is_nowhere_says_what_to_do(tmp_path: Path) -> None:
    venv = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    lock = tmp_path / "some.lock"
    lock.write_text(f"no-such-package-anywhere==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    nowhere = installers.Settings(no_index=True, find_links=(str(tmp_path),))
    said: list[str] = []
    installer = installers.Installer(shutil.which("uv") or "", dict(os.environ), said.append)
    assert not installer.try_add(venv, lock, nowhere, "that package")
    with pytest.raises(installers.EnvironmentTrouble):
        installer.fill(venv, lock, nowhere, "that package")
    assert said == ["that package", "that package"]


def test_a_full_disk_is_not_taken_for_a_missing_build(tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho 'Caused by: No space left on device (os error 28)' >&2\nexit 2\n")
    uv.chmod(0o755)
    installer = installers.Installer(str(uv), dict(os.environ), lambda _text: None)
    with pytest.raises(installers.EnvironmentTrouble, match="disk is full"):
        installer.try_add(tmp_path / "env", environment.TORCH_CPU, installers.Settings(), "torch")
