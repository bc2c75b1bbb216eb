"""The kill switch: one small file that every gate, every bot and the risk manager read for themselves.

Pulling it needs nobody alive: a command is one line appended to the file and synced, and each gate looks at the file
before each entry. Whoever reads acknowledges afterwards. The newest line counts. A file that is missing, unreadable or
ends in half a line closes the gates, and only a person's `resume` opens them again. Nothing heavy is imported here, so
that the command line can use it in a fraction of a second.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from observability.errors import TradingError
from observability.files import write_whole

Verb: TypeAlias = Literal["start", "halt", "flatten", "resume"]
FILE_NAME = "kill-switch.jsonl"
ACKS = "kill-switch-acks"
UNREADABLE = "unreadable"
RISK = "risk"  # the risk manager's name among those who acknowledge
LONGEST_LINE = 3_000  # below a page, so that two writers' lines never mix


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody asked for.

    Attributes:
        id: unique; acknowledged and journalled under it.
        verb: "start" is written once, by the system, and asks for nothing.
        who, reason: a person's name and words.
        at_ms: when, by this machine's clock.
        flatten: close every position; stays asked for through a later halt, until a resume.
        rebase: only with resume: drawdown and losses count anew.
    """

    id: str
    verb: Verb
    who: str
    reason: str
    at_ms: int
    flatten: bool = False
    rebase: bool = False

    @property
    def closed(self) -> bool:
        """Whether entries are refused."""
        return self.verb in ("halt", "flatten")


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Who has read which command. pid: its process; at_ms: by its machine's clock; state: what it did of it."""

    name: str
    command: str
    pid: int
    at_ms: int
    state: str = ""


class KillSwitch:
    """The switch at `path`; cheap to ask, since the file is read again only when it changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, ...] = ()
        self._told = ("", "", "")
        self._commands: tuple[Command, ...] = (_unreadable(f"{path} was never written"),)

    def install(self) -> None:
        """Lay the file down where there is none; one that is there, pulled or not, stays as it is."""
        if not self.path.exists() and not self._withdrawn.exists():
            self._append(_new("start", "system", "trading was set up"))

    def read(self) -> Command:
        """The command in force; raises nothing, doubt is a halt."""
        return self._read()[-1]

    def since(self, command: str) -> tuple[Command, ...]:
        """Commands after the one of that id; only the newest where the file does not know that id."""
        known = self._read()
        ids = [item.id for item in known]
        return known[ids.index(command) + 1 :] if command in ids else known[-1:]

    def order(self, verb: Verb, who: str, reason: str, *, rebase: bool = False) -> Command:
        """Pull or lift it; in force when this returns.

        Raises:
            TradingError: nobody is named, or the file cannot be written. A halt that cannot be written closes the
                gates all the same, by taking the file away; the error says so.
        """
        if not who.strip():
            raise TradingError(f"only a named person may {verb} trading", todo="say who you are, e.g. --who alice")
        before = self.read()
        command = replace(
            _new(verb, who.strip(), reason),
            flatten=verb == "flatten" or (verb == "halt" and before.flatten),
            rebase=rebase,
        )
        try:
            self._append(command)
        except OSError as error:
            taken = command.closed and self._take_away()
            raise TradingError(
                f"the kill switch cannot be written: {error}", where=str(self.path),
                todo="every gate is closed, since the file is gone; free the disk" if taken else "check the disk",
            ) from error  # fmt: skip
        if not command.closed:
            self._withdrawn.unlink(missing_ok=True)
        return command

    def acknowledge(self, name: str, state: str = "") -> bool:
        """Tell that `name` has read the command in force; writes only news. Raises OSError when it cannot."""
        news = (name, self.read().id, state)
        if self._told == news:
            return False
        told = Acknowledgement(name, news[1], os.getpid(), _now_ms(), state)
        write_whole(self.path.parent / ACKS / f"{name}.json", json.dumps(asdict(told)))
        self._told = news
        return True

    def acknowledged(self) -> dict[str, Acknowledgement]:
        """Every reader's last acknowledgement, by name."""
        found = {}
        for path in sorted((self.path.parent / ACKS).glob("*.json")):
            try:
                told = Acknowledgement(**json.loads(path.read_text()))
            except (OSError, ValueError, TypeError):
                continue  # being replaced, or of another version: that is no acknowledgement
            found[told.name] = told
        return found

    @property
    def _withdrawn(self) -> Path:
        """Where the file goes when a halt cannot be written; a new one then waits for a person's resume."""
        return self.path.with_suffix(".withdrawn")

    def _read(self) -> tuple[Command, ...]:
        try:
            status = os.stat(self.path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp != self._stamp:
                self._commands, self._stamp = _parsed(self.path.read_bytes(), str(self.path)), stamp
        except OSError as error:
            self._commands, self._stamp = (_unreadable(f"{type(error).__name__}: {error}"),), ()
        return self._commands

    def _append(self, command: Command) -> None:
        line = json.dumps(asdict(command)).encode()
        if len(line) > LONGEST_LINE:
            raise TradingError("the reason is too long", where=f"{len(line)} bytes", todo="say it in a sentence")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not self.path.exists() or self.path.stat().st_size == 0
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            # a line feed first: half a line left by a writer that died must not swallow this one
            os.write(file, (b"" if fresh else b"\n") + line)
            os.fsync(file)
        finally:
            os.close(file)

    def _take_away(self) -> bool:
        try:
            self.path.rename(self._withdrawn)
        except OSError:
            return not self.path.exists()
        return True


def _parsed(content: bytes, where: str) -> tuple[Command, ...]:
    """Every readable line in order; an unreadable last one is a halt."""
    commands: list[Command] = []
    lines = [line for line in content.split(b"\n") if line.strip()]
    for number, line in enumerate(lines, start=1):
        try:
            commands.append(_command(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                commands.append(_unreadable(f"line {number} of {where}: {error}"))
    return tuple(commands) or (_unreadable(f"{where} is empty"),)


def _command(values: Mapping[str, Any]) -> Command:
    command = Command(**values)
    texts = (command.id, command.who, command.reason, command.verb)
    sound = all(isinstance(text, str) for text in texts) and command.verb in get_args(Verb) and bool(command.id)
    if not sound or not all(isinstance(flag, bool) for flag in (command.flatten, command.rebase)):
        raise ValueError("no command")
    return command


def _new(verb: Verb, who: str, reason: str) -> Command:
    return Command(uuid.uuid4().hex, verb, who, reason, _now_ms())


def _unreadable(why: str) -> Command:
    """What stands for a switch that cannot be read: entries closed, positions left to their own exits."""
    return Command(UNREADABLE, "halt", "KILL_SWITCH", f"the kill switch cannot be read ({why})", 0)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
