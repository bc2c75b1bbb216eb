"""The command line: mounts one module of `cluster/commands` a noun, and turns every error into one clear sentence."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cluster.environment import prepare_environment
from cluster.failure import INTERRUPTED, explain
from cluster.settings import load_settings
from observability.errors import SettingsError
from observability.logging import configure_logging

# Name, panel on the help page. The modules import nothing heavy; the stages behind them do, when they run.
NOUNS = (
    ("data", "Learn"),
    ("train", "Learn"),
    ("serve", "Trade"),
    ("trade", "Trade"),
    ("exchange", "Trade"),
    ("observe", "Operate"),
    ("cluster", "Operate"),
    ("bench", "Operate"),
)
VERBS = (("demo", "Start here"), ("doctor", "Start here"))

app = typer.Typer(
    name="mtst-trader",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help=(
        "A crypto trading system that learns, proves that it learned, trades carefully and survives.\n\n"
        "Start with [bold]demo[/]: candles, features, a sweep, a judged model, a served forecast, risk-approved orders "
        "at a play-money exchange, a crash and a recovery, and one report. Nothing leaves this machine."
    ),
    epilog=(
        "Every command has --help. [bold]tools/start.sh test[/] runs every check and test. "
        "Settings: --config FILE.toml, or MTST__GROUP__NAME in the environment."
    ),
)


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="Settings file (TOML); default ./mtst-trader.toml if any.")
    ] = None,
    workspace: Annotated[Path | None, typer.Option(help="Folder for everything that is written.")] = None,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "WARNING",
) -> None:
    """Read the settings once; every command finds them in its context."""
    settings = load_settings(config)
    if workspace is not None:
        settings = settings.changed(workspace={"root": workspace})
    if log_level.upper() not in logging.getLevelNamesMapping():
        raise SettingsError(f"there is no log level {log_level}", where="--log-level", todo="try DEBUG or WARNING")
    configure_logging(log_level)
    context.obj = settings
    # The demo lives in a folder of its own and prepares that one instead.
    if context.invoked_subcommand not in (None, "demo") and "--help" not in sys.argv:
        prepare_environment(settings)


def mount() -> typer.Typer:
    """The application with all its commands; called once by `main` and by the documentation's generator."""
    if not app.registered_groups:
        for verb, panel in VERBS:
            module = import_module(f"cluster.commands.{verb}")
            app.command(name=verb, rich_help_panel=panel)(getattr(module, verb))
        for noun, panel in NOUNS:
            module = import_module(f"cluster.commands.{noun}")
            verbs = [
                command.name or getattr(command.callback, "__name__", "") for command in module.app.registered_commands
            ]
            text = f"{module.app.info.help}  [cyan]{' | '.join(verbs)}[/]"
            app.add_typer(module.app, name=noun, rich_help_panel=panel, short_help=text)
    return app


def main() -> None:
    """Run; exit codes: 0 done, 1 failed, 2 wrong settings or arguments, 130 interrupted."""
    try:
        mount()(standalone_mode=True)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # the command line's library makes it of KeyboardInterrupt, without a word
            _tell(explain(KeyboardInterrupt()).sentence)
        raise
    except (Exception, KeyboardInterrupt) as error:
        failure = explain(error)
        if not failure.expected and "DEBUG" in sys.argv:
            raise
        _tell(failure.sentence)
        sys.exit(failure.code)


def _tell(sentence: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(sentence, markup=False)
