"""The actors of a fleet's bots: made, asked how they stand, and replaced when Ray does not bring one back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from observability.logging import get_logger
from trading.adapters.bot_actor import BotActor
from trading.adapters.bot_runner import BEGUN, BotStatus
from trading.adapters.bot_spec import DIRECTIVE
from trading.adapters.named_actor import actor_options
from trading.adapters.risk_actor import ACTOR_NAME, NAMESPACE

CALL_S = 10.0
CONCURRENCY = 6  # status and stop are answered beside the bot's own thread
PATIENCE_S = 90.0
"""How long Ray may take to bring a bot back. A killed process takes it seconds; a machine that falls silent is given
up after five missed looks of up to 13 s each. Who waits longer than both waits for something that will not come."""
FREE_S = 10.0  # how long a killed actor may keep its name
POLL_S = 0.1

log = get_logger(__name__)


def prepare_bots(folders: Mapping[str, Path], *, detached: bool = False) -> dict[str, Any]:
    """Start bot actors that only import Freqtrade, to be warm when their fleet starts; returns handles by name.

    A bot's folder may hold an earlier run's orders; what that run was told is forgotten here.
    """
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
        for told in (BEGUN, DIRECTIVE):
            (folder / told).unlink(missing_ok=True)
    return {name: _start(name, folder, detached=detached) for name, folder in folders.items()}


def actor_name(bot: str) -> str:
    """Name of a bot's actor."""
    return f"bot-{bot}"


class BotActors:
    """Asks the bots how they stand; one that Ray cannot reach for longer than its patience gets a new actor.

    The new actor goes on from the bot's folder, as after any restart, once it is alone there: as long as a process of
    its former self lives, the runner waits (`BotRunner`), and where no lock can tell, the later born has the account's
    lease and the former one can only close (ADR 2). A bot that is slow to answer is not replaced: it lives, and its
    positions need it.

    Args:
        folders: where each bot lives, by name.
        handles: its actor, by name.
        detached: whether a new actor outlives the program that starts it.
        patience_s: seconds, counted from the first look that found the actor away.
        clock: seconds that never go back.

    Attributes:
        handles: the actors as they are now.
        replaced: how often each bot got a new one.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        handles: Mapping[str, Any],
        *,
        detached: bool = False,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders, self._detached, self._patience_s, self._clock = dict(folders), detached, patience_s, clock
        self.handles, self.replaced = dict(handles), Counter[str]()
        self._away: dict[str, float] = {}

    def status(self) -> dict[str, BotStatus]:
        """Where every bot stands; one that does not answer is shown as "down"."""
        asked = {name: handle.status.remote() for name, handle in self.handles.items()}
        return {name: self._answer(name, reference) for name, reference in asked.items()}

    def status_of(self, name: str) -> BotStatus:
        """Where one bot stands; "down" when it does not answer."""
        return self._answer(name, self.handles[name].status.remote())

    def _answer(self, name: str, reference: Any) -> BotStatus:
        import ray

        try:
            found: BotStatus = ray.get(reference, timeout=CALL_S)
        except ray.exceptions.RayError as error:
            if isinstance(error, ray.exceptions.RayActorError):
                self._missed(name, type(error).__name__)
            return BotStatus(name, 0, "down", last_error=type(error).__name__, replaced=self.replaced[name])
        self._away.pop(name, None)
        return replace(found, replaced=self.replaced[name])

    def _missed(self, name: str, error: str) -> None:
        """Note that the actor is away; replace it when that has lasted."""
        away_s = self._clock() - self._away.setdefault(name, self._clock())
        if away_s < self._patience_s:
            return
        log.error("bot_stays_away", bot=name, error=error, seconds=round(away_s, 1))
        if self._replace(name):
            del self._away[name]
            self.replaced[name] += 1
            log.warning("bot_replaced", bot=name, times=self.replaced[name])

    def _replace(self, name: str) -> bool:
        """End the actor for good and start its successor; False while the former one still holds the name."""
        import ray

        with suppress(ValueError):  # nobody has the name
            found = ray.get_actor(actor_name(name), namespace=NAMESPACE)
            if found != self.handles[name]:  # somebody else who watches was faster
                self.handles[name] = found
                return True
        ray.kill(self.handles[name])  # Ray gives the name away only once this actor counts as dead
        deadline = time.monotonic() + FREE_S
        while True:
            try:
                self.handles[name] = _start(name, self._folders[name], detached=self._detached)
            except ValueError as error:  # the name is taken
                if time.monotonic() > deadline:
                    log.error("bot_not_replaced", bot=name, error=str(error))
                    return False
                time.sleep(POLL_S)
            else:
                return True


def _start(name: str, folder: Path, *, detached: bool) -> Any:
    """A bot's actor, which goes on with what its folder says that it was told; raises ValueError for a taken name."""
    import ray

    options = actor_options(actor_name(name), NAMESPACE, CONCURRENCY, detached=detached)
    return ray.remote(BotActor).options(**options).remote(str(folder), ACTOR_NAME, NAMESPACE)
