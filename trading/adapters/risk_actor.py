"""The risk manager as a named Ray actor: one for the whole system, restarted by Ray for ever, with its book intact.

Bots reach it through `trading.adapters.risk_port.RayRisk`, with the plain dataclasses of `trading.orders` and
`trading.events`; the two calls that hurry have a form in bytes (`trading.wire`). Calls are never retried by Ray
(`max_task_retries=0`): the answer to a lost call is found by `reservations(account)`, not by asking twice.

Ray reads its environment (token, loopback) when it is imported, so it is imported only once a session is wanted.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from observability.errors import GateError, JournalError, MtstError, SettingsError
from observability.exporter import Exporter, start_exporter
from observability.logging import configure_logging, get_logger
from observability.metrics import Meters
from trading.adapters.named_actor import actor_options, answering
from trading.clock import Clock, WallClock
from trading.directive import Directive
from trading.journal import Journal, JournalStore
from trading.kill_switch import KillSwitch
from trading.limits import RiskLimits
from trading.limits_file import WIRED, LimitsFile
from trading.manager import RiskManager
from trading.market import estimate
from trading.recovery import journalled_limits
from trading.wire import decision_bytes, intent_from, settlement_from

__all__ = ["Directive", "RiskActorConfig", "RiskManager", "find_risk_actor", "start_risk_actor"]

ACTOR_NAME = "risk"
NAMESPACE = "mtst"
LOOK_S = 0.1
ESTIMATE_EVERY_S = 6 * 3600.0
CONCURRENCY = 8  # pings and looks never wait behind a decision; the manager's own lock orders the writers
log = get_logger(__name__)


@dataclass(frozen=True)
class RiskActorConfig:
    """How to start the actor.

    Attributes:
        journal: SQLite file, on the disk of the node that runs the actor.
        limits: the limits.
        clock: the venue's clock; must travel by Ray.
        targets: folder of Prometheus file_sd targets; None exports nothing.
        journal_dsn: file with PostgreSQL's connection string, mode 0600; the journal then lies there and not in the
            file, so that the actor can come back on another node.
        switch: file of the kill switch; None has none.
        limits_file: TOML file whose limits win over `limits`, read again whenever it changes; None has none.
        candles, exchange: root of the candle store and the exchange whose candles tell how far assets move together;
            "" goes by the cautious fallbacks of the limits.
        name, namespace: under which bots find it.
        detached: outlive the driver that started it.
    """

    journal: Path
    limits: RiskLimits
    clock: Clock = field(default_factory=WallClock)
    targets: Path | None = None
    switch: Path | None = None
    limits_file: Path | None = None
    candles: str = ""
    exchange: str = ""
    journal_dsn: Path | None = None
    name: str = ACTOR_NAME
    namespace: str = NAMESPACE
    detached: bool = False


class RiskActor(RiskManager):
    """The process behind the name; every public method of `RiskManager` can be called remotely."""

    def __init__(self, config: RiskActorConfig) -> None:
        configure_logging(as_json=True)
        meters = Meters("risk")
        self._exporter: Exporter | None = None
        switch = KillSwitch(config.switch) if config.switch is not None else None
        self._config, self._estimated = config, float("-inf")
        self._file = LimitsFile(config.limits_file, config.limits) if config.limits_file is not None else None
        limits, error = self._first_limits()
        super().__init__(self._open_journal, limits, config.clock, meters, switch)
        if error:
            self._refuse(error)
        self._ending = threading.Event()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        if config.targets is not None:
            try:
                self._exporter = start_exporter(meters, config.targets, config.name)
            except (MtstError, OSError) as error:
                log.error("no_metrics", error=str(error))  # deciding matters more than measuring

    def decide_bytes(self, intent: bytes) -> bytes:
        """`decide`, as `trading.wire` writes its intent and its answer; raises OrderError for what is no intent."""
        return decision_bytes(self.decide(intent_from(intent)))

    def settle_bytes(self, settlement: bytes) -> bool:
        """`settle`, as `trading.wire` writes what is told."""
        return self.settle(*settlement_from(settlement))

    def close(self) -> None:
        """Close the journal and take the target away: who ends in order raises no alert."""
        self._ending.set()
        super().close()
        if self._exporter is not None:
            self._exporter.close()

    def _open_journal(self, *, read_only: bool = False) -> JournalStore:
        if self._config.journal_dsn is None:
            return Journal(self._config.journal, read_only=read_only)
        from trading.adapters.postgres_journal import open_journal  # its library only where it is used

        return open_journal(self._config.journal, self._config.journal_dsn, read_only=read_only)

    def _first_limits(self) -> tuple[RiskLimits, str]:
        """The limits to start with, and why the file's could not be taken: then those of the journal go on."""
        base = self._config.limits
        try:
            found = self._file.changed() if self._file is not None else None
        except SettingsError as error:
            kept = journalled_limits(self._open_journal) or base
            return replace(kept, **{name: getattr(base, name) for name in WIRED}), str(error)
        return found or base, ""

    def _watch(self) -> None:
        """Look at the kill switch and the limits a few times a second, also while no bot asks anything."""
        trouble = ""
        while not self._ending.wait(LOOK_S):
            try:
                self.obey()
                self._reload()
                self._estimate()
                self.snapshot()
                trouble = ""
            except (MtstError, OSError) as error:
                if not self._ending.is_set() and str(error) != trouble:
                    log.error("watch_failed", error=str(error))
                trouble = str(error)

    def _reload(self) -> None:
        """Take what a person wrote into the limits file; what cannot be used is refused, and the old limits stay."""
        if self._file is None:
            return
        try:
            fresh = self._file.changed()
        except SettingsError as error:
            self._refuse(str(error))
            return
        if fresh is not None:
            self.set_limits(fresh, str(self._file.path))

    def _refuse(self, error: str) -> None:
        with suppress(JournalError):  # the alert and the log tell it all the same
            self.refuse_limits(str(self._config.limits_file), error)

    def _estimate(self) -> None:
        """Estimate anew, a few times a day, how assets move."""
        if not self._config.candles or time.monotonic() - self._estimated < ESTIMATE_EVERY_S:
            return
        self._estimated = time.monotonic()
        from trading.adapters.stored_closes import stored_closes  # the store's libraries, while entries wait for nobody

        self.set_market(estimate(stored_closes(self._config.candles, self._config.exchange, self._config.limits.pairs)))


def start_risk_actor(config: RiskActorConfig, timeout_s: float = 60.0) -> Any:
    """Start the actor, or find the one that already runs under this name; returns its handle once it answers.

    Raises:
        GateError: it does not come up in time.
    """
    import ray

    options = actor_options(config.name, config.namespace, CONCURRENCY, detached=config.detached)
    options["enable_task_events"] = False  # Ray's record of each call costs CPU in it; the journal keeps a better one
    handle = ray.remote(RiskActor).options(**options, get_if_exists=True).remote(config)
    return answering(handle, "the risk manager", config.name, timeout_s)


def find_risk_actor(name: str = ACTOR_NAME, namespace: str = NAMESPACE, timeout_s: float = 10.0) -> Any:
    """Handle of the running actor; raises GateError when there is none or it does not answer."""
    import ray

    try:
        handle = ray.get_actor(name, namespace=namespace)
    except ValueError as error:
        raise GateError("no risk manager runs", where=f"{namespace}/{name}", todo="start trading first") from error
    return answering(handle, "the risk manager", name, timeout_s)
