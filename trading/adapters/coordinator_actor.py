"""The Ray actor that keeps two legs together, and how a leg's bot reaches it. Not atomic: it bounds, it cannot prevent.

What a restart must know lies in a small file, written before the advice that follows from it is given. Without the
file (another node, a torn disk) the actor knows nothing, and the legs' own tales have it unwind what they hold.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from observability.errors import GateError, MtstError
from observability.files import write_whole
from observability.logging import configure_logging, get_logger
from trading.adapters.named_actor import actor_options, answering
from trading.adapters.risk_port import ActorCalls, bounded
from trading.adapters.venue_clock import VenueClock
from trading.arbitrage.coordinator import Phase
from trading.arbitrage.standing import Advice, LegView, PairPlan, Standing, advise
from trading.clock import Clock, WallClock

log = get_logger(__name__)

DEADLINE_S = 1.0
IN_ORDER = 1  # one call at a time: what a leg told later must not be overtaken by what it told before


@dataclass(frozen=True)
class CoordinatorConfig:
    """How to start a coordinator.

    Attributes:
        name: of the arbitrage.
        plan: how its legs are traded.
        state: file of what a restart must know.
        url: address of the sandbox exchange whose virtual clock rules; "" for the wall clock.
    """

    name: str
    plan: PairPlan
    state: Path
    url: str = ""


class Coordinator:
    """Keeps the standing of one pair of legs; the actor behind the name.

    Nothing in `__init__` may raise: Ray would never restart the actor again.
    """

    def __init__(self, config: CoordinatorConfig) -> None:
        configure_logging(as_json=True)
        self._config = config
        self._clock: Clock = VenueClock(config.url) if config.url else WallClock()
        self._standing = self._kept()

    def advise(self, view: LegView) -> Advice:
        """What a leg shall do that sees this.

        Raises:
            ExchangeError: the time is unknown. OSError: what follows could not be kept.
        """
        standing, advice = advise(self._standing, view, self._clock.now_ms(), self._config.plan)
        if standing.to_dict() != self._standing.to_dict():
            write_whole(self._config.state, json.dumps(standing.to_dict()))
            if standing.pair.phase is not self._standing.pair.phase:
                note = log.warning if standing.pair.phase is Phase.UNWINDING else log.info
                note("legs", arbitrage=self._config.name, phase=standing.pair.phase.value, why=standing.pair.reason)
        self._standing = standing
        return advice

    def standing(self) -> Standing:
        """Where the pair stands."""
        return self._standing

    def ping(self) -> int:
        """The process's number."""
        return os.getpid()

    def _kept(self) -> Standing:
        try:
            return Standing.from_dict(json.loads(self._config.state.read_text()))
        except FileNotFoundError:
            return Standing()
        except (OSError, ValueError, AttributeError, MtstError) as error:
            log.error("legs_unreadable", file=str(self._config.state), error=str(error))  # both legs are unwound
            return Standing()


def coordinator_name(arbitrage: str) -> str:
    """Name of an arbitrage's actor."""
    return f"legs-{arbitrage}"


def start_coordinator(config: CoordinatorConfig, namespace: str, *, detached: bool, timeout_s: float = 60.0) -> Any:
    """Start the actor and wait until it answers; returns its handle.

    Raises:
        GateError: it does not come up in time.
    """
    import ray

    config.state.parent.mkdir(parents=True, exist_ok=True)
    name = coordinator_name(config.name)
    options = actor_options(name, namespace, IN_ORDER, detached=detached)
    handle = ray.remote(Coordinator).options(**options, get_if_exists=True).remote(config)
    return answering(handle, "the coordinator", name, timeout_s)


def phases(arbitrages: Iterable[str], namespace: str, timeout_s: float = 5.0) -> dict[str, str]:
    """Where each pair of legs stands, by arbitrage; "unknown" where its coordinator does not answer."""
    import ray

    found = {}
    for arbitrage in arbitrages:
        try:
            handle: Any = ray.get_actor(coordinator_name(arbitrage), namespace=namespace)
            standing: Standing = ray.get(handle.standing.remote(), timeout=timeout_s)
            pair = standing.pair
            found[arbitrage] = f"{pair.phase.value} ({pair.reason})" if pair.reason else pair.phase.value
        except (ValueError, ray.exceptions.RayError):
            found[arbitrage] = "unknown"
    return found


def end_coordinators(arbitrages: Iterable[str], namespace: str) -> None:
    """End the actors; what they know stays in their files."""
    import ray

    for arbitrage in arbitrages:
        with suppress(ValueError):  # there is none
            ray.kill(ray.get_actor(coordinator_name(arbitrage), namespace=namespace))


class RayCoordinator:
    """A leg's way to its coordinator, looked up by name at the first question.

    Args:
        arbitrage: whose coordinator; namespace: of the actors.
        deadline_s: how long one answer may take, in real seconds.
    """

    def __init__(self, arbitrage: str, namespace: str, deadline_s: float = DEADLINE_S) -> None:
        self._name, self._namespace, self._deadline_s = coordinator_name(arbitrage), namespace, deadline_s
        self._calls: ActorCalls | None = None

    def advise(self, view: LegView) -> Advice:
        """See `Coordinator`.

        Raises:
            GateError: no advice in time; MtstError: the coordinator's own.
        """
        try:
            return bounded(lambda: self._ask(view), 2.0 * self._deadline_s)
        except TimeoutError as error:
            raise GateError(f"the coordinator gave {error}", where=self._name) from error

    def _ask(self, view: LegView) -> Advice:
        import ray

        if self._calls is None:
            try:
                handle = ray.get_actor(self._name, namespace=self._namespace)
            except ValueError as error:
                raise GateError("no coordinator runs", where=self._name, todo="start trading again") from error
            self._calls = ActorCalls(handle, "the coordinator", self._deadline_s)
        return cast(Advice, self._calls.call("advise", view))
