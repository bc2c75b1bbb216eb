"""`cluster`: a Ray head on this machine, and jobs on it."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.console import ConsoleProgress, to_json

app = typer.Typer(help="Start, stop and ask the Ray cluster; run any command on it as a job.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def up(context: typer.Context, json: Json = False) -> None:
    """Start a Ray head on loopback, with token authentication, that outlives this command."""
    from cluster.stages import cluster as stage

    with ConsoleProgress() as progress:
        status = stage.up(context.obj, progress)
    if json:
        typer.echo(to_json(status))
        return
    token = context.obj.cluster.token_file or context.obj.workspace.secrets / "ray.token"
    typer.echo(f"Ray runs at {status.address} with {status.cpus:g} CPUs and {status.gpus:g} GPUs.")
    typer.echo(f"Dashboard {status.dashboard_url} (paste the token from {token}).")
    typer.echo("Next: cluster submit train sweep, or train sweep, which now runs there.")


@app.command()
def down(context: typer.Context, json: Json = False) -> None:
    """Stop the head and everything that runs on it."""
    from cluster.stages import cluster as stage

    stopped = stage.down(context.obj)
    typer.echo(to_json({"stopped": stopped}) if json else ("Stopped." if stopped else "No Ray head runs here."))


@app.command()
def status(context: typer.Context, json: Json = False) -> None:
    """Say whether the head runs tasks, and what it has."""
    from cluster.stages import cluster as stage

    found = stage.status(context.obj)
    if json:
        typer.echo(to_json(found))
    elif found.running:
        typer.echo(f"Ray runs at {found.address}: {found.nodes} node(s), {found.cpus:g} CPUs, {found.gpus:g} GPUs.")
    else:
        typer.echo("No Ray head runs in this workspace. Start one: cluster up")
    raise typer.Exit(0 if found.running else 1)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}
)
def submit(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(help="A command of this program, such as: train sweep --trials 16")],
    json: Annotated[
        bool, typer.Option("--json", help="Before the command: print how the job ended as JSON, its output on stderr.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Before the command: start the job, print its id and leave it alone.")
    ] = False,
) -> None:
    """Run a command of this program as a Ray job, show its output, and exit with its exit code."""
    from cluster.stages import cluster as stage

    words = [*command, *context.args]
    if detach:
        job = stage.start_job(context.obj, words)
        typer.echo(to_json({"job_id": job}) if json else f"job {job} runs. Next: cluster jobs, cluster stop {job}.")
        return
    result = stage.submit(context.obj, words, lambda line: typer.echo(line, err=json))
    if json:
        typer.echo(to_json(result))
    else:
        typer.echo(f"job {result.job_id}: {result.status.lower()}, exit code {result.exit_code}", err=True)
    raise typer.Exit(result.exit_code)


@app.command()
def jobs(context: typer.Context, json: Json = False) -> None:
    """List the jobs that the head knows, the newest first."""
    from cluster.stages import cluster as stage

    found = stage.jobs(context.obj)
    if json:
        typer.echo(to_json(found))
        return
    for job in found:
        typer.echo(f"{job.job_id}  {job.status.lower():9}  {job.command}")


@app.command()
def stop(
    context: typer.Context, job: Annotated[str, typer.Argument(help="As `cluster jobs` names it.")], json: Json = False
) -> None:
    """End a job, with everything that it started."""
    from cluster.stages import cluster as stage

    stopped = stage.stop_job(context.obj, job)
    typer.echo(to_json({"stopped": stopped}) if json else ("Stopping." if stopped else "It had ended."))
