"""Keeps funding rates fresh while bots trade: a model that reads them has no forecast once they are a day old.

A Ray actor beside the bots, so that it lives exactly as long as they do, detached or not; `data follow` is the same
loop in the foreground.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from cluster.settings import Settings
from cluster.stages.following import Following, follow
from observability.errors import ExchangeError
from observability.logging import configure_logging, get_logger
from trading.adapters.risk_actor import NAMESPACE

NAME = "keeper"
EVERY_MS = 4 * 3_600_000  # funding is paid every eight hours
STOP_S = 10.0
log = get_logger(__name__)


class Keeper:
    """The actor's body: one thread that follows the funding rates.

    Args:
        settings: market and store.
        url: address of the sandbox exchange; "" for a real one.
        virtual: whether its clock is virtual.
    """

    def __init__(self, settings: Settings, url: str, virtual: bool) -> None:
        configure_logging(as_json=True)
        self._settings, self._url, self._virtual = settings, url, virtual
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name="keeper", daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """End in order, out of the clock; returns whether it did in time."""
        self._stop.set()
        self._thread.join(STOP_S)
        return not self._thread.is_alive()

    def _live(self) -> None:
        what = Following(kinds=("funding",), every_ms=EVERY_MS, name=NAME)
        try:
            follow(self._settings, what, self._stop, base_url=self._url or None, virtual=self._virtual)
        except ExchangeError as error:
            log.error("keeper_ended", error=str(error))


def start_keeper(settings: Settings, url: str, *, virtual: bool, detached: bool) -> None:
    """Start the actor; needs a Ray session."""
    import ray

    options: dict[str, Any] = {"name": NAME, "namespace": NAMESPACE, "num_cpus": 0, "max_restarts": -1}
    if detached:
        options["lifetime"] = "detached"
    ray.remote(Keeper).options(max_concurrency=2, **options).remote(settings, url, virtual)


def end_keeper() -> None:
    """End the actor in order, if there is one; needs a Ray session."""
    import ray

    with suppress(ValueError):  # there is none
        handle = ray.get_actor(NAME, namespace=NAMESPACE)
        with suppress(ray.exceptions.RayError):
            ray.get(handle.stop.remote(), timeout=STOP_S)
        ray.kill(handle)
