"""Keep the store up to date for live use: fetch, sleep until the next candle closes, fetch again.

`data follow` does it for candles in the foreground, the keeper beside the bots for funding. On the sandbox's virtual
clock the follower takes part like a bot: time waits while it fetches.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from cluster.settings import Settings
from cluster.stages.data import exchange_address, fill
from observability.errors import ExchangeError, SourceError
from observability.logging import get_logger
from observability.metrics import Meters
from observability.progress import NullProgress
from pipelines.adapters.exchange import ExchangeSource, open_exchange
from pipelines.backfill_summary import BackfillSummary
from pipelines.candles import timeframe_ms
from trading.adapters.venue_clock import Participant

AFTER_CLOSE_MS = 1_500  # exchanges need a moment to finish a candle
RENEW_MS = 86_400_000  # markets are listed and delisted: look at them again once a day
EARLY_S = 0.1
log = get_logger(__name__)


@dataclass(frozen=True)
class Following:
    """What to keep up to date. `every_ms` 0 means: at each close of the smallest timeframe."""

    kinds: tuple[str, ...] = ("ohlcv", "funding")
    timeframes: tuple[str, ...] = ()
    every_ms: int = 0
    updates: int = 0
    name: str = "follow"


@dataclass
class FollowSummary:
    """What following did so far; `failed` updates were tried again at the next close."""

    updates: int = 0
    failed: int = 0
    new_rows: int = 0
    revised: int = 0
    last_error: str = ""
    seconds: float = 0.0


class Pace(Protocol):
    """A clock to live by."""

    def now_ms(self) -> int:
        """The present."""

    def sleep_until(self, until_ms: int) -> None:
        """Return at that time, or at once when told to stop."""

    def leave(self) -> None:
        """Nobody needs to wait for us any more."""


class WallPace:
    """The machine's clock, corrected by how far the exchange's is ahead of it."""

    def __init__(self, stop: Event) -> None:
        self._stop, self.skew_ms = stop, 0

    def now_ms(self) -> int:
        """The exchange's present."""
        return int(time.time() * 1000) + self.skew_ms

    def sleep_until(self, until_ms: int) -> None:
        """Return at that time of the exchange, or at once when told to stop."""
        self._stop.wait(max(0.0, (until_ms - self.now_ms()) / 1000))

    def leave(self) -> None:
        """Nothing waits for the wall clock."""


class VenuePace:
    """The sandbox's virtual clock, in which we take part."""

    def __init__(self, url: str, name: str, stop: Event) -> None:
        self._clock, self._stop = Participant(url, name), stop
        self._now_ms = self._clock.join()

    def now_ms(self) -> int:
        """The time up to which we slept: it stands still while we are awake."""
        return self._now_ms

    def sleep_until(self, until_ms: int) -> None:
        """Return at that virtual time, or within a second when told to stop."""
        reached: int | None = None
        while not self._stop.is_set() and (reached is None or reached < until_ms):
            reached = self._clock.sleep(until_ms)
            if reached is not None and reached < until_ms:  # woken early: the market's data is used up
                self._stop.wait(EARLY_S)
        self._now_ms = until_ms

    def leave(self) -> None:
        """Let time go on without us."""
        self._clock.leave()


def follow(
    settings: Settings,
    what: Following,
    stop: Event,
    *,
    base_url: str | None = None,
    virtual: bool | None = None,
    told: Callable[[BackfillSummary], None] | None = None,
    meters: Meters | None = None,
    summary: FollowSummary | None = None,
) -> FollowSummary:
    """Update the store now and after every close until `stop` is set or `what.updates` are done.

    An update that fails is logged and tried again at the next close: an exchange that is away for an hour must not end
    what keeps the data fresh. `summary` is kept up to date for who interrupts; `virtual` says whether the exchange's
    clock is the sandbox's (default: if it is one).

    Raises:
        ExchangeError: the sandbox exchange is gone, and with it its clock.
    """
    summary, started = FollowSummary() if summary is None else summary, time.monotonic()
    with ExitStack() as stack:
        url = stack.enter_context(exchange_address(settings, NullProgress(), base_url))
        on_venue = bool(url) if virtual is None else virtual
        pace: Pace = VenuePace(url or "", what.name, stop) if on_venue else WallPace(stop)
        stack.callback(pace.leave)
        source, opened_ms = open_exchange(settings.market.exchange, url), pace.now_ms()
        while not stop.is_set():
            if pace.now_ms() - opened_ms > RENEW_MS:
                source, opened_ms = open_exchange(settings.market.exchange, url), pace.now_ms()
            done = _update(settings, what, source, summary, meters)
            if done is not None:
                if isinstance(pace, WallPace):
                    pace.skew_ms = done.clock_skew_ms or 0
                if told is not None:
                    told(done)
            summary.seconds = time.monotonic() - started
            if summary.updates + summary.failed == what.updates:
                break
            pace.sleep_until(next_update_ms(pace.now_ms(), settings, what))
    return summary


def next_update_ms(now_ms: int, settings: Settings, what: Following) -> int:
    """When to fetch next: a moment after the next close."""
    if what.every_ms:
        return now_ms + what.every_ms
    step = min(timeframe_ms(each) for each in what.timeframes or (settings.market.timeframe,))
    return (now_ms - AFTER_CLOSE_MS) // step * step + step + AFTER_CLOSE_MS


def _update(
    settings: Settings, what: Following, source: ExchangeSource, summary: FollowSummary, meters: Meters | None
) -> BackfillSummary | None:
    try:
        done = fill(settings, NullProgress(), source, kinds=what.kinds, timeframes=what.timeframes, meters=meters)
    except (SourceError, ExchangeError) as error:
        log.warning("not_updated", exchange=settings.market.exchange, error=str(error))
        summary.failed += 1
        summary.last_error = str(error)
        return None
    summary.updates += 1
    summary.new_rows += done.new_rows
    summary.revised += sum(item.revised for item in done.series)
    return done
