"""`trade`: bots that trade behind the risk manager."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.commands.trade_backtest import backtest, report
from cluster.commands.trade_reconcile import reconcile
from cluster.console import ConsoleProgress, to_json
from cluster.kill_switch import ANSWER_S, pull
from cluster.settings import Settings
from observability.errors import TradingError
from trading.kill_switch import Verb

app = typer.Typer(help="Run Freqtrade bots behind the risk manager; halt, resume and watch them.", no_args_is_help=True)
app.command()(backtest)
app.command()(report)
app.command()(reconcile)
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Wait = Annotated[float, typer.Option(min=0.0, help="Seconds to wait for answers; it is in force before.")]
Who = Annotated[str, typer.Option(help="Your name, for the journal.")]


class Mode(StrEnum):
    """What happens to orders."""

    DRY_RUN = "dry-run"
    LIVE = "live"


@app.command()
def up(
    context: typer.Context,
    *,
    exchange: Annotated[str | None, typer.Option(help="sandbox (play money) or binance.")] = None,
    mode: Annotated[Mode | None, typer.Option(help="On a real exchange: dry-run (default) or live.")] = None,
    strategy: Annotated[list[str] | None, typer.Option(help="Name in docs/strategies.md; may be repeated.")] = None,
    key_file: Annotated[Path | None, typer.Option(help='Exchange key {"key", "secret"}, mode 0600.')] = None,
    forecast_url: Annotated[str, typer.Option(help="Address of the served model; found by itself here.")] = "",
    forecast_token_file: Annotated[Path | None, typer.Option(help="File with its bearer token.")] = None,
    yes: Annotated[bool, typer.Option("--yes-i-trade-real-money", help="Confirm live trading.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Leave them on the running cluster.")] = False,
    show_config: Annotated[bool, typer.Option(help="Print Freqtrade's effective configuration, masked.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two status lines.")] = 10.0,
    json: Json = False,
) -> None:
    """Start the bots; stays in the foreground until Ctrl-C unless --detach. Positions stay open when it ends."""
    from cluster.stages import trade as stage
    from cluster.stages.bots import Forecasts
    from cluster.stages.real_money import allow_real_money

    settings = _settings(context, exchange, mode, strategy, key_file)
    if settings.market.exchange != "sandbox":
        typer.echo(to_json(stage.effective_configs(settings)), err=True)  # what will trade is seen before it does
        allow_real_money(settings, yes=yes, ask=lambda text: str(typer.prompt(text, prompt_suffix="")))
    forecasts = Forecasts(forecast_url, forecast_token_file)
    with ConsoleProgress() as progress, stage.trading(settings, progress, forecasts, detached=detach) as fleet:
        if show_config:
            for spec in fleet.bots.values():
                typer.echo(to_json(stage.effective_config(spec)))
        if detach:
            found = stage.status(fleet)
            typer.echo(to_json(found) if json else f"{_lines(found)}\nNext: trade status; end them with trade down.")
            return
        stage.watch(fleet, every, lambda found: typer.echo(to_json(found) if json else _lines(found)))


@app.command()
def config(
    context: typer.Context,
    *,
    exchange: Annotated[str | None, typer.Option(help="sandbox (play money) or binance.")] = None,
    mode: Annotated[Mode | None, typer.Option(help="On a real exchange: dry-run (default) or live.")] = None,
    strategy: Annotated[list[str] | None, typer.Option(help="Name in docs/strategies.md; may be repeated.")] = None,
    key_file: Annotated[Path | None, typer.Option(help='Exchange key {"key", "secret"}, mode 0600.')] = None,
) -> None:
    """Print the configuration that Freqtrade would see, layers merged, secrets masked; starts nothing."""
    from cluster.stages import trade as stage

    typer.echo(to_json(stage.effective_configs(_settings(context, exchange, mode, strategy, key_file))))


@app.command()
def down(context: typer.Context, json: Json = False) -> None:
    """Stop the bots of this workspace in order; positions stay open, with the stops that rest on the exchange."""
    from cluster.stages import trade as stage
    from cluster.stages.running_fleet import end_actors, fleet_session

    with fleet_session(context.obj):
        try:
            fleet = stage.find_fleet(context.obj)
        except TradingError:
            end_actors(context.obj)
            raise
        last = stage.stop_fleet(context.obj, fleet)
    typer.echo(to_json(last) if json else _farewell(last))


@app.command()
def status(context: typer.Context, json: Json = False) -> None:
    """Show the trading state and every bot."""
    from cluster.stages import trade as stage
    from cluster.stages.running_fleet import fleet_session

    with fleet_session(context.obj):
        found = stage.status(stage.find_fleet(context.obj))
    typer.echo(to_json(found) if json else _lines(found))


@app.command()
def halt(
    context: typer.Context,
    *,
    reason: Annotated[str, typer.Option(help="Why, for the journal.")] = "",
    who: Who = "",
    close: Annotated[bool, typer.Option("--close-positions", help="Also close every open position.")] = False,
    wait: Wait = ANSWER_S,
    json: Json = False,
) -> None:
    """Refuse every new entry until `resume`; exits and stops go on. Needs neither Ray nor a living bot."""
    _pull(context, "flatten" if close else "halt", who, reason or "halt by hand", wait, json)


@app.command()
def flatten(
    context: typer.Context,
    *,
    reason: Annotated[str, typer.Option(help="Why, for the journal.")] = "",
    who: Who = "",
    wait: Wait = ANSWER_S,
    json: Json = False,
) -> None:
    """Have every bot close what it holds, and refuse every new entry until `resume`; tells what is left open."""
    _pull(context, "flatten", who, reason or "flatten by hand", wait, json)


@app.command()
def resume(
    context: typer.Context,
    *,
    reason: Annotated[str, typer.Option(help="Why, for the journal.")] = "",
    who: Who = "",
    rebase: Annotated[bool, typer.Option("--rebase", help="Count drawdown and losses anew from here.")] = False,
    wait: Wait = ANSWER_S,
    json: Json = False,
) -> None:
    """Lift a halt; it takes effect once every account's books agree."""
    _pull(context, "resume", who, reason or "resume by hand", wait, json, rebase=rebase)


