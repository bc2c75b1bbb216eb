"""`tools/start.sh` as it is run: with a stand-in for the environment, from any folder, with broken Pythons on PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import environment
import pytest

TOOLS = ("bash", "dirname", "readlink", "cat", "sha256sum", "ls")


@pytest.fixture
def checkout(tmp_path: Path, repo_root: Path) -> Path:
    """A checkout with an environment that only tells what it was asked, stamped as ready."""
    root = tmp_path / "a checkout"
    (root / "tools").mkdir(parents=True)
    for name in ("tools/start.sh", "tools/torch-cpu.lock", "requirements.lock"):
        shutil.copy(repo_root / name, root / name)
    (root / "tools" / "environment.py").write_text("import sys; print('making', *sys.argv[1:]); sys.exit(7)\n")
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "folder=$PWD path=$PYTHONPATH"\nfor word; do echo "<$word>"; done\n')
    python.chmod(0o755)
    stamp(root)
    return root


def stamp(root: Path, torch: str = "cpu") -> None:
    digest = environment.digest_of(root / "requirements.lock", root / "tools" / "torch-cpu.lock")
    environment.Stamp(digest, torch, "3.11.7", torch).write(root / ".venv")


def start(root: Path, *words: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    return run([root / "tools" / "start.sh", *words], cwd=cwd or root, **environ)


def run(words: list[str | Path], cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """A start with nothing that the environment of the tests says of this project."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MTST_", "PYTHONPATH"))}
    return subprocess.run(
        words, cwd=cwd, env=clean | {"MTST_TORCH": "cpu"} | environ, capture_output=True, text=True, check=False
    )


def test_arguments_and_folder_reach_the_command_line_untouched(checkout: Path, tmp_path: Path) -> None:
    done = start(checkout, "demo", "--json", "out file.json", cwd=tmp_path)
    assert done.stdout.splitlines() == [
        f"folder={tmp_path} path={checkout}", "<-m>", "<cluster>", "<demo>", "<--json>", "<out file.json>",
    ]  # fmt: skip


def test_it_can_be_called_through_a_link(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    link = tmp_path / "bin" / "mtst"
    link.symlink_to(Path("..") / checkout.name / "tools" / "start.sh")
    done = run([link, "doctor"], cwd=tmp_path)
    assert "<doctor>" in done.stdout, done.stderr


def test_test_runs_the_checks(checkout: Path) -> None:
    done = start(checkout, "test", "-k", "risk")
    assert done.stdout.splitlines()[1:] == [f"<{checkout}/tools/check.py>", "<-k>", "<risk>"]


def test_a_ready_environment_costs_no_time(checkout: Path) -> None:
    spent = []
    for _ in range(5):
        began = time.monotonic()
        assert start(checkout, "doctor").returncode == 0
        spent.append(time.monotonic() - began)
    assert min(spent) < 0.2


@pytest.mark.parametrize("damage", ["no stamp", "cut off stamp", "other lock", "other torch", "no python"])
def test_an_environment_that_is_not_right_is_made_again(checkout: Path, damage: str) -> None:
    if damage == "no stamp":
        (checkout / ".venv" / environment.STAMP).unlink()
    elif damage == "cut off stamp":
        (checkout / ".venv" / environment.STAMP).write_text("12ab")
    elif damage == "other lock":
        with (checkout / "requirements.lock").open("a") as lock:
            lock.write("more==1.0\n")
    elif damage == "other torch":
        stamp(checkout, "default")
    else:
        (checkout / ".venv" / "bin" / "python").unlink()
    done = start(checkout, "doctor", MTST_PYTHON=sys.executable)
    assert done.stdout == f"making --venv {checkout}/.venv --torch cpu\n"
    assert done.returncode == 7


def test_inside_nix_nothing_is_made(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".venv" / environment.STAMP).unlink()
    own = tmp_path / "nix"
    own.mkdir()
    shutil.copy(checkout / ".venv" / "bin" / "python", own / "python")
    done = start(checkout, "doctor", MTST_NIX="1", PATH=f"{own}:{os.environ['PATH']}")
    assert done.returncode == 0
    assert "<doctor>" in done.stdout


@pytest.fixture
def bare(checkout: Path, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """No environment, a PATH without Python, and a start.sh that looks for none in the usual folders either."""
    shutil.rmtree(checkout / ".venv")
    script = checkout / "tools" / "start.sh"
    script.write_text(
        script.read_text().replace("/usr/bin/python3 /usr/local/bin/python3 /opt/homebrew/bin/python3", "")
    )
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(shutil.which(name) or name)
    return checkout, {"PATH": str(tools), "HOME": str(tmp_path), "PYENV_ROOT": str(tmp_path / "pyenv")}


def fake_python(folder: Path, name: str, *, fits: bool, version: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / name
    script.write_text(
        f"#!{shutil.which('bash')}\n"
        f'case "$2" in *sys.exit*) exit {0 if fits else 1} ;; *print*) echo {version}; exit ;; esac\n'
        f'echo "made by {name}"\nexit 7\n'
    )
    script.chmod(0o755)


def test_without_python_it_says_what_to_install(bare: tuple[Path, dict[str, str]]) -> None:
    done = start(bare[0], "doctor", **bare[1])
    assert done.returncode == 1
    assert done.stderr.startswith("start: No Python was found")
    assert done.stderr.count("\n") == 1


def test_a_python_that_is_too_old_is_named(bare: tuple[Path, dict[str, str]]) -> None:
    fake_python(Path(bare[1]["PATH"]), "python3", fits=False, version="3.9.18")
    done = start(bare[0], "doctor", **bare[1])
    assert done.returncode == 1
    assert "Python 3.9.18 is not supported" in done.stderr


def test_a_command_that_only_fails_is_passed_over(bare: tuple[Path, dict[str, str]]) -> None:
    folder = Path(bare[1]["PATH"])
    broken = folder / "python3.11"
    broken.write_text(f"#!{shutil.which('bash')}\necho 'pyenv: python3.11: command not found' >&2\nexit 127\n")
    broken.chmod(0o755)
    fake_python(folder, "python3.12", fits=True, version="3.12.1")
    done = start(bare[0], "doctor", **bare[1])
    assert "made by python3.12" in done.stdout
    assert done.stderr == ""


def test_pyenvs_versions_are_found_where_its_commands_fail(bare: tuple[Path, dict[str, str]]) -> None:
    fake_python(Path(bare[1]["PYENV_ROOT"]) / "versions" / "3.12.1" / "bin", "python3", fits=True, version="3.12.1")
    assert "made by python3" in start(bare[0], "doctor", **bare[1]).stdout


def test_a_wrong_choice_of_python_is_said(bare: tuple[Path, dict[str, str]]) -> None:
    done = start(bare[0], "doctor", **bare[1], MTST_PYTHON="/no/such/python")
    assert done.returncode == 1
    assert "MTST_PYTHON=/no/such/python is no Python" in done.stderr
