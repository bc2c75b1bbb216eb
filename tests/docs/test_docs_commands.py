"""What the documentation tells a reader to type exists, and what is derived from the code is in step with it."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import document
import pytest

RUNNABLE = re.compile(r"<!-- (?:runnable|ci: test) -->\n```sh\n(.*?)```", re.DOTALL)
PAGES = ("README.md", "CONTRIBUTING.md", "docs/tutorial.md", "docs/operations.md", "docs/data.md")


def lines_to_run(repo_root: Path) -> list[tuple[str, str]]:
    return [
        (page, line.strip())
        for page in PAGES
        for block in RUNNABLE.findall((repo_root / page).read_text())
        for line in block.splitlines()
        if line.strip()
    ]


@pytest.fixture(scope="module")
def command_line() -> Any:
    import typer

    from cluster.cli import mount

    return typer.main.get_command(mount())


def check_line(command: Any, words: list[str]) -> None:
    """Follow `words` down the command line; every command and every option has to exist, and required ones be given."""
    seen: list[str] = []
    while words and not words[0].startswith("-") and getattr(command, "commands", None):
        name = words.pop(0)
        assert name in command.commands, f"{' '.join([*seen, name])} is not a command"
        command = command.commands[name]
        seen.append(name)
    known = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)} | {"--help"}
    unknown = [word for word in words if word.startswith("-") and word.partition("=")[0] not in known]
    assert not unknown, f"{' '.join(seen)} has no {unknown}"
    missing = [one.name for one in command.params if one.required and not set(one.opts) & set(words)]
    assert not [name for name in missing if f"--{name}" in known], f"{' '.join(seen)} wants {missing}"


def test_the_pages_hold_commands_to_run(repo_root: Path) -> None:
    assert {page for page, _ in lines_to_run(repo_root)} == set(PAGES)


def test_every_command_in_the_pages_exists(repo_root: Path, command_line: Any) -> None:
    for page, line in lines_to_run(repo_root):
        words = shlex.split(line, comments=True)
        if "tools/start.sh" not in words[0]:
            assert words[0] in {"mkdir", "cd"}, f"{page}: a runnable block holds {line}"
            continue
        assert words[0].endswith("tools/start.sh")
        if words[1] == "test" or find_spec(f"cluster.commands.{words[1]}") is None:
            continue
        check_line(command_line, words[1:])


@pytest.mark.parametrize("line", ["doctor --jsn", "doktor", "data backfil", "data backfill --pairs"])
def test_a_command_that_does_not_exist_is_seen(command_line: Any, line: str) -> None:
    with pytest.raises(AssertionError):
        check_line(command_line, line.split())


def test_every_help_page_is_written(command_line: Any) -> None:
    for path, command in document.commands(command_line):
        with click.Context(command, info_name=" ".join(path)) as context:
            assert command.get_help(context) is not None
        assert not path or command.help, f"{' '.join(path)} says nothing about itself"
        for option in document.options(command):
            assert getattr(option, "help", None), f"{' '.join(path)} {option.opts} has no help"


def test_the_list_of_commands_is_in_step(repo_root: Path) -> None:
    assert (repo_root / "docs/cli.md").read_text() == document.page(), "run: python tools/document.py"


def test_the_drawing_of_the_rooms_shows_every_import_and_no_other(repo_root: Path) -> None:
    text = (repo_root / "docs/architecture.md").read_text()
    found = document.DRAWING.search(text)
    assert found
    drawn = re.findall(r"^ +(\w+) --> (\w+)$", found.group(0), re.MULTILINE)
    imported = {(start.replace(".", "_"), end.replace(".", "_")) for start, end in document.room_edges()}
    assert len(drawn) == len(set(drawn)) > 8
    assert set(drawn) == imported, "run: python tools/document.py"


def test_links_between_pages_lead_somewhere(repo_root: Path) -> None:
    pages = [*repo_root.glob("*.md"), *(repo_root / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http:", "https:", "mailto:")):
                assert (page.parent / target).exists(), f"{page.relative_to(repo_root)} links to {target}"
