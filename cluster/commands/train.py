"""`train`: search for a model, judge it, decide whether it may trade."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.console import ConsoleProgress, to_json
from cluster.settings import Settings

app = typer.Typer(help="Search for a model, judge it, decide whether it may trade.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def sweep(
    context: typer.Context,
    *,
    trials: Annotated[int | None, typer.Option(min=1, help="Configurations to try.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of a trial that is not ended early.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of search and training.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="asha ends weak trials early, pbt trains a population, none is repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a sweep that was cut off.")] = False,
    json: Json = False,
) -> None:
    """Try configurations on the Ray cluster; MLflow records all of them."""
    from cluster.stages import train as stage

    given = {"trials": trials, "max_epochs": epochs, "seed": seed, "scheduler": scheduler}
    settings: Settings = context.obj
    settings = settings.changed(sweep={name: value for name, value in given.items() if value is not None})
    with ConsoleProgress() as progress:
        result = stage.sweep(settings, progress, resume=resume)
    if json:
        typer.echo(to_json(result))
        return
    table = Table("trial", "outcome", "epochs", "loss", "better than volatility alone", "seconds", box=None)
    for row in result.trials:
        numbers = (str(row.epochs), f"{row.loss:.4f}", f"{row.skill:+.2%}", f"{row.seconds:.0f}")
        table.add_row(row.trial_id, row.outcome, *numbers)
    Console().print(table)
    spent = result.budget
    typer.echo(
        f"Spent: {spent.epochs} of {spent.planned_epochs} epochs ({spent.pruned} trials ended early, {spent.failed} "
        f"failed), {spent.trial_seconds:.0f} s in trials, {spent.seconds:.0f} s in all."
    )
    if result.importance:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in result.importance.items())
        typer.echo(f"What the losses differ by: {shares}.")
    typer.echo(f"Best loss {result.best_loss:.4f}, untrained {result.base_loss:.4f}.")
    typer.echo("Next: train evaluate.")


@app.command()
def evaluate(
    context: typer.Context,
    *,
    short: Annotated[bool, typer.Option("--short", help="Without the slow baselines, GARCH and DLinear.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers that train each model together, for one too big for one.")
    ] = None,
    json: Json = False,
) -> None:
    """Judge the best configuration by walk-forward against baselines; fit and pack the model for use."""
    from cluster.stages import train as stage

    settings: Settings = context.obj
    if workers is not None:
        settings = settings.changed(sweep={"workers_per_fit": workers})
    with ConsoleProgress() as progress:
        summary = stage.evaluate(settings, progress, short=short)
    if json:
        typer.echo(to_json(summary))
        return
    table = Table("forecaster", "loss", "mtst is better by", "chance that this is luck", box=None)
    for name, loss in sorted(summary.losses.items(), key=lambda item: item[1]):
        better = f"{summary.improvements[name]:+.2%}" if name in summary.improvements else ""
        luck = f"{summary.p_values[name]:.3f}" if name in summary.p_values else ""
        table.add_row(name, f"{loss:.5f}", better, luck)
    Console().print(table)
    returns = ", ".join(f"{name} {value:+.2%}" for name, value in summary.net_returns.items())
    typer.echo(f"Net returns after costs on {summary.windows} unseen windows: {returns}.")
    if summary.absent:
        typer.echo(f"Without {' and '.join(summary.absent)}: the store has none that span the candles.")
    typer.echo(f"Artifact {summary.version} in {summary.artifact}. Next: train promote.")


@app.command()
def promote(
    context: typer.Context,
    *,
    roll_back: Annotated[bool, typer.Option("--roll-back", help="Make the previous champion champion again.")] = False,
    json: Json = False,
) -> None:
    """Decide, in words, whether the newest model may trade, and register it as champion or shadow."""
    from cluster.stages import train as stage

    with ConsoleProgress() as progress:
        summary = stage.roll_back(context.obj) if roll_back else stage.promote(context.obj, progress)
    if json:
        typer.echo(to_json(summary))
        return
    for reason in summary.reasons:
        typer.echo(f"{'passed' if reason.passed else 'FAILED'}  {reason.text}")
    typer.echo(f"{summary.name} version {summary.number} ({summary.version}): {summary.status}.")
    if summary.card is not None:
        typer.echo(f"Its card: {summary.card}")
    typer.echo("Next: serve up.")


@app.command()
def retrain(
    context: typer.Context,
    *,
    every: Annotated[str, typer.Option(help="Time between two rounds, such as 1d, 12h or 30m.")] = "1d",
    rounds: Annotated[int, typer.Option(min=0, help="End after so many rounds; 0 goes on until Ctrl-C.")] = 0,
    only_round: Annotated[int, typer.Option(hidden=True, help="Make the round of this number, here.")] = 0,
    json: Json = False,
) -> None:
    """Fetch, search, judge and decide on a schedule: a challenger takes over only when it clears every bar."""
    from threading import Event

    from cluster.stages import retrain as stage
    from observability.only_one import only_one
    from pipelines.candles import timeframe_ms

    settings, pace = context.obj, timeframe_ms(every) / 1000
    if only_round:
        with ConsoleProgress() as progress:
            typer.echo(to_json(stage.retrain_once(settings, progress, only_round)))
        return

    def run(number: int) -> stage.Round:
        return stage.retrain_apart([*sys.argv[1:], "--only-round", str(number)], number)

    def told(done: stage.Round) -> None:
        typer.echo(to_json(done) if json else f"Round {done.number} at {done.started} UTC: {done.status}. {done.text}")

    record = settings.workspace.var / stage.RECORD
    with only_one(settings.workspace.run_dir / "retrain.lock", "a schedule of retraining"):
        stage.retrain(run, every_s=pace, rounds=rounds, wait=Event().wait, told=told, record=record)
