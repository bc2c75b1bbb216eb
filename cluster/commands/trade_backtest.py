"""`trade backtest` and `trade report`: what a strategy would have done, and what the bots did."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cluster.commands.data_options import Exchange, Json, Pairs, Timeframe, settings_of
from cluster.console import ConsoleProgress, day, to_json

Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="UTC.")]


def backtest(
    context: typer.Context,
    strategy: Annotated[str, typer.Argument(help="nn_predictor, swing, scalp or stat_arb.")],
    *,
    candles: Annotated[Path | None, typer.Option(help="Folder of PAIR-TIMEFRAME.parquet; default: the store.")] = None,
    forecasts: Annotated[Path | None, typer.Option(help="Out-of-sample forecasts; default: the newest.")] = None,
    exchange: Exchange = None,
    pair: Pairs = None,
    timeframe: Timeframe = None,
    since: Day = None,
    until: Day = None,
    cost: Annotated[float, typer.Option(min=0.0, max=0.1, help="Fee and slippage of one side.")] = 0.0012,
    resume_after: Annotated[float, typer.Option(min=0.0, help="Hours until a breaker is lifted; 0: never.")] = 24.0,
    out: Annotated[Path | None, typer.Option(help="Folder of the result.")] = None,
    json: Json = False,
) -> None:
    """Trade a strategy over the past: Freqtrade's engine, forecasts out of sample only, the same risk manager."""
    from cluster.stages import backtest as stage

    settings = settings_of(context, exchange, pair, timeframe)
    options = stage.BacktestOptions(
        strategy=strategy,
        candles=candles,
        forecasts=forecasts,
        cost=cost,
        since_ms=_ms(since),
        until_ms=_ms(until),
        resume_after_h=resume_after,
        out=out,
    )
    with ConsoleProgress() as progress:
        summary = stage.backtest(settings, options, progress)
    if json:
        typer.echo(to_json(summary))
        return
    typer.echo(summary.text)
    table = Table("", "", box=None, show_header=False)
    rows = {
        "candles": f"{summary.candles:,} of {summary.timeframe}, {day(summary.since_ms)} to {day(summary.until_ms)}",
        "equity": f"{summary.start_equity:,.2f} to {summary.end_equity:,.2f} ({summary.profit_ratio:+.2%})",
        "drawdown": f"{summary.max_drawdown:.2%}",
        "exposure": f"{summary.mean_exposure:.1%} of equity on average",
        "trades": f"{summary.trades}, {summary.wins} of them won",
        "costs": f"{summary.fees:,.2f} on a turnover of {summary.turnover:,.0f}",
        "holding the pairs": f"{summary.hold_ratio:+.2%}",
        "decisions": _counts(summary.by_rule),
        "breakers": f"tripped {summary.breakers} times, lifted {summary.resumed} times",
        "report": str(summary.report),
    }
    for name, text in rows.items():
        table.add_row(name, text)
    Console().print(table)


def report(
    context: typer.Context,
    *,
    folder: Annotated[Path | None, typer.Option(help="Folder of a backtest; default: this workspace's bots.")] = None,
    out: Annotated[Path | None, typer.Option(help="File of the page.")] = None,
    json: Json = False,
) -> None:
    """Equity, drawdown, exposure, decisions, slippage and costs, by strategy and pair: a table and a page."""
    from cluster.stages import trade_report as stage

    found = stage.report(context.obj, folder=folder, out=out)
    if json:
        typer.echo(to_json(found))
        return
    head = ("bot", "pair", "trades", "won", "realised", "fees", "slippage", "exit gap", "turnover")
    table = Table(*head, box=None, padding=(0, 1, 0, 0))
    for row in found.accounts:
        typer.echo(
            f"{row.bot}: {row.since} to {row.until}, equity {row.equity:,.2f} ({row.profit_ratio:+.2%}), deepest "
            f"drawdown {row.max_drawdown:.2%}, mean exposure {row.mean_exposure:.1%}"
        )
        for name, each in row.pairs.items():
            table.add_row(row.bot, name, *_figures(each, each.profit))
        table.add_row(row.bot, "all", *_figures(row, row.realised))
    Console().print(table)
    typer.echo(f"decisions: {_counts(found.by_rule)}\npage: {found.page}")


def _figures(row: Any, profit: float) -> tuple[str, ...]:
    money = (f"{value:,.2f}" for value in (profit, row.fees, row.slippage, row.exit_gap))
    return (str(row.trades), str(row.wins), *money, f"{row.turnover:,.0f}")


def _counts(by_rule: Any) -> str:
    return ", ".join(f"{code} {count}" for code, count in by_rule.items()) or "none"


def _ms(moment: datetime | None) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp() * 1000) if moment is not None else 0
