"""A Freqtrade bot in this process: its worker lives on one thread, begins when told and is built anew when it fails.

It can be made early, only to import Freqtrade (3 to 18 s), and told later what to trade. What it was told lies in a
file, so that a fresh process goes on by itself after a crash.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from observability.errors import MtstError, SettingsError, StartError, TradingError
from observability.exporter import Exporter, start_exporter
from observability.files import write_whole
from observability.logging import get_logger
from observability.metrics import Meters
from observability.only_one import lock_file
from trading.adapters.bot_books import TradeCounts, read_book, read_trades
from trading.adapters.bot_spec import ARBITRAGES, BotSpec
from trading.adapters.venue_clock import RealSleep, VirtualSleep, real_time
from trading.reconcile import OrderLine
from trading.reconciliation import BotView

log = get_logger(__name__)

BEGUN = "begun.json"
ALONE = "process.lock"
ALONE_S = 0.2  # between two looks whether a former process of the bot has ended
LONGEST_WAIT_S = 60.0
STOP_S = 30.0


@dataclass(frozen=True)
class BotStatus:
    """Where a bot stands.

    Attributes:
        phase: "importing", "ready" (waits to be told), "waiting" (another process trades for this bot, and must end
            first), "starting", "running", "failed" (tries again) or "stopped".
        now_ms: the time that the bot lives in.
        restarts: times that this process built the worker anew after a failure.
        refusals: entries that the gate kept back, by code.
        doubts: errors inside the strategy that became "no entry", by place.
        forecast_p50_ms, forecast_p99_ms: latency of the forecasts that it asked for.
        replaced: times that whoever watches the bots gave it a new actor.
        database: why the bot's database cannot be read, though the bot answers; trades and orders are then those of
            the last time that it could be, none where it never could. "" while it can.
    """

    name: str
    pid: int
    phase: str
    loops: int = 0
    now_ms: int = 0
    open_trades: tuple[str, ...] = ()
    closed_trades: int = 0
    orders: int = 0
    profit: float = 0.0
    equity: float = 0.0
    restarts: int = 0
    last_error: str = ""
    refusals: dict[str, int] | None = None
    doubts: dict[str, int] | None = None
    forecasts: int = 0
    forecast_errors: int = 0
    forecast_p50_ms: float = 0.0
    forecast_p99_ms: float = 0.0
    replaced: int = 0
    database: str = ""


class BotRunner:
    """Builds the worker, runs its loop on a thread of its own, and builds it anew whenever it fails.

    Args:
        folder: the bot's folder; a `begun.json` in it is begun at once.
        risk: gives the way to the risk manager, asked on the bot's own thread.
        coordinator: gives the way to the coordinator of an arbitrage, by name; None where no bot is a leg.
    """

    def __init__(self, folder: Path, risk: Callable[[], Any], coordinator: Callable[[str], Any] | None = None) -> None:
        self.folder, self._risk, self._coordinator = folder, risk, coordinator
        self._told, self._stopping = threading.Event(), threading.Event()
        self._spec: BotSpec | None = None
        self._worker: Any = None
        self._sleeper: RealSleep | VirtualSleep | None = None
        self._forecasts: Any = None
        self._exporter: Exporter | None = None
        self._meters: Meters | None = None
        self._phase, self._error, self._restarts, self._restarts_before = "importing", "", 0, 0
        self._trades = TradeCounts((), 0, 0, 0.0)  # as they were read last
        self._failures = 0  # in a row: a bot that ran since its last failure is tried again at once
        self._born_ms = int(real_time() * 1000)
        self._take_up()
        self._thread = threading.Thread(target=self._live, name="bot", daemon=True)
        self._thread.start()

    def begin(self, spec: BotSpec) -> None:
        """Trade as `spec` says from now on, also after a crash of this process.

        Raises:
            TradingError: it trades already.
        """
        if self._spec is not None:
            raise TradingError("the bot was begun before", where=self._spec.name, todo="stop it first")
        write_whole(self.folder / BEGUN, spec.to_json())
        self._spec = spec
        self._told.set()

    def stop(self, timeout_s: float = STOP_S) -> bool:
        """End the loop in order (open orders are taken back, positions stay) and do not begin again.

        Returns:
            Whether the thread ended in time.
        """
        (self.folder / BEGUN).unlink(missing_ok=True)
        self._stopping.set()
        self._told.set()
        if self._sleeper is not None:
            self._sleeper.interrupt()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def status(self) -> BotStatus:
        """Where the bot stands; works at any moment."""
        name = self._spec.name if self._spec else self.folder.name
        trades, away = self._count_trades()
        found = BotStatus(
            name=name,
            pid=os.getpid(),
            phase=self._phase,
            open_trades=trades.open_pairs,
            closed_trades=trades.closed,
            orders=trades.orders,
            profit=trades.profit,
            restarts=self._restarts,
            last_error=self._error,
            database=away,
        )
        worker = self._worker
        if worker is None:
            return found
        gate, bot, stats = worker.desk.gate, worker.freqtrade, self._forecasts and self._forecasts.stats()
        return replace(
            found,
            loops=worker.loops,
            now_ms=int(time.time() * 1000),
            equity=worker.desk.equity(),
            last_error=self._error or worker.last_error,
            refusals=dict(gate.approvals.refusals) if gate else {},
            doubts=dict(bot.strategy.problems),
            forecasts=stats.requests if stats else 0,
            forecast_errors=sum(stats.errors.values()) if stats else 0,
            forecast_p50_ms=stats.p50_ms if stats else 0.0,
            forecast_p99_ms=stats.p99_ms if stats else 0.0,
        )

    def _count_trades(self) -> tuple[TradeCounts, str]:
        """The bot's trades, and why they are the last known ones if they are; a bot lives without its database."""
        if self._spec is None:
            return self._trades, ""
        try:
            self._trades = read_trades(self._spec.database)
        except MtstError as error:
            return self._trades, error.what
        return self._trades, ""

    def book(self) -> dict[str, OrderLine]:
        """What every order in the bot's database filled."""
        return read_book(self._spec.database) if self._spec is not None else {}

    def view(self) -> BotView:
        """What the bot sees of its account; an order for its reconciler is looked for in the next loop.

        Raises:
            TradingError: it does not trade now, or its database cannot be read. ExchangeError: the exchange cannot.
        """
        worker, spec = self._worker, self._spec
        if worker is None or spec is None or worker.desk.gate is None:
            raise TradingError(f"the bot is {self._phase}", where=self.folder.name, todo=self._error or "look again")
        from trading.adapters.bot_view import bot_view  # with Freqtrade, which the worker has imported

        desk, sleeper = worker.desk, self._sleeper
        if sleeper is not None:
            sleeper.catch_up()  # an exchange refuses what is asked at another time than its own
        found = bot_view(worker.freqtrade, spec.pairs, desk.books.marks, desk.gate.approvals.outstanding)
        desk.gate.orphans_likely |= any(order.origin in ("orphan", "stranger") for order in found.resting)
        return found

    def reload(self) -> None:
        """Have Freqtrade read its configuration again, as its own `/reload_config` does."""
        from freqtrade.enums import State

        if self._worker is not None:
            self._worker.freqtrade.state = State.RELOAD_CONFIG

    def _take_up(self) -> None:
        """Go on with what an earlier process was told."""
        try:
            self._spec = BotSpec.from_json((self.folder / BEGUN).read_text())
        except FileNotFoundError:
            return
        except (OSError, SettingsError) as error:
            self._error = f"cannot go on: {error}"
            return
        self._restarts_before = 1
        self._told.set()

    def _live(self) -> None:
        with suppress(ImportError):  # told again, as an error, when the worker is built
            import trading.adapters.worker  # noqa: F401 - the slow import, while nobody waits for it
        if not self._told.is_set():
            self._phase = "ready"
        self._told.wait()
        with self._alone():
            self._trade()
        self._phase = "stopped"
        if self._exporter is not None:
            self._exporter.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no other process trades from this bot's folder, and let none in before this one is done.

        A former process may outlive its actor, behind a network that was cut or on a machine that stood still. Two
        would sell the same coins, take back each other's stops and know of half of the orders. The kernel holds the
        lock, and drops it with the process: whoever gets it knows that the other is dead.
        """
        lock = None
        while lock is None and not self._stopping.is_set():
            try:
                lock = lock_file(self.folder / ALONE, f"bot {self.folder.name}")
            except (StartError, OSError) as error:
                if self._phase != "waiting":
                    log.warning("waits_to_be_alone", bot=self.folder.name, error=str(error))
                self._phase, self._error = "waiting", str(error)
                self._stopping.wait(ALONE_S)
        with lock or nullcontext():
            yield

    def _trade(self) -> None:
        """Build the worker and run its loop, again after every failure, until told to stop."""
        while not self._stopping.is_set():
            try:
                self._phase = "starting"
                self._build()
                self._loop()
            except Exception as error:  # the bot lives on: open positions need it
                self._error = f"{type(error).__name__}: {error}"[:1000]
                wait_s = min(LONGEST_WAIT_S, 2.0 ** min(self._failures, 6))
                self._phase, self._restarts, self._failures = "failed", self._restarts + 1, self._failures + 1
                self._count_restart()
                log.error("bot_failed", bot=self.folder.name, error=self._error, retry_s=wait_s, exc_info=True)
                self._stopping.wait(wait_s)
            finally:
                self._close_worker()

    def _build(self) -> None:
        from trading.adapters.forecast_client import ForecastClient
        from trading.adapters.freqtrade_config import check_environment, write_config
        from trading.adapters.worker import Ports, TradingWorker

        spec = self._spec
        if spec is None:
            raise SettingsError("nothing was begun", where=str(self.folder))
        check_environment(clear=True)
        self._meter(spec)
        self._sleeper = VirtualSleep(spec.url, spec.name) if spec.virtual_clock else RealSleep()
        self._sleeper.join()
        token = Path(spec.forecast_token_file) if spec.forecast_token_file else None
        if spec.forecast_url:
            self._forecasts = ForecastClient(spec.forecast_url, token, meters=self._meters)
        coordinator = self._coordinator(spec.strategy) if self._coordinator and spec.strategy in ARBITRAGES else None
        ports = Ports(spec, self._risk(), self._sleeper, self._forecasts, self._meters, coordinator, self._born_ms)
        self._worker = TradingWorker(write_config(spec), ports)
        self._sleeper.join()  # building took a while

    def _loop(self) -> None:
        from freqtrade.enums import State

        state = None
        while not self._stopping.is_set():
            state = self._worker._worker(old_state=state)
            self._phase, self._error, self._failures = "running", "", 0
            if state == State.RELOAD_CONFIG:
                self._worker._reconfigure()

    def _close_worker(self) -> None:
        worker, self._worker = self._worker, None
        try:
            if worker is not None:
                worker.exit()
                worker.desk.end_loop()
                worker.desk.books.release_lease()
        except Exception as error:  # noqa: BLE001 - closing must go on to the clock, or everybody waits for us
            log.error("bot_close_failed", bot=self.folder.name, error=repr(error))
        finally:
            if self._forecasts is not None:
                self._forecasts.close()
            if self._sleeper is not None:
                self._sleeper.leave()
                self._sleeper = None

    def _meter(self, spec: BotSpec) -> None:
        """Meters once a process; without them the bot trades all the same."""
        if self._meters is not None or not spec.targets_dir:
            return
        self._meters = Meters("bot")
        try:
            self._exporter = start_exporter(self._meters, Path(spec.targets_dir), f"bot-{spec.name}")
        except (MtstError, OSError) as error:
            log.error("no_metrics", bot=spec.name, error=str(error))
        if self._restarts_before:
            self._count_restart()

    def _count_restart(self) -> None:
        if self._meters is not None and self._spec is not None:
            self._meters.inc("mtst_bot_restarts_total", bot=self._spec.name)
