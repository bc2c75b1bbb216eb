"""`data enrich`: on-chain metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.data_options import Json
from cluster.console import ConsoleProgress, day, to_json
from cluster.settings import Settings


def enrich(
    context: typer.Context,
    *,
    path: Annotated[Path | None, typer.Argument(help="File, or folder of files named BTC.parquet.")] = None,
    delay_hours: Annotated[
        float | None, typer.Option(min=24, help="Publication delay to assume for files that tell none.")
    ] = None,
    json: Json = False,
) -> None:
    """Import on-chain metrics; a row is used only from the time on at which it was published."""
    from datetime import timedelta

    from cluster.stages import enrichment as stage

    settings: Settings = context.obj if path is None else context.obj.changed(market={"onchain": path})
    delay = None if delay_hours is None else timedelta(hours=delay_hours)
    with ConsoleProgress() as progress:
        summary = stage.enrich(settings, progress, assumed_delay=delay)
    if json:
        typer.echo(to_json(summary))
        return
    for item in summary.imported:
        span = f"{day(item.start_ms)} to {day(item.end_ms)}"
        typer.echo(f"{item.asset}: {item.rows} days, {span}, {', '.join(item.metrics)}")
    for text in summary.skipped:
        typer.echo(f"skipped: {text}")
    if not summary.imported and not summary.skipped:
        typer.echo("No on-chain files found. Name one: data enrich FILE")
