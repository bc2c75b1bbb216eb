"""`data enrich`: on-chain metrics, each with the time from which on it was known."""

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
    asset: Annotated[str, typer.Option(help="Whose metrics one file holds, when its name does not say so.")] = "",
    glassnode_key: Annotated[
        Path | None, typer.Option(help="File with a Glassnode API key, mode 0600; default: glassnode.key_file.")
    ] = None,
    json: Json = False,
) -> None:
    """Bring in on-chain metrics from files and Glassnode; a value counts from the time at which it was known."""
    from datetime import timedelta

    from cluster.stages import enrichment as stage

    settings: Settings = context.obj if path is None else context.obj.changed(market={"onchain": path})
    if glassnode_key is not None:
        settings = settings.changed(glassnode={"key_file": glassnode_key})
    delay = None if delay_hours is None else timedelta(hours=delay_hours)
    with ConsoleProgress() as progress:
        summary = stage.enrich(settings, progress, asset=asset, assumed_delay=delay)
    if json:
        typer.echo(to_json(summary))
        return
    for item in summary.imported:
        span = f"{day(item.start_ms)} to {day(item.end_ms)}"
        assumed = f", {item.assumed} with an assumed time of publication" if item.assumed else ""
        typer.echo(
            f"{item.source} {item.asset}: {item.rows} rows, {span}{assumed}: {item.note or ', '.join(item.metrics)}"
        )
    for text in summary.skipped:
        typer.echo(f"skipped: {text}")
    if not summary.imported and not summary.skipped:
        typer.echo("No on-chain files found, and no Glassnode key. Name one: data enrich FILE")
