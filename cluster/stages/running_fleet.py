"""Which bots trade in a workspace, and on which cluster: told by whoever starts them, found by every other command."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cluster.keeper import NAME as KEEPER
from cluster.ray_local import ray_session
from cluster.settings import Settings
from cluster.stages.bots import bot_names
from observability.errors import StartError, TradingError
from observability.files import write_whole
from trading.adapters.bot_actors import actor_name
from trading.adapters.bot_spec import ARBITRAGES, BotSpec
from trading.adapters.coordinator_actor import coordinator_name
from trading.adapters.risk_actor import ACTOR_NAME, NAMESPACE


def announce(settings: Settings, specs: tuple[BotSpec, ...]) -> None:
    """Tell other commands of this workspace which bots trade, and where."""
    import ray

    bots = [json.loads(spec.to_json()) for spec in specs]
    write_whole(_fleet_file(settings), json.dumps({"address": ray.get_runtime_context().gcs_address, "bots": bots}))


def announced(settings: Settings) -> dict[str, Any]:
    """What `announce` told; raises TradingError where no bots run."""
    try:
        found: dict[str, Any] = json.loads(_fleet_file(settings).read_text())
    except FileNotFoundError:
        root = str(settings.workspace.root.absolute())
        raise TradingError("no bots run in this workspace", where=root, todo="trade up, or name --workspace") from None
    return found


def forget(settings: Settings) -> None:
    """Take back what `announce` told."""
    _fleet_file(settings).unlink(missing_ok=True)


def end_actors(settings: Settings) -> None:
    """End what is left of bots and risk manager without asking them: after a failed start, or a cluster's loss of one.

    Needs a Ray session.
    """
    import ray

    legs = map(coordinator_name, ARBITRAGES)
    for name in (KEEPER, ACTOR_NAME, *legs, *map(actor_name, bot_names(settings))):
        with suppress(ValueError):  # there is none of that name
            ray.kill(ray.get_actor(name, namespace=NAMESPACE))
    forget(settings)


@contextmanager
def fleet_session(settings: Settings) -> Iterator[None]:
    """Join the cluster on which the bots of this workspace trade, be it a foreground `trade up`'s own; starts none.

    Raises:
        TradingError: no bots run in this workspace. ClusterError: their cluster does not answer.
    """
    address = str(announced(settings)["address"])
    if not _answers(address):  # joining would try for a minute
        raise TradingError("the bots' cluster has ended", where=address, todo="trade up; positions are still open")
    with ray_session(settings.changed(cluster={"address": address})):
        yield


def nobody_trades(settings: Settings) -> None:
    """Raise StartError where bots of this workspace trade already: two fleets would share accounts and a journal."""
    import ray

    try:
        address = str(announced(settings)["address"])
    except TradingError:
        return
    here = address == ray.get_runtime_context().gcs_address
    if here:
        try:
            ray.get_actor(ACTOR_NAME, namespace=NAMESPACE)
        except ValueError:
            return
    if here or _answers(address):
        raise StartError("bots trade in this workspace already", where=address, todo="trade status; trade down first")


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(2.0)
        return probe.connect_ex((host, int(port))) == 0


def _fleet_file(settings: Settings) -> Path:
    return settings.workspace.run_dir / "fleet.json"
