"""`trade reconcile`: do a bot's database, the journal, the exchange and the risk manager agree right now?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from cluster.console import to_json

if TYPE_CHECKING:
    from trading.reconciliation import BotReconciliation


def reconcile(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare every bot's database, the journal, the exchange and what is reserved, now; exit 1 when they differ."""
    from cluster.stages.running_fleet import fleet_session
    from cluster.stages.trade import find_fleet
    from trading.adapters import fleet_reconcile

    with fleet_session(context.obj):
        found = fleet_reconcile.reconcile(find_fleet(context.obj))
    if json:
        typer.echo(to_json(found))
    else:
        _show(found)
    raise typer.Exit(0 if all(each.agrees for each in found) else 1)


def _show(found: Sequence[BotReconciliation]) -> None:
    table = Table("", "bot", "orders", "holdings", "resting", "reserved", "books", box=None, padding=(0, 1))
    for each in found:
        mark = "[green]agree[/]" if each.agrees else f"[red]{len(each.differences)} differ[/]"
        counts = (each.orders, each.holdings, each.resting, each.reservations)
        table.add_row(mark, each.bot, *map(str, counts), ", ".join(each.books))
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    for each in found:
        for difference in each.differences:
            where = " ".join(filter(None, (each.bot, difference.kind, difference.pair, difference.order)))
            console.print(f"{where}: {difference.what}\n  -> {difference.rule}", markup=False)
