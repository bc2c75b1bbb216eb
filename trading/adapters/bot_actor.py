"""The Ray actor around a bot's runner; Ray restarts it for ever, and it then goes on with what it was told.

Nothing in `__init__` may raise: Ray would never restart the actor again.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from observability.errors import GateError, MtstError
from observability.logging import configure_logging
from trading.adapters.bot_runner import BotRunner, BotStatus
from trading.adapters.bot_spec import BotSpec
from trading.adapters.coordinator_actor import RayCoordinator
from trading.adapters.risk_port import RayRisk
from trading.reconcile import OrderLine
from trading.reconciliation import BotView


class BotActor:
    """The Ray side of a runner; made with `max_concurrency > 1`, since the runner's thread never returns."""

    def __init__(self, folder: str, risk_name: str, namespace: str) -> None:
        configure_logging(as_json=True)
        self._names = (risk_name, namespace)
        self._runner = BotRunner(Path(folder), self._risk, lambda arbitrage: RayCoordinator(arbitrage, namespace))

    def begin(self, spec_json: str) -> None:
        """See BotRunner."""
        self._runner.begin(BotSpec.from_json(spec_json))

    def status(self) -> BotStatus:
        """See BotRunner."""
        return self._runner.status()

    def reload(self) -> None:
        """See BotRunner."""
        self._runner.reload()

    def stop(self) -> bool:
        """See BotRunner."""
        return self._runner.stop()

    def book(self) -> dict[str, OrderLine]:
        """What every order in the bot's database filled, wherever in the cluster that lies."""
        return self._runner.book()

    def view(self) -> BotView:
        """See BotRunner."""
        return self._runner.view()

    def _risk(self) -> Any:
        import ray

        name, namespace = self._names
        try:
            handle = ray.get_actor(name, namespace=namespace)
        except ValueError as error:
            raise GateError("no risk manager runs", where=f"{namespace}/{name}", todo="start trading again") from error
        port = RayRisk(handle)
        with suppress(MtstError):
            port.reservations("")  # the first call takes most of a second, and an entry must not wait for it
        return port
