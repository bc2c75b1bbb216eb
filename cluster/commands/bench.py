"""`bench`: this system's figures, each beside a peer that is measured in the same run."""

from __future__ import annotations

import json as encoder
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cluster.console import ConsoleProgress
from observability.errors import SettingsError

if TYPE_CHECKING:
    from benchmarks.figures import Figures

app = typer.Typer(help="Measure this system beside its peers, in the same run.", no_args_is_help=True)

Json = Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")]

Replay = Annotated[Path | None, typer.Option(help="Folder of real candles; default: a simulated market.")]


@app.command()
def trading(
    *,
    rounds: Annotated[int, typer.Option(min=100, help="Decisions a row.")] = 2000,
    pairs: Annotated[int, typer.Option(min=0, help="Pairs of the timed bot; 0 leaves it out.")] = 50,
    candles: Annotated[int, typer.Option(min=1, help="Candles to time.")] = 20,
    kills: Annotated[int, typer.Option(min=1, help="How often the bot is killed.")] = 3,
    virtual: Annotated[int, typer.Option(min=0, help="Candles of virtual time; 0 leaves the speed-up out.")] = 96,
    json: Json = None,
) -> None:
    """What trading costs: a decision, a candle with its forecasts up to its orders, a restart, and virtual time."""
    _run("trading", json, rounds=rounds, pairs=pairs, candles=candles, kills=kills, virtual=virtual)


@app.command()
def bias(*, json: Json = None) -> None:
    """Freqtrade's lookahead-analysis and recursive-analysis of every strategy, by its own command line; about 90 s."""
    _run("bias", json)


@app.command()
def promotion(
    *,
    seeds: Annotated[int, typer.Option(min=1, help="Markets of each kind.")] = 20,
    kinds: Annotated[str, typer.Option(help="Kinds of market, by comma.")] = "edge,noise,shuffled,labels,real",
    data: Annotated[Path | None, typer.Option(help="Real candles; else MTST_SHARED_DATA or ../shared/data.")] = None,
    rows: Annotated[Path | None, typer.Option(help="Keep each judged market here, and go on from it.")] = None,
    json: Json = None,
) -> None:
    """Whether the gate promotes a planted edge and refuses noise, seed by seed; half a minute a market and core."""
    _run("promotion", json, seeds=seeds, kinds=tuple(kinds.split(",")), data=data, rows=rows)


@app.command()
def features(
    *,
    pairs: Annotated[int, typer.Option(min=2, help="Pairs of the whole path.")] = 50,
    rows: Annotated[int, typer.Option(min=1000, help="Candles a pair.")] = 200_000,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of the columns.")] = 5,
    parts: Annotated[str, typer.Option(help="a columns, b whole path, c live update, d memory.")] = "abcd",
    json: Json = None,
) -> None:
    """What features cost: beside pandas and TA-Lib, by Ray Data beside a plain loop, live, and in memory."""
    _run("features_speed", json, pairs=pairs, rows=rows, rounds=rounds, parts=parts)


@app.command()
def backfill(
    *,
    days: Annotated[float, typer.Option(min=1, help="Days of 15m candles.")] = 240.0,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each.")] = 3,
    replay: Replay = None,
    json: Json = None,
) -> None:
    """How fast candles come in, beside a plain sequential ccxt loop."""
    _run("backfill", json, days=days, rounds=rounds, replay=replay)


@app.command("backfill-kill")
def backfill_kill(
    *,
    moments: Annotated[int, typer.Option(min=1, help="Backfills to kill.")] = 50,
    seed: Annotated[int, typer.Option(help="Draws the moments.")] = 1,
    replay: Replay = None,
    json: Json = None,
) -> None:
    """kill -9 at random moments of a backfill: is the store sound, and does a rerun end with the same content?"""
    _run("backfill_kill", json, moments=moments, seed=seed, replay=replay)


@app.command()
def risk_walk(
    *,
    events: Annotated[int, typer.Option(min=1000, help="Events in all.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Seed of the first walk.")] = 1,
    json: Json = None,
) -> None:
    """Random events against the risk manager, each approval held to every limit by a tally of its own."""
    _run("risk_walk", json, events=events, seed=seed)


@app.command("point-in-time")
def point_in_time(
    *,
    data: Annotated[Path | None, typer.Option(help="Real tables; else MTST_SHARED_DATA or ../shared/data.")] = None,
    publications: Annotated[int, typer.Option(min=1, help="Publications to spoil through the whole path.")] = 30,
    json: Json = None,
) -> None:
    """Whether any on-chain, funding or mark row is seen before it could be known, beside joins by its own stamp."""
    _run("point_in_time", json, data=data, publications=publications)


