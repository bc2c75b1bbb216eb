"""`data backfill` and `data follow`: from an exchange into the store, once or for as long as it runs."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cluster.commands.data_options import Exchange, Json, Pairs, settings_of
from cluster.console import ConsoleProgress, day, to_json
from cluster.settings import Settings

if TYPE_CHECKING:
    from pipelines.backfill_summary import BackfillSummary

Timeframes = Annotated[
    list[str] | None,
    typer.Option("--timeframe", help="For example 15m or 1h; may be repeated, the first is the main one."),
]
Days = Annotated[float | None, typer.Option(min=0.01, help="Days of history.")]
Url = Annotated[str | None, typer.Option(help="Address of a sandbox exchange; default: this workspace's.")]
Mark = Annotated[bool, typer.Option("--mark", help="Also the perpetuals' mark prices.")]


def backfill(
    context: typer.Context,
    *,
    exchange: Exchange = None,
    pair: Pairs = None,
    timeframe: Timeframes = None,
    days: Days = None,
    url: Url = None,
    mark: Mark = False,
    reread: Annotated[int, typer.Option(min=1, help="Newest stored candles to ask for again.")] = 100,
    verify: Annotated[bool, typer.Option("--verify", help="Read every stored file first; mend damage.")] = False,
    on_nodes: Annotated[
        bool, typer.Option("--on-nodes", help="Ask from every node of the Ray cluster: limits count by address.")
    ] = False,
    json: Json = False,
) -> None:
    """Fetch closed candles, and funding where there is any; a later run goes on where this one stopped."""
    from cluster.stages import data as stage
    from pipelines.backfill_summary import explain

    settings, frames = _asked(context, exchange, pair, timeframe, days)
    with ConsoleProgress() as progress:
        how: dict[str, Any] = {"reread": reread, "verify": verify, "on_nodes": on_nodes}
        summary = stage.backfill(settings, progress, base_url=url, kinds=_kinds(mark), timeframes=frames, **how)
    if json:
        typer.echo(to_json(summary))
        return
    Console().print(_table(summary))
    for sentence in explain(summary):
        typer.echo(sentence)


def follow(
    context: typer.Context,
    *,
    exchange: Exchange = None,
    pair: Pairs = None,
    timeframe: Timeframes = None,
    days: Days = None,
    url: Url = None,
    mark: Mark = False,
    updates: Annotated[int, typer.Option(min=0, help="Stop after so many updates; 0: at Ctrl-C.")] = 0,
    json: Json = False,
) -> None:
    """Keep the store up to date: fetch what closed, after every close, until Ctrl-C."""
    from cluster.stages import following as stage
    from pipelines.candles import iso

    settings, frames = _asked(context, exchange, pair, timeframe, days)
    stop = Event()
    what = stage.Following(kinds=_kinds(mark), timeframes=frames, updates=updates)
    with ConsoleProgress() as progress:

        def told(done: BackfillSummary) -> None:
            newest = max((item.end_ms for item in done.series if item.kind == "ohlcv"), default=0)
            revised = sum(item.revised for item in done.series)
            progress.say(f"{done.new_rows} new, {revised} revised; newest candle opened {iso(newest)}")

        summary = stage.FollowSummary()
        try:
            stage.follow(settings, what, stop, base_url=url, told=told, summary=summary)
        except KeyboardInterrupt:
            stop.set()  # the usual end: nothing is lost, each update was whole
    if json:
        typer.echo(to_json(summary))
        return
    typer.echo(
        f"{summary.updates} updates in {summary.seconds:.0f} s: {summary.new_rows} new rows, {summary.revised} revised."
    )
    if summary.failed:
        typer.echo(f"{summary.failed} updates failed, the last because: {summary.last_error}")
    typer.echo("The store is whole. Next: data inspect, or data follow again.")


def _asked(
    context: typer.Context, exchange: str | None, pairs: list[str] | None, frames: list[str] | None, days: float | None
) -> tuple[Settings, tuple[str, ...]]:
    settings = settings_of(context, exchange, pairs, frames[0] if frames else None, history_days=days)
    return settings, tuple(frames or (settings.market.timeframe,))


def _kinds(mark: bool) -> tuple[str, ...]:
    return ("ohlcv", "funding", "mark") if mark else ("ohlcv", "funding")


def _table(summary: BackfillSummary) -> Table:
    table = Table("kind", "series", "rows", "new", "missing", "from", "to", box=None)
    table.columns[1].no_wrap = True
    for item in (item for item in summary.series if item.rows):
        name = f"{item.pair} {item.timeframe}".strip()
        counts = (f"{item.rows:,}", f"{item.new_rows:,}", str(item.missing))
        table.add_row(item.kind, name, *counts, day(item.start_ms), day(item.end_ms))
    return table