def _settings(
    context: typer.Context,
    exchange: str | None,
    mode: Mode | None,
    strategies: list[str] | None,
    key_file: Path | None,
) -> Settings:
    """The settings with what was given on the command line."""
    values = {
        "mode": mode.value if mode else None,
        "strategies": tuple(strategies) if strategies else None,
        "key_file": key_file,
    }
    settings: Settings = context.obj
    return settings.changed(
        trade={name: value for name, value in values.items() if value is not None},
        market={"exchange": exchange} if exchange else {},
    )


def _pull(  # noqa: PLR0917 - the options of a command
    context: typer.Context, verb: Verb, who: str, reason: str, wait: float, json: bool, *, rebase: bool = False
) -> None:
    found = pull(context.obj.workspace.var, verb, who, reason, rebase=rebase, wait_s=wait)
    typer.echo(to_json(found) if json else found.lines)


def _farewell(last: Mapping[str, Any]) -> str:
    """Who has stopped, and what each leaves behind, which from now on only its stops on the exchange watch."""
    lines = [f"Stopped {', '.join(last)}."]
    lines += [f"  {name} leaves {', '.join(bot.open_trades)} open" for name, bot in last.items() if bot.open_trades]
    if len(lines) > 1:
        lines.append(
            "Live ones keep their stops on the exchange, and nothing else watches them: trade up goes on with them."
        )
    return "\n".join(lines)


def _trades(bot: Any) -> str:
    """What a bot's database says; of one that is away, that it is, and what it said last."""
    pairs = ", ".join(bot.open_trades)
    if bot.database:
        return f"alive, but {bot.database} (open when it was read last: {pairs or 'unknown'})"
    return f"open {pairs or 'nothing'}, {bot.closed_trades} closed for {bot.profit:+.2f}, {bot.orders} orders"


def _lines(found: Any) -> str:
    lines = [f"Trading is {found.state}: {found.reason} ({found.who})."]
    for bot in found.bots:
        refused = ", ".join(f"{code} {count}" for code, count in sorted((bot.refusals or {}).items()))
        trouble = f"; refused: {refused}" if refused else ""
        trouble += f"; replaced {bot.replaced} times" if bot.replaced else ""
        trouble += f"; {bot.last_error}" if bot.last_error else ""
        equity = f"{bot.equity:.2f}" if bot.equity else "unknown"
        lines.append(f"  {bot.name}: {bot.phase}, equity {equity}, {_trades(bot)}{trouble}")
    lines += [f"  {name}: its legs are {phase}" for name, phase in sorted(found.legs.items())]
    return "\n".join([*lines, *([f"Note: {found.note}."] if found.note else [])])
