"""What may not be in a tracked file: package indexes, folders of somebody's machine, pickles, bare excepts, stubs."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

# Put together here, so that this file does not hold what it looks for.
INDEX_HOSTS = tuple(
    "".join(parts) for parts in (("pypi", ".org"), ("pythonhosted", ".org"), ("download.py", "torch.org"))
)
OWN_FOLDERS = tuple("".join(parts) for parts in (("/ro", "ot/"), ("/wo", "rk/"), ("/home/", "ubuntu"), ("/Us", "ers/")))
UNPICKLERS = {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"}
TEXT_LIMIT = 2_000_000
LONG_FILE, TOO_LONG_FILE = 250, 450


@pytest.fixture(scope="module")
def tracked(repo_root: Path) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repo_root, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    files = [repo_root / name for name in listed.stdout.split("\0") if name]
    return [file for file in files if file.is_file() and file.stat().st_size < TEXT_LIMIT]


def texts(files: list[Path]) -> list[tuple[Path, str]]:
    found = []
    for file in files:
        try:
            found.append((file, file.read_text()))
        except UnicodeDecodeError:
            continue
    return found


def python(files: list[Path], root: Path) -> list[tuple[str, ast.Module]]:
    return [(str(file.relative_to(root)), ast.parse(file.read_text())) for file in files if file.suffix == ".py"]


@pytest.mark.parametrize("words", [INDEX_HOSTS, OWN_FOLDERS], ids=["package indexes", "folders of a machine"])
def test_nothing_names(tracked: list[Path], repo_root: Path, words: tuple[str, ...]) -> None:
    seen = [f"{file.relative_to(repo_root)}: {word}" for file, text in texts(tracked) for word in words if word in text]
    assert not seen


def test_nothing_can_unpickle(tracked: list[Path], repo_root: Path) -> None:
    seen = []
    for name, tree in python(tracked, repo_root):
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            else:
                modules = []
            seen += [f"{name}:{node.lineno} {module}" for module in modules if module.split(".")[0] in UNPICKLERS]
            if isinstance(node, ast.Attribute) and ast.unparse(node) in {"torch.load", "torch.save"}:
                seen.append(f"{name}:{node.lineno} {ast.unparse(node)}")
    assert not seen


def test_no_error_is_caught_blindly_and_nothing_is_left_undone(tracked: list[Path], repo_root: Path) -> None:
    seen = []
    for name, tree in python(tracked, repo_root):
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                seen.append(f"{name}:{node.lineno} bare except")
            if isinstance(node, ast.Name) and node.id == "NotImplementedError":
                seen.append(f"{name}:{node.lineno} NotImplementedError")
    undone = re.compile(r"#.*\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    for file, text in texts(tracked):
        if file.suffix in {".py", ".sh", ".nix", ".toml"}:
            seen += [
                f"{file.relative_to(repo_root)}: {line.strip()}" for line in text.splitlines() if undone.search(line)
            ]
    assert not seen


def test_files_stay_readable(
    tracked: list[Path], repo_root: Path, record_property: Callable[[str, object], None]
) -> None:
    """Files aim at 250 lines; far above it one has to be split. Those in between are reported, not refused."""
    lengths = {
        str(file.relative_to(repo_root)): len(text.splitlines())
        for file, text in texts(tracked)
        if file.suffix == ".py"
    }
    long = {name: lines for name, lines in sorted(lengths.items()) if lines > LONG_FILE}
    record_property("files of Python", len(lengths))
    record_property(f"files above {LONG_FILE} lines", long)
    code = {name: lines for name, lines in long.items() if not name.startswith("tests/")}
    assert not {name: lines for name, lines in code.items() if lines > TOO_LONG_FILE}


def test_shell_scripts_are_executable_and_careful(repo_root: Path) -> None:
    for name in ("tools/start.sh", ".ci/run"):
        script = repo_root / name
        assert script.stat().st_mode & 0o111, f"{name} is not executable"
        assert "set -euo pipefail" in script.read_text()


def test_programs_that_trade_for_a_test_compare_their_books(tracked: list[Path], repo_root: Path) -> None:
    """pytest does it for every test, by tests/conftest.py; a program that a test starts has to do it itself."""
    starts = {"start_exchange", "start_fleet", "trading_on", "gap_stand", "BotRunner", "Stand", "ChaosStand"}
    rooms = tuple(f"tests/{room}/" for room in ("integration", "fault", "contract"))
    silent = []
    for name, tree in python(tracked, repo_root):
        nodes = list(ast.walk(tree)) if name.startswith(rooms) else []
        words = {node.value for node in nodes if isinstance(node, ast.Constant)}
        names = {node.id for node in nodes if isinstance(node, ast.Name)}
        trades = "__main__" in words and "__name__" in names and starts & names
        by_command = {"exchange", "up"} <= words and "Terminal" not in names
        if (trades or by_command) and "books_kit" not in names:
            silent.append(name)
    assert not silent
