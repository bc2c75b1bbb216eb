"""The venue's clock: asked by the risk manager, followed by the bots.

Against a real exchange both are the wall clock. The sandbox exchange has a virtual clock instead: it stands still while
any participant is busy and leaps when all of them sleep, so that hours of trading pass in seconds without anybody
acting on a time that the exchange has not reached.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from threading import Event
from typing import Any

import httpx
import time_machine

from observability.errors import ExchangeError
from observability.logging import get_logger

log = get_logger(__name__)

POLL_S = 1.0
EARLY_S = 0.05


def real_time() -> float:
    """Seconds since the epoch by the wall, also while this process lives in virtual time."""
    if time_machine.escape_hatch.is_travelling():
        return float(time_machine.escape_hatch.time.time())
    return time.time()


class VenueClock:
    """`Clock` that asks the sandbox exchange for its time, so that no bot's own idea of the time is trusted.

    Travels to other processes by its address; the connection is made where it is first used.
    """

    def __init__(self, url: str, timeout_s: float = 1.0) -> None:
        self.url, self.timeout_s = url, timeout_s
        self._client: httpx.Client | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "timeout_s": self.timeout_s, "_client": None}

    def now_ms(self) -> int:
        """Milliseconds since the epoch by the exchange.

        Raises:
            ExchangeError: the exchange does not answer, so the time is unknown and nothing may be decided on it.
        """
        if self._client is None:
            self._client = httpx.Client(base_url=self.url, timeout=self.timeout_s, trust_env=False)
        try:
            answer = self._client.get("/sandbox/health").raise_for_status().json()
            return int(answer["now_ms"])
        except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
            raise ExchangeError(f"the sandbox exchange does not tell the time: {error!r}", where=self.url) from error


class RealSleep:
    """Sleeps by the wall clock; `interrupt` ends a sleep at once."""

    def __init__(self) -> None:
        self._stop = Event()

    def join(self) -> None:
        """Nothing to join."""

    def catch_up(self) -> None:
        """Nothing to catch up with."""

    def sleep(self, seconds: float) -> None:
        """Wait, at most `seconds`."""
        self._stop.wait(max(0.0, seconds))

    def interrupt(self) -> None:
        """End the present and all later sleeps."""
        self._stop.set()

    def leave(self) -> None:
        """Nothing to leave."""


class Participant:
    """One who takes part in the sandbox exchange's clock; time waits for everybody who is not asleep.

    Args:
        url: address of the sandbox exchange.
        name: unique among the participants; who comes again under its name takes its place.
        poll_s: real seconds after which a sleep comes back to its caller.
    """

    def __init__(self, url: str, name: str, poll_s: float = POLL_S) -> None:
        self._url, self._name = url, name
        self._http = httpx.Client(base_url=url, timeout=httpx.Timeout(5.0, read=poll_s), trust_env=False)

    def join(self) -> int:
        """Take part, busy for now; returns the virtual time in ms. Raises ExchangeError when nobody answers."""
        return self._ask("join", {})

    def sleep(self, until_ms: int) -> int | None:
        """Sleep for at most `poll_s` of real time; the virtual time then, or None while it is not known to have moved.

        Raises:
            ExchangeError: the exchange does not answer.
        """
        try:
            now_ms = self._ask("sleep", {"until_ms": until_ms})
        except httpx.ReadTimeout:
            return None  # a long poll: the caller asks again until it is time, and so notices an interruption
        return now_ms

    def leave(self) -> None:
        """Take no more part, so that the clock does not wait for us."""
        try:
            self._ask("leave", {})
        except (ExchangeError, httpx.ReadTimeout) as error:
            log.warning("clock_not_left", error=str(error))  # the exchange is gone, and with it its clock
        finally:
            self._http.close()

    def _ask(self, what: str, body: dict[str, int]) -> int:
        try:
            answer = self._http.post(f"/sandbox/clock/{what}", json={"participant": self._name, **body})
            return int(answer.raise_for_status().json()["now_ms"])
        except httpx.ReadTimeout:
            raise
        except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
            raise ExchangeError(
                f"the sandbox exchange's clock does not answer: {error!r}",
                where=self._url,
                todo="see whether the exchange still runs",
            ) from error


class VirtualSleep:
    """Sleeps by the sandbox exchange's clock and turns this whole process's clock to it.

    The process's clock (`time.time`, `datetime.now` and what is built on them) stands still between sleeps;
    `time.monotonic`, sockets and thread waits stay real. Only one instance may live in a process.
    """

    def __init__(self, url: str, name: str) -> None:
        self._clock, self._venue = Participant(url, name), VenueClock(url)
        self._travel: time_machine.travel | None = None
        self._traveller: Any = None
        self._stop = Event()

    def join(self) -> None:
        """Take part in the clock and turn to its present time; again after long work that did not sleep.

        Raises:
            ExchangeError: the exchange does not answer.
        """
        self._turn(self._clock.join())

    def catch_up(self) -> None:
        """Turn to the exchange's present time, for somebody who asks it something while the bot sleeps.

        Raises:
            ExchangeError: the exchange does not answer.
        """
        now_ms = self._venue.now_ms()
        if now_ms > time.time() * 1000:
            self._turn(now_ms)

    def sleep(self, seconds: float) -> None:
        """Sleep `seconds` of virtual time; returns early when interrupted."""
        until_ms = int((time.time() + max(0.0, seconds)) * 1000)
        while not self._stop.is_set():
            now_ms = self._clock.sleep(until_ms)
            if now_ms is None:
                continue
            self._turn(now_ms)
            if now_ms >= until_ms:
                return
            self._stop.wait(EARLY_S)  # woken early: the market's data is used up, or the poll is over

    def interrupt(self) -> None:
        """End the present and all later sleeps within a second."""
        self._stop.set()

    def leave(self) -> None:
        """Take no more part; the process's clock is the wall's again."""
        self._clock.leave()
        if self._travel is not None:
            self._travel.stop()
            self._travel = None

    def _turn(self, now_ms: int) -> None:
        moment = datetime.fromtimestamp(now_ms / 1000, tz=UTC)
        if self._travel is None:
            self._travel = time_machine.travel(moment, tick=False)
            self._traveller = self._travel.start()
        else:
            self._traveller.move_to(moment, tick=False)
