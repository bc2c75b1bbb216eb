"""Where a candle lies in the day and in the week. Every value comes from a table of one week, made once a frame."""

from __future__ import annotations

import numpy as np

from observability.errors import SpecError
from pipelines.features.bars import Bars
from pipelines.features.registry import feature
from pipelines.features.windows import Array

_DAY_MS, _WEEK_MS = 86_400_000, 604_800_000
_MONDAY_MS = 4 * _DAY_MS  # the epoch was a Thursday
# UTC hours in which the exchanges of a region are open, daylight saving left aside.
SESSIONS = {"asia": (0, 8), "europe": (7, 16), "america": (13, 21)}


@feature(warmup=lambda: 0)
def hour_sin(bars: Bars) -> Array:
    """Sine of the open time's place in the UTC day."""
    return _looked_up(bars, np.sin(_angle(_of_week(bars) % _DAY_MS / _DAY_MS)))


@feature(warmup=lambda: 0)
def hour_cos(bars: Bars) -> Array:
    """Cosine of the open time's place in the UTC day."""
    return _looked_up(bars, np.cos(_angle(_of_week(bars) % _DAY_MS / _DAY_MS)))


@feature(warmup=lambda: 0)
def weekday_sin(bars: Bars) -> Array:
    """Sine of the open time's place in the week (Monday 0:00 UTC is 0)."""
    return _looked_up(bars, np.sin(_angle(_of_week(bars) / _WEEK_MS)))


@feature(warmup=lambda: 0)
def weekday_cos(bars: Bars) -> Array:
    """Cosine of the open time's place in the week."""
    return _looked_up(bars, np.cos(_angle(_of_week(bars) / _WEEK_MS)))


@feature(warmup=lambda: 0)
def weekend(bars: Bars) -> Array:
    """1 on Saturday and Sunday in UTC, else 0."""
    return _looked_up(bars, (_of_week(bars) >= 5 * _DAY_MS).astype(np.float64))


@feature(warmup=lambda region: 0)
def session(bars: Bars, region: str) -> Array:
    """1 while the stock exchanges of a region ("asia", "europe", "america") are open on a working day, else 0."""
    if region not in SESSIONS:
        raise SpecError(f"unknown session {region!r}", todo=f"known: {', '.join(SESSIONS)}")
    start, stop = SESSIONS[region]
    week = _of_week(bars)
    hour = week % _DAY_MS / 3_600_000
    return _looked_up(bars, ((hour >= start) & (hour < stop) & (week < 5 * _DAY_MS)).astype(np.float64))


def _angle(fraction: Array) -> Array:
    return 2 * np.pi * fraction


def _of_week(bars: Bars) -> Array:
    """Places in the week, in ms, at which candles of this timeframe open."""
    return np.arange(0, _WEEK_MS, _unit(bars))


def _looked_up(bars: Bars, table: Array) -> Array:
    place = bars.made("place in the week", lambda: ((bars.times - _MONDAY_MS) // _unit(bars)) % len(table))
    return np.asarray(table.take(place, mode="clip"))


def _unit(bars: Bars) -> int:
    """The largest step that every open time and the week are multiples of."""
    return int(np.gcd(bars.step_ms, _WEEK_MS))