@app.command()
def ett(
    *,
    csv: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="A series of the ETT family.")],
    horizons: Annotated[str, typer.Option(help="Rows to forecast, as 96,192,336,720.")] = "96,192,336,720",
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions, for the spread.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Torch threads.")] = 1,
    epochs: Annotated[int, typer.Option(min=0, help="Fewer than the recipe's (0): a look, not a result.")] = 0,
    json: Json = None,
) -> None:
    """How accurate the network is on the field's own table, beside ridge regression and published work."""
    lengths = [int(part) for part in horizons.split(",") if part.strip().isdigit()]
    if not lengths or any(length < 1 for length in lengths):
        raise SettingsError("no horizons", where=f"--horizons {horizons}", todo="write them as 96,192")
    _run("ett", json, csv=csv, horizons=lengths, seeds=seeds, threads=threads, epochs=epochs)


@app.command()
def train(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each side.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="A side's time a turn.")] = 3.0,
    neuralforecast_python: Annotated[
        Path | None, typer.Option(exists=True, help="Interpreter of an environment that has neuralforecast.")
    ] = None,
    json: Json = None,
) -> None:
    """How fast training is, beside a plain PatchTST and neuralforecast's, and what bounds it."""
    _run("train_speed", json, rounds=rounds, seconds=seconds, neuralforecast_python=neuralforecast_python)


@app.command()
def sweep(
    *,
    trials: Annotated[int, typer.Option(min=3, help="Real trials of the overhead.")] = 4,
    parts: Annotated[str, typer.Option(help="a overhead, b packing of GPUs, c growth with trials and nodes.")] = "abc",
    json: Json = None,
) -> None:
    """What a sweep costs beside its trainings, how full it keeps GPUs, and how its cost grows; about six minutes."""
    _run("sweep_scale", json, trials=trials, parts=parts)


@app.command()
def losses(
    *,
    only: Annotated[list[str] | None, typer.Option(help="Beginning of a scenario's name; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the market.")] = 7,
    json: Json = None,
) -> None:
    """How users of Freqtrade lose money, scenario by scenario: plain Freqtrade beside ours; about five minutes."""
    _run("losses", json, only=tuple(only or ()), seed=seed)


@app.command()
def chaos(
    *,
    days: Annotated[float, typer.Option(min=0.1, help="Virtual days.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Draws what breaks, and when.")] = 1,
    replay: Replay = None,
    minutes: Annotated[float, typer.Option(min=0, help="Stop after so many real minutes; 0: never.")] = 0.0,
    json: Json = None,
) -> None:
    """Four bots live while something breaks every few virtual minutes: does any invariant break? Minutes a day."""
    _run("chaos", json, days=days, seed=seed, replay=replay, minutes=minutes)


def _run(name: str, json: Path | None, **options: Any) -> None:
    """Run `benchmarks.<name>.run(progress, **options)`, print its figures and write them."""
    try:
        module = import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        if error.name not in ("benchmarks", f"benchmarks.{name}"):
            raise
        raise SettingsError(
            "the benchmarks are not installed here", where=name, todo="run this from a checkout of the project"
        ) from error
    with ConsoleProgress() as progress:
        figures: Figures = module.run(progress, **options)
    _print(figures)
    if json is not None:
        json.write_text(encoder.dumps(figures.to_dict(), indent=2) + "\n")


def _print(figures: Figures) -> None:
    console = Console()
    table = Table("figure", "value", "peer", "ratio", "goal", "", box=None, title=figures.title)
    for row in figures.figures:
        peer = "" if row.peer is None else f"{row.peer_name} {row.peer:,.4g}"
        ratio = "" if row.ratio is None else f"{row.ratio:,.2f}"
        goal = "" if row.goal is None else f"{'<=' if row.at_most else '>='} {row.goal:g}"
        verdict = {None: "", True: "met", False: "missed"}[row.met]
        table.add_row(row.name, f"{row.value:,.4g} {row.unit}", peer, ratio, goal, f"{verdict} {row.note}".strip())
    console.print(table)
    for extra in figures.tables:
        shown = Table(*extra.columns, box=None, title=extra.title)
        for cells in extra.rows:
            shown.add_row(*cells)
        console.print(shown)
    if figures.bound:
        console.print(f"What bounds it: {figures.bound}", markup=False, highlight=False)
