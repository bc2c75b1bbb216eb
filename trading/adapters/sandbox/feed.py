"""What clients are shown of the market: the truth, or what planned faults make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from trading.adapters.sandbox.faults import Faults, FeedFault, Planned
from trading.adapters.sandbox.klines import Klines
from trading.adapters.sandbox.rules import SymbolRules

Row = list[Any]
OPEN, HIGH, LOW, CLOSE, VOLUME, CLOSES_AT = 1, 2, 3, 4, 5, 6


class Feed:
    """Candles and prices as they are seen from outside."""

    def __init__(self, klines: Klines, faults: Faults, rules: Mapping[str, SymbolRules]) -> None:
        self._klines, self._faults, self._rules = klines, faults, rules

    def seen_ms(self, pair: str, now_ms: int) -> int:
        """The time whose prices of a pair are shown now: earlier than now while its feed is frozen."""
        frozen = self._lies("frozen_feed", pair, now_ms)
        return now_ms if frozen is None else min(now_ms, frozen.since_ms)

    def rows(self, pair: str, interval: str, now_ms: int, **wanted: Any) -> bytes:
        """`Klines.rows` with the faults that lie on the pair."""
        seen = self.seen_ms(pair, now_ms)
        stale = self._lies("stale_candles", pair, now_ms)
        if stale is not None and isinstance(stale.fault, FeedFault):
            seen -= stale.fault.lag_ms
        rows = self._klines.rows(pair, interval, seen, **wanted)
        for kind in ("revised_candles", "garbage_candles"):
            planned = self._lies(kind, pair, now_ms)
            if planned is not None and isinstance(planned.fault, FeedFault):
                rows = orjson.dumps(_distorted(planned.fault, orjson.loads(rows), now_ms))
        return rows

    def _lies(self, kind: str, pair: str, now_ms: int) -> Planned | None:
        return self._faults.feed(kind, self._rules[pair].name, now_ms)


def _distorted(fault: FeedFault, rows: list[Row], now_ms: int) -> list[Row]:
    if fault.kind == "revised_candles":
        return [_unsettled(row) if now_ms - fault.lag_ms < row[CLOSES_AT] < now_ms else row for row in rows]
    if not -len(rows) <= fault.row < len(rows):
        return rows
    place = fault.row % len(rows)
    return _MOVES[fault.how](rows, place) if fault.how in _MOVES else _replaced(fault.how, rows, place)


def _unsettled(row: Row) -> Row:
    """The candle before its late trades came in: it closed at its middle, and on less volume."""
    middle = (float(row[HIGH]) + float(row[LOW])) / 2
    decimals = len(str(row[CLOSE]).partition(".")[2])
    return [*row[:CLOSE], f"{middle:.{decimals}f}", f"{0.8 * float(row[VOLUME]):.8f}", *row[CLOSES_AT:]]


def _replaced(how: str, rows: list[Row], place: int) -> list[Row]:
    row = list(rows[place])
    if how == "nan":
        row[CLOSE] = "NaN"
    elif how == "zero":
        row[LOW] = row[CLOSE] = "0.00000000"
    elif how == "negative":
        row[VOLUME] = "-1.00000000"
    elif how == "crossed":
        row[HIGH], row[LOW] = f"{0.9 * float(row[LOW]):.8f}", f"{1.1 * float(row[HIGH]):.8f}"
    else:
        row[CLOSE] = f"{10 * float(row[CLOSE]):.8f}"  # a spike beyond the candle's own high
    return [*rows[:place], row, *rows[place + 1 :]]


def _disorder(rows: list[Row], place: int) -> list[Row]:
    return [*rows[: place - 1], rows[place], rows[place - 1], *rows[place + 1 :]] if place else rows


def _future(rows: list[Row], _place: int) -> list[Row]:
    length = rows[-1][CLOSES_AT] + 1 - rows[-1][0]
    late = [rows[-1][0] + 10 * length, *rows[-1][1:CLOSES_AT], rows[-1][CLOSES_AT] + 10 * length]
    return [*rows, [*late, *rows[-1][CLOSES_AT + 1 :]]]


_MOVES: dict[str, Callable[[list[Row], int], list[Row]]] = {
    "missing": lambda rows, place: [*rows[:place], *rows[place + 1 :]],
    "duplicate": lambda rows, place: [*rows[: place + 1], *rows[place:]],
    "disorder": _disorder,
    "future": _future,
}
