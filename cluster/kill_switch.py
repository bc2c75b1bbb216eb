"""`trade halt | resume | flatten`, without anything that could be slow, broken or wedged.

No Ray, no settings tree, no framework: one line into the kill switch's file, then a short look at who acknowledged. A
settings file with a mistake in it must not keep anybody from stopping trading, so it is asked only where the workspace
lies.
"""

from __future__ import annotations

import argparse
import dataclasses
import getpass
import json
import os
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from observability.errors import MtstError, TradingError
from trading.adapters.bot_books import read_trades
from trading.adapters.bot_database import Database, bot_database
from trading.kill_switch import FILE_NAME, RISK, Command, KillSwitch, Verb

ANSWER_S = 0.3  # how long one waits for acknowledgements unless told otherwise
LOOK_S = 0.02
STATES: dict[Verb, str] = {"halt": "halted", "flatten": "reducing", "resume": "resumed", "start": "started"}
VERBS: dict[str, Verb] = {"halt": "halt", "flatten": "flatten", "resume": "resume"}


@dataclass(frozen=True)
class Pulled:
    """What became of a command to the kill switch.

    Attributes:
        state: what was asked, or what the risk manager made of it where it has answered.
        acknowledged: readers that know it; every gate obeys it anyway, before its next entry.
        silent: bots and the risk manager without an answer yet, each with what is known of it.
        left: open positions by bot, out of the bots' own databases; told for `flatten`.
    """

    state: str
    who: str
    reason: str
    acknowledged: tuple[str, ...]
    silent: dict[str, str]
    left: dict[str, tuple[str, ...]]

    @property
    def lines(self) -> str:
        """For a person."""
        found = [f"Trading is {self.state}: {self.reason} ({self.who}). In force at every gate from now on."]
        if self.acknowledged:
            found.append(f"  acknowledged by {', '.join(self.acknowledged)}")
        found += [f"  no answer yet from {name}: {why}" for name, why in self.silent.items()]
        found += [f"  {bot} still holds {', '.join(pairs)}" for bot, pairs in self.left.items() if pairs]
        if self.left and not any(self.left.values()):
            found.append("  nothing is open")
        return "\n".join(found)


def pull(var: Path, verb: Verb, who: str, reason: str, *, rebase: bool = False, wait_s: float = ANSWER_S) -> Pulled:
    """Write a command and wait a moment for answers; for `flatten`, until nothing is open.

    Args:
        var: the workspace's folder for state.
        verb: "halt", "flatten" or "resume".
        who, reason: for the journal.
        rebase: with resume, drawdown and losses count anew.
        wait_s: how long to wait at the most; the command is in force before.

    Raises:
        TradingError: trading was never started here, nobody is named, or the file cannot be written.
    """
    switch = KillSwitch(var / FILE_NAME)
    bots = _bots(var)
    if not bots and not switch.path.exists():
        raise TradingError("no bots run in this workspace", where=str(var.parent), todo="trade up, or name --workspace")
    command = switch.order(verb, who or getpass.getuser(), reason, rebase=rebase)
    if not bots:
        text = f"{reason}; no bots run now, the next `trade up` starts so"
        return Pulled(STATES[verb], command.who, text, (), {}, {})
    return _answers(switch, command, bots, wait_s)


def _answers(switch: KillSwitch, command: Command, bots: dict[str, Database], wait_s: float) -> Pulled:
    deadline = time.monotonic() + wait_s
    while True:
        told = switch.acknowledged()
        knows = {name for name, told in told.items() if told.command == command.id} & {RISK, *bots}
        left = {bot: _open_pairs(database) for bot, database in bots.items()} if command.flatten else {}
        done = len(knows) > len(bots) and not any(left.values())
        if done or time.monotonic() > deadline:
            break
        time.sleep(LOOK_S)
    silent = {name: _why_silent(told[name].pid if name in told else 0) for name in (RISK, *bots) if name not in knows}
    state = told[RISK].state if RISK in knows and told[RISK].state else STATES[command.verb]
    waits = command.verb == "resume" and state == "halted"
    reason = f"{command.reason}; entries wait until every account's books agree" if waits else command.reason
    return Pulled(state, command.who, reason, tuple(sorted(knows)), silent, left)


def fast(arguments: Sequence[str]) -> int | None:
    """Run a command line that only concerns the kill switch; None when it is another one, or wrong."""
    if not any(verb in arguments for verb in VERBS) or "trade" not in arguments:
        return None
    try:
        asked = _parser().parse_args(arguments)
    except _OtherCommandError:
        return None
    verb = "flatten" if asked.close_positions else VERBS[asked.verb]
    reason = asked.reason or f"{asked.verb} by hand"
    try:
        found = pull(_var(asked), verb, asked.who, reason, rebase=asked.rebase, wait_s=asked.wait)
    except MtstError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(json.dumps(dataclasses.asdict(found), indent=2) if asked.json else found.lines)
    sys.stdout.write("\n")
    return 0


class _OtherCommandError(Exception):
    """The arguments are not for us; the full command line tells what is wrong with them."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _OtherCommandError(message)


def _parser() -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--log-level")
    nouns = parser.add_subparsers(required=True)
    verbs = nouns.add_parser("trade", add_help=False, allow_abbrev=False).add_subparsers(dest="verb", required=True)
    for verb in VERBS:
        command = verbs.add_parser(verb, add_help=False, allow_abbrev=False)
        command.add_argument("--reason", default="")
        command.add_argument("--who", default="")
        command.add_argument("--json", action="store_true")
        command.add_argument("--wait", type=float, default=ANSWER_S)
        command.set_defaults(rebase=False, close_positions=False)
        if verb == "resume":
            command.add_argument("--rebase", action="store_true")
        if verb == "halt":
            command.add_argument("--close-positions", action="store_true")
    return parser


def _var(asked: argparse.Namespace) -> Path:
    """Where the workspace keeps its state, as `cluster.settings` finds it."""
    root = asked.workspace or os.environ.get("MTST__WORKSPACE__ROOT")
    if root is None:
        file = asked.config or Path("mtst-trader.toml")
        try:
            root = tomllib.loads(file.read_text()).get("workspace", {}).get("root")
        except (OSError, tomllib.TOMLDecodeError, AttributeError):
            root = None  # the full command line would complain; stopping has to work
    return Path(root or os.environ.get("MTST_HOME", ".")).absolute() / "var"


def _bots(var: Path) -> dict[str, Database]:
    """Database of every announced bot; empty where none run."""
    try:
        fleet: dict[str, Any] = json.loads((var / "run" / "fleet.json").read_text())
        return {
            str(bot["name"]): bot_database(Path(bot["folder"]), bot["name"], bot["mode"], bot.get("dsn_file", ""))
            for bot in fleet["bots"]
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TradingError(f"the list of bots cannot be read: {error}", where=str(var), todo="trade status") from error


def _open_pairs(database: Database) -> tuple[str, ...]:
    """What is open; a database that cannot be read is no reason not to tell who has heard the command."""
    try:
        return read_trades(database).open_pairs
    except MtstError as error:
        return (f"what cannot be read: {error.what}",)


def _why_silent(pid: int) -> str:
    if not pid:
        return "it has never looked"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return f"its process {pid} has ended; what it holds rests on the exchange until it is back"
    except PermissionError:
        pass
    return f"process {pid} will see it in its next loop"
