"""Options that the `data` commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Exchange = Annotated[str | None, typer.Option(help="`sandbox`, or any ccxt id such as binance.")]
Pairs = Annotated[list[str] | None, typer.Option("--pair", help="A pair such as BTC/USDT; may be repeated.")]
Timeframe = Annotated[str | None, typer.Option(help="For example 15m or 1h.")]


def settings_of(
    context: typer.Context,
    exchange: str | None,
    pairs: list[str] | None,
    timeframe: str | None,
    **more: float | None,
) -> Settings:
    """The settings with what was given on the command line."""
    given = {"exchange": exchange, "pairs": tuple(pairs) if pairs else None, "timeframe": timeframe, **more}
    settings: Settings = context.obj
    return settings.changed(market={name: value for name, value in given.items() if value is not None})
