"""`data inspect`: what is stored, and what is odd about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.commands.data_options import Json
from cluster.console import ConsoleProgress, day, to_json
from cluster.settings import Settings

if TYPE_CHECKING:
    from cluster.stages.inspection import DataReport

PAGE = "data.html"
_TOLD = 12


def inspect(
    context: typer.Context,
    *,
    page: Annotated[Path | None, typer.Option(help="Where to write the page; default: var/data.html.")] = None,
    json: Json = False,
) -> None:
    """Coverage, gaps, outliers, staleness and drift of everything stored, printed and as one HTML page."""
    from cluster.data_page import write_data_page
    from cluster.stages import inspection as stage

    settings: Settings = context.obj
    with ConsoleProgress() as progress:
        report = stage.inspect(settings, progress, features=True)
        path = write_data_page(page or settings.workspace.var / PAGE, report)
        report = replace(report, page=str(path.absolute()))
    if json:
        # The single delays are the picture's; their summary is in `slow`.
        typer.echo(to_json(replace(report, series=tuple(replace(item, delays=()) for item in report.series))))
        return
    if not report.series:
        typer.echo("Nothing is stored yet. Next: data backfill")
        return
    _tables(report)
    for text in report.findings[:_TOLD]:
        typer.echo(f"- {text}")
    if len(report.findings) > _TOLD:
        typer.echo(f"- and {len(report.findings) - _TOLD} more findings on the page")
    typer.echo("gaps: holes in time; idle: candles without a trade; jumps: prices far off.")
    typer.echo(f"Page: {report.page}")
    typer.echo("Next: data features" if report.features is None else "Next: train sweep")


def _tables(report: DataReport) -> None:
    # One table an exchange: in one for all, the names would be cut on a narrow terminal.
    for exchange in sorted({item.exchange for item in report.series}):
        head = ("kind", "series", "rows", "from", "to", "whole", "gaps", "idle", "jumps")
        table = Table(*head, title=exchange, title_justify="left", box=None, padding=(0, 1, 0, 0))
        for item in (item for item in report.series if item.exchange == exchange):
            found = item.report
            facts = (
                (f"{found.coverage:.2%}", str(len(found.gaps)), str(found.zero_volume), str(len(found.outliers)))
                if found is not None
                else ("", str(item.slow.holes) if item.slow else "", "", "")
            )
            name = f"{item.pair} {item.timeframe}".strip()
            table.add_row(item.kind, name, str(item.rows), day(item.start_ms), day(item.end_ms), *facts)
        Console().print(table)
