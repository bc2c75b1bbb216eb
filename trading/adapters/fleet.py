"""All bots of a system and their risk manager: started, watched, killed on purpose, compared book by book, stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from observability.errors import StartError, TradingError
from observability.logging import get_logger
from observability.progress import Progress
from pipelines.candles import timeframe_ms
from trading.adapters.bot_actors import CALL_S, PATIENCE_S, BotActors, prepare_bots
from trading.adapters.bot_runner import BotStatus
from trading.adapters.bot_spec import ARBITRAGES, BotSpec
from trading.adapters.coordinator_actor import CoordinatorConfig, end_coordinators, start_coordinator
from trading.adapters.fleet_books import FleetBooks, fleet_books
from trading.adapters.postgres_journal import open_journal
from trading.adapters.risk_actor import NAMESPACE, RiskActorConfig, start_risk_actor
from trading.adapters.sandbox.client import SandboxClient
from trading.adapters.venue_clock import Participant, VenueClock
from trading.clock import Clock, WallClock
from trading.kill_switch import KillSwitch
from trading.limits import RiskLimits

log = get_logger(__name__)

POLL_S = 0.2
HOPELESS = 3  # failed starts after which a wrong setting is likelier than a passing trouble
CONDUCTOR = "fleet"


@dataclass(frozen=True)
class FleetConfig:
    """What to start.

    Attributes:
        bots: each on an account of its own.
        journal: the risk manager's record.
        limits: the risk manager's limits.
        url: address of the sandbox exchange when its virtual clock rules; "" for the wall clock.
        targets: folder of Prometheus targets.
        switch: file of the kill switch; laid down where it is missing, kept as it stands where it is pulled.
        detached: outlive the program that starts it.
        limits_file, candles, exchange, journal_dsn: see `RiskActorConfig`.
        coordinators: of the bots that are legs of an arbitrage.
    """

    bots: tuple[BotSpec, ...]
    journal: Path
    limits: RiskLimits
    url: str = ""
    targets: Path | None = None
    switch: Path | None = None
    detached: bool = False
    limits_file: Path | None = None
    candles: str = ""
    exchange: str = ""
    journal_dsn: Path | None = None
    coordinators: tuple[CoordinatorConfig, ...] = ()


@dataclass(frozen=True)
class Recovery:
    """A killed bot that came back. seconds: from the kill to its first finished loop."""

    bot: str
    killed_pid: int
    new_pid: int
    seconds: float
    trades_before: tuple[str, ...]
    trades_after: tuple[str, ...]
    first_error: str = ""


@dataclass(frozen=True)
class RunSummary:
    """What `run_until` reached: virtual candles, real seconds, the virtual time in ms."""

    candles: int
    seconds: float
    now_ms: int


class Fleet:
    """A running fleet; make it with `start`."""

    def __init__(
        self, config: FleetConfig, risk: Any, handles: Mapping[str, Any], coordinators: tuple[Any, ...] = ()
    ) -> None:
        self.config, self.risk = config, risk
        folders = {spec.name: Path(spec.folder) for spec in config.bots}
        self.actors = BotActors(folders, handles, detached=config.detached)
        self._coordinators = coordinators  # Ray ends an actor that nobody holds
        self.bots = {spec.name: spec for spec in config.bots}
        self._conductor = Participant(config.url, CONDUCTOR) if config.url else None

    @classmethod
    def start(cls, config: FleetConfig, handles: Mapping[str, Any] | None = None, *, timeout_s: float = 120.0) -> Fleet:
        """Start the risk manager and the bots, and wait until every bot has finished a loop.

        Args:
            config: what to start.
            handles: warm bots from `prepare_bots`; the others are started here.
            timeout_s: how long they may take.

        Raises:
            StartError: two bots share an account, or a bot does not come up; its last error is told.
        """
        import ray

        accounts = [spec.account for spec in config.bots]
        if len(set(accounts)) != len(accounts) or not accounts:
            raise StartError("every bot needs an account of its own", where=", ".join(accounts))
        clock: Clock = VenueClock(config.url) if config.url else WallClock()
        if config.switch is not None:
            KillSwitch(config.switch).install()
        risk = start_risk_actor(
            RiskActorConfig(
                config.journal,
                config.limits,
                clock,
                config.targets,
                config.switch,
                config.limits_file,
                config.candles,
                config.exchange,
                config.journal_dsn,
                detached=config.detached,
            )
        )
        coordinators = tuple(
            start_coordinator(coordinator, NAMESPACE, detached=config.detached) for coordinator in config.coordinators
        )
        warm = dict(handles or {})
        missing = {spec.name: Path(spec.folder) for spec in config.bots if spec.name not in warm}
        warm |= prepare_bots(missing, detached=config.detached)
        fleet = cls(config, risk, warm, coordinators)
        if fleet._conductor is not None:
            fleet._conductor.join()  # time waits for us, so that all bots start together
        for spec in config.bots:
            ray.get(warm[spec.name].begin.remote(spec.to_json()), timeout=timeout_s)
        fleet.wait_ready(timeout_s)
        return fleet

    @property
    def handles(self) -> Mapping[str, Any]:
        """The bots' actors by name."""
        return self.actors.handles

    @property
    def arbitrages(self) -> frozenset[str]:
        """Names of those that bots of this fleet are legs of."""
        return frozenset(spec.strategy for spec in self.config.bots if spec.strategy in ARBITRAGES)

    def status(self) -> dict[str, BotStatus]:
        """Every bot's status; a bot that does not answer is shown as "down", and replaced when that lasts."""
        return self.actors.status()

    def wait_ready(self, timeout_s: float = 120.0) -> dict[str, BotStatus]:
        """Wait until every bot has finished a loop since its process began.

        Raises:
            StartError: one has not in time; its last error is told.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            states = self.status()
            late = [state for state in states.values() if state.loops < 1]
            if not late:
                return states
            hopeless = [state for state in late if state.restarts >= HOPELESS]
            if hopeless or time.monotonic() > deadline:
                late = hopeless or late
                raise StartError(
                    f"bot {late[0].name} is {late[0].phase} and does not trade: {late[0].last_error}",
                    where=self.bots[late[0].name].folder,
                    todo="look at freqtrade.log there",
                )
            time.sleep(POLL_S)

    def run_candles(
        self, candles: int, progress: Progress, *, max_s: float = float("inf"), settle: bool = True
    ) -> RunSummary:
        """Let the virtual clock run for `candles` candles, at most `max_s` real seconds, and hold it again.

        Args:
            candles: how many.
            progress: told of every one.
            max_s: real seconds after which it stops early.
            settle: wait until every bot has finished its last loop.

        Raises:
            TradingError: there is no virtual clock to run.
        """
        if self._conductor is None:
            raise TradingError("only the sandbox exchange's virtual clock can be run", where="fleet")
        step_ms = timeframe_ms(self.config.bots[0].timeframe)
        started, done = time.monotonic(), 0
        now_ms = self._conductor.join()
        target = (now_ms // step_ms + 1) * step_ms
        with progress.task("trading on virtual time", total=candles) as task:
            while done < candles and time.monotonic() - started < max_s:
                reached = self._conductor.sleep(target)
                if reached is None:
                    continue
                if reached < target:
                    break  # the market's data is used up
                now_ms, target, done = reached, target + step_ms, done + 1
                task.advance(1, time.strftime("%Y-%m-%d %H:%M", time.gmtime(now_ms / 1000)))
        seconds, now_ms = time.monotonic() - started, self._conductor.join()
        if settle:
            self.settle_down()
        return RunSummary(done, seconds, now_ms)

    def settle_down(self, timeout_s: float = 10.0) -> bool:
        """Wait until every living bot has finished its loop and sleeps; only then do the books stand still."""
        client = SandboxClient(self.config.url)
        deadline = time.monotonic() + timeout_s
        try:
            while time.monotonic() < deadline:
                sleeps = client.health()["participants"]
                if all(until is not None for name, until in sleeps.items() if name != CONDUCTOR):
                    return True
                time.sleep(POLL_S / 10)
        finally:
            client.close()
        return False

    def hold(self) -> None:
        """Make the virtual clock wait for us (for its grace of some seconds, then it runs at the wall's speed)."""
        if self._conductor is not None:
            self._conductor.join()

    def release(self) -> None:
        """Let the bots alone drive the virtual clock."""
        if self._conductor is not None:
            self._conductor.leave()
            self._conductor = None

    def kill_bot(self, name: str) -> BotStatus:
        """End a bot's process at once, as a crash would; returns its status before.

        Raises:
            TradingError: there is no such bot, or it does not run here.
        """
        import ray

        if name not in self.handles:
            raise TradingError(f"there is no bot {name}", todo=f"one of {', '.join(self.handles)}")
        before = self.actors.status_of(name)
        if before.pid and psutil.pid_exists(before.pid):
            os.kill(before.pid, signal.SIGKILL)
        else:
            ray.kill(self.handles[name], no_restart=False)
        return before

    def kill_and_recover(self, name: str, timeout_s: float = PATIENCE_S + 60.0) -> Recovery:
        """Kill a bot and wait until Ray has brought it back, or it was replaced, and it has finished a loop.

        Raises:
            StartError: it did not come back in time.
        """
        self.hold()
        started = time.monotonic()
        before = self.kill_bot(name)
        error = ""
        while time.monotonic() - started < timeout_s:
            time.sleep(POLL_S)
            now = self.actors.status_of(name)
            error = error or now.last_error
            if now.pid not in (0, before.pid) and now.loops >= 1:
                seconds = time.monotonic() - started
                return Recovery(name, before.pid, now.pid, seconds, before.open_trades, now.open_trades, error)
        raise StartError(f"bot {name} did not come back within {timeout_s:.0f} s: {error}", where=name)

    def books(self) -> FleetBooks:
        """Compare every bot's three books; without a sandbox the exchange's book is left to `trade reconcile`."""
        if not all(spec.url for spec in self.config.bots):
            raise TradingError("only the sandbox exchange shows its ledger", where="fleet")
        ledgers = {}
        for url in {spec.url for spec in self.config.bots}:
            with closing(SandboxClient(url)) as client:
                ledgers[url] = client.ledger()
        journal = open_journal(self.config.journal, self.config.journal_dsn, read_only=True)
        fills = list(journal.read("fill"))
        journal.close()
        return fleet_books(self.config.bots, fills, ledgers)

    def stop(self, timeout_s: float = 40.0) -> dict[str, BotStatus]:
        """Stop every bot in order, then the risk manager; returns their last statuses. Positions stay open."""
        import ray

        self.hold()
        last = self.status()
        asked = {name: handle.stop.remote() for name, handle in self.handles.items()}
        for name, reference in asked.items():
            try:
                if not ray.get(reference, timeout=timeout_s):
                    log.warning("bot_stopped_late", bot=name)
            except ray.exceptions.RayError as error:
                log.warning("bot_not_stopped_in_order", bot=name, error=type(error).__name__)
            ray.kill(self.handles[name])
        end_coordinators(self.arbitrages, NAMESPACE)
        try:
            ray.get(self.risk.close.remote(), timeout=CALL_S)
        except ray.exceptions.RayError as error:
            log.warning("risk_not_closed", error=type(error).__name__)
        ray.kill(self.risk)
        self.release()
        for name, state in last.items():
            if state.open_trades:
                log.warning("positions_left_open", bot=name, pairs=list(state.open_trades))
        return {name: replace(state, phase="stopped") for name, state in last.items()}
