"""`data inspect`: what is stored, and what is odd about it."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.table import Table

from cluster.commands.data_options import Json
from cluster.console import ConsoleProgress, day, to_json


def inspect(context: typer.Context, json: Json = False) -> None:
    """Coverage, gaps and outliers of everything stored."""
    from cluster.stages import inspection as stage

    with ConsoleProgress() as progress:
        report = stage.inspect(context.obj, progress)
    if json:
        typer.echo(to_json(report))
        return
    # One table an exchange: in one for all, the names would be cut on a narrow terminal.
    for exchange in sorted({item.exchange for item in report.series}):
        head = ("kind", "series", "rows", "from", "to", "whole", "gaps", "idle", "jumps")
        table = Table(*head, title=exchange, title_justify="left", box=None, padding=(0, 1, 0, 0))
        for item in (item for item in report.series if item.exchange == exchange):
            found = item.report
            facts = (
                (f"{found.coverage:.2%}", str(len(found.gaps)), str(found.zero_volume), str(len(found.outliers)))
                if found is not None
                else ("", "", "", "")
            )
            name = f"{item.pair} {item.timeframe}".strip()
            span = (day(item.start_ms), day(item.end_ms))
            table.add_row(item.kind, name, str(item.rows), *span, *facts)
        Console().print(table)
    if not report.series:
        typer.echo("Nothing is stored yet. Next: data backfill")
    else:
        typer.echo("gaps: holes in time; idle: candles without a trade; jumps: prices far off. Next: data features")
