"""`data import` and `data export`: files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.commands.data_options import Exchange, Json, Pairs, Timeframe, settings_of
from cluster.console import ConsoleProgress, day, to_json


def import_(
    context: typer.Context,
    *,
    path: Annotated[Path, typer.Argument(help="Freqtrade's data folder (user_data/data/binance), or one file.")],
    exchange: Exchange = None,
    zone: Annotated[str, typer.Option(help="Zone of times that carry none, for example UTC.")] = "",
    repair: Annotated[bool, typer.Option("--repair", help="Leave bad rows out instead of refusing the file.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Let rows replace stored ones that differ.")] = False,
    json: Json = False,
) -> None:
    """Read candles, mark prices and funding from Freqtrade's Feather or JSON files, or from plain CSV and Parquet."""
    from cluster.stages import transfer as stage

    settings = settings_of(context, exchange, None, None)
    with ConsoleProgress() as progress:
        summary = stage.import_data(settings, progress, path, zone=zone, repair=repair, replace=replace)
    if json:
        typer.echo(to_json(summary))
        return
    table = Table("series", "rows", "new", "from", "to", "put right", "left out", box=None)
    for item in summary.files:
        right, out = item.reordered + item.duplicates, item.dropped + item.unfinished
        span = (day(item.start_ms), day(item.end_ms))
        table.add_row(item.series, str(item.rows), str(item.new), *span, str(right or ""), str(out or ""))
    Console().print(table)
    for text in summary.skipped:
        typer.echo(f"skipped {text}")
    typer.echo("Next: data inspect.")


def export(
    context: typer.Context,
    *,
    path: Annotated[Path, typer.Argument(help="Folder to write; give it to Freqtrade as --datadir.")],
    exchange: Exchange = None,
    pair: Pairs = None,
    timeframe: Timeframe = None,
    fmt: Annotated[str, typer.Option("--format", help="feather (Freqtrade's default) or json.")] = "feather",
    json: Json = False,
) -> None:
    """Write what is stored as Freqtrade's data folder, for its list-data, backtesting and hyperopt."""
    from cluster.stages import transfer as stage

    settings = settings_of(context, exchange, None, None)
    with ConsoleProgress() as progress:
        summary = stage.export_data(
            settings, progress, path, pairs=tuple(pair or ()), timeframe=timeframe or "", fmt=fmt
        )
    if json:
        typer.echo(to_json(summary))
        return
    for item in summary.files:
        typer.echo(f"{item.file}: {item.rows} rows, {day(item.start_ms)} to {day(item.end_ms)}")
    typer.echo(f"Next: freqtrade list-data --datadir {summary.folder}")
