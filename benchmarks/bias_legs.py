"""Does a leg of an arbitrage read candles? What it does is the coordinator's word, and that comes of order books.

Freqtrade's lookahead-analysis has nothing to try on it: a backtest has no coordinator, so a leg enters nothing there.
What can be tried is that nothing which it tells Freqtrade depends on candles, past or future.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from trading.arbitrage.coordinator import LegName, Phase
from trading.arbitrage.standing import Advice, Verb

VERBS: tuple[Verb | None, ...] = (None, "open", "hold", "close")


def columns(table: pl.DataFrame, leg: LegName, verb: Verb | None) -> Any:
    """Everything that a leg adds to these candles (a pandas frame), told so by its coordinator; None: nothing heard."""
    from trading.adapters.strategies.arbitrage_leg import ArbitrageLeg

    pair = "BTC/USDT:USDT" if leg == "b" else "BTC/USDT"
    strategy = ArbitrageLeg({"mtst": {"leg": leg}, "exchange": {"pair_whitelist": [pair]}})
    strategy.dp = None
    strategy._advice = None if verb is None else Advice(verb, Phase.OPENING, 1.0)
    given = table.rename({"timestamp": "date"}).to_pandas()
    found = strategy.populate_indicators(given.copy(), {"pair": pair})
    for step in (strategy.populate_entry_trend, strategy.populate_exit_trend):
        found = step(found, {"pair": pair})
    assert strategy.problems == {}
    return found.drop(columns=list(given.columns))


def depending(first: pl.DataFrame, other: pl.DataFrame, leg: LegName) -> list[str]:
    """Columns of a leg that differ between two tables of candles at the same times, whatever it was told."""
    found = set()
    for verb in VERBS:
        one, two = columns(first, leg, verb), columns(other, leg, verb)
        found |= {
            name for name in {*one, *two} if name not in one or name not in two or not one[name].equals(two[name])
        }
    return sorted(found)
