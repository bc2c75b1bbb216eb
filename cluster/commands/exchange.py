"""`exchange`: a play-money exchange that speaks Binance's protocol on virtual time."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.console import ConsoleProgress, to_json
from observability.errors import ExchangeError

app = typer.Typer(
    help="Run a play-money exchange: replayed or simulated candles, signed orders, exact books.", no_args_is_help=True
)
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


class Mode(StrEnum):
    """How its clock goes."""

    LOCKSTEP = "lockstep"
    WALL = "wall"


@app.command()
def up(
    context: typer.Context,
    *,
    replay: Annotated[Path | None, typer.Option(help="Folder of <BASE>_<QUOTE>-<timeframe>.parquet files.")] = None,
    account: Annotated[
        list[str] | None, typer.Option(help="Account to open; may be repeated; default: one a bot.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the simulated market.")] = None,
    port: Annotated[int, typer.Option(help="Port on loopback; 0 picks a free one.")] = 0,
    mode: Annotated[Mode, typer.Option(help="lockstep: virtual time; wall: real time.")] = Mode.LOCKSTEP,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it running and return.")] = False,
    json: Json = False,
) -> None:
    """Start it; stays in the foreground until Ctrl-C unless --detach."""
    from cluster.stages import exchange as stage
    from cluster.stages.bots import bot_names

    changes: dict[str, Any] = {"replay": replay, "seed": seed}
    settings = context.obj.changed(market={name: value for name, value in changes.items() if value is not None})
    with ConsoleProgress() as progress:
        accounts = account or tuple(bot_names(settings))
        running = stage.start_exchange(
            settings, progress, accounts=accounts, port=port, mode=mode.value, detached=detach
        )
    if json:
        typer.echo(to_json(running))
    else:
        typer.echo(f"{running.url} trades {', '.join(running.pairs)} at {running.timeframe} ({running.market}).")
        for name, path in running.key_files.items():
            typer.echo(f"Key of account {name}: {path}")
    if detach:
        return
    try:
        while running.alive():
            time.sleep(0.5)
        raise ExchangeError("the exchange has ended", where=str(settings.workspace.logs / "exchange.log"))
    finally:
        running.stop()


@app.command()
def down(context: typer.Context, json: Json = False) -> None:
    """Stop the exchange of this workspace."""
    from cluster.stages import exchange as stage

    stopped = stage.stop_exchange(context.obj)
    typer.echo(to_json({"stopped": stopped}) if json else ("Stopped." if stopped else "No exchange runs here."))


@app.command()
def status(context: typer.Context, json: Json = False) -> None:
    """Say whether it runs, and its market and clock; exit 1 when it does not."""
    from cluster.stages import exchange as stage

    found = stage.exchange_status(context.obj)
    if json:
        typer.echo(to_json(found))
    elif found.running:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(found.health["now_ms"] / 1000))
        typer.echo(f"{found.url} plays {found.health['market']}; its clock says {clock} UTC.")
    else:
        typer.echo("No exchange runs in this workspace. Start one: exchange up")
    raise typer.Exit(0 if found.running else 1)
