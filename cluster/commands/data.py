"""`data`: candles in, features out, and a look at both."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.commands.data_backfill import backfill, follow
from cluster.commands.data_enrich import enrich
from cluster.commands.data_files import export, import_
from cluster.commands.data_inspect import inspect
from cluster.commands.data_options import Exchange, Json, Pairs, Timeframe, settings_of
from cluster.console import ConsoleProgress, to_json

app = typer.Typer(help="Fetch candles, build features, look at what is stored.", no_args_is_help=True)


app.command()(backfill)
app.command()(follow)
app.command()(enrich)


@app.command()
def features(
    context: typer.Context,
    *,
    exchange: Exchange = None,
    pair: Pairs = None,
    timeframe: Timeframe = None,
    funding: Annotated[bool | None, typer.Option(help="Use funding; default: if it spans the candles.")] = None,
    onchain: Annotated[bool | None, typer.Option(help="Use on-chain data; default: if it spans the candles.")] = None,
    json: Json = False,
) -> None:
    """Compute the features of every pair on the Ray cluster; pairs that are up to date are left alone."""
    from cluster.stages import data as stage

    settings = settings_of(context, exchange, pair, timeframe)
    with ConsoleProgress() as progress:
        summary = stage.build(settings, progress, funding=funding, onchain=onchain)
    if json:
        typer.echo(to_json(summary))
        return
    typer.echo(f"{summary.rows} rows of {summary.pairs} pairs in {summary.seconds:.1f} s, {summary.reused} up to date.")
    typer.echo(f"Data set {summary.spec_hash} in {summary.path}")
    typer.echo("Next: train sweep.")


app.command()(inspect)
app.command("import")(import_)
app.command()(export)
