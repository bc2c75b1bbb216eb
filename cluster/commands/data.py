"""`data`: candles in, features out, and a look at both."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.commands.data_enrich import enrich
from cluster.commands.data_inspect import inspect
from cluster.commands.data_options import Exchange, Json, Pairs, Timeframe, settings_of
from cluster.console import ConsoleProgress, day, to_json

app = typer.Typer(help="Fetch candles, build features, look at what is stored.", no_args_is_help=True)


@app.command()
def backfill(
    context: typer.Context,
    *,
    exchange: Exchange = None,
    pair: Pairs = None,
    timeframe: Timeframe = None,
    days: Annotated[float | None, typer.Option(min=0.01, help="Days of history.")] = None,
    url: Annotated[str | None, typer.Option(help="Address of a sandbox exchange; default: this workspace's.")] = None,
    mark: Annotated[bool, typer.Option("--mark", help="Also the perpetuals' mark prices.")] = False,
    json: Json = False,
) -> None:
    """Fetch closed candles, and funding where there is any; a later run goes on where this one stopped."""
    from cluster.stages import data as stage

    settings = settings_of(context, exchange, pair, timeframe, history_days=days)
    kinds = ("ohlcv", "funding", "mark") if mark else ("ohlcv", "funding")
    with ConsoleProgress() as progress:
        summary = stage.backfill(settings, progress, base_url=url, kinds=kinds)
    if json:
        typer.echo(to_json(summary))
        return
    table = Table("kind", "pair", "rows", "new", "missing", "from", "to", "note", box=None)
    for item in summary.series:
        span = (day(item.start_ms), day(item.end_ms))
        table.add_row(item.kind, item.pair, str(item.rows), str(item.new_rows), str(item.missing), *span, item.note)
    Console().print(table)
    typer.echo("Next: data inspect, then data features.")


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
