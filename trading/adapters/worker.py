"""Freqtrade's worker with our parts wired in: gate at its exchange, desk at its strategy, our sleep in its loop.

The wiring happens in `_init`, which Freqtrade calls again for every `/reload_config`, so that no reload ever opens a
way around the gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from freqtrade.exceptions import TemporaryError
from freqtrade.persistence import Trade
from freqtrade.worker import Worker

from mtst.forecast import Forecast
from observability.errors import ForecastError, GateError
from observability.logging import get_logger
from observability.metrics import Meters
from pipelines.candles import timeframe_ms
from trading.adapters import quick_candles
from trading.adapters.approvals import Approvals, OrderCount
from trading.adapters.bookkeeper import Bookkeeper
from trading.adapters.bot_spec import BotSpec
from trading.adapters.entry_intent import GateId
from trading.adapters.forecast_client import Candles, ForecastClient
from trading.adapters.gate import OrderGate
from trading.adapters.loop_meters import LoopMeters
from trading.adapters.order_lookup import doubting
from trading.adapters.remainders import taking_back
from trading.adapters.risk_port import RiskPort
from trading.adapters.sandbox.client import recognise_errors
from trading.adapters.strategies.base import FailClosedStrategy
from trading.arbitrage.standing import Advice, LegView
from trading.kill_switch import KillSwitch
from trading.state import TradingState

log = get_logger(__name__)

RETRY_S = 30.0  # after a passing failure of the exchange, by the bot's clock


class Sleeper(Protocol):
    """See `trading.adapters.venue_clock`."""

    def sleep(self, seconds: float) -> None: ...  # noqa: D102


class CoordinatorPort(Protocol):
    """See `trading.adapters.coordinator_actor.RayCoordinator`."""

    def advise(self, view: LegView) -> Advice: ...  # noqa: D102


@dataclass
class Ports:
    """Everything outside Freqtrade that a bot uses. `born_ms`: when its process began, by the wall's clock."""

    spec: BotSpec
    risk: RiskPort
    sleeper: Sleeper
    forecasts: ForecastClient | None = None
    meters: Meters | None = None
    coordinator: CoordinatorPort | None = None
    born_ms: int = 0


class TradingDesk:
    """What a strategy sees of us; lives as long as the worker, over reloads."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self.books = Bookkeeper(ports.spec, ports.risk, ports.meters, ports.born_ms)
        self.switch = KillSwitch(Path(ports.spec.switch)) if ports.spec.switch else None
        self.bot: Any = None
        self.gate: OrderGate | None = None

    def connect(self, bot: Any) -> None:
        """Put the gate at a fresh bot's exchange and this desk into its strategy."""
        spec, strategy = self._ports.spec, bot.strategy
        if not isinstance(strategy, FailClosedStrategy):
            # Freqtrade resolves by name; a stranger's class of that name would trade with callbacks that fail open.
            raise TypeError(f"{type(strategy).__name__} is not a FailClosedStrategy")
        who = GateId(spec.name, spec.account, spec.risk_venue, timeframe_ms(spec.timeframe))
        count = OrderCount(spec.name, self._ports.meters)
        approvals = Approvals(
            who, self._ports.risk, strategy.entry_facts, self.books.epoch, count=count, switch=self.switch
        )
        self.gate = OrderGate(approvals, count)
        if spec.venue == "sandbox" and spec.futures:
            recognise_errors(bot.exchange._api)
        self.gate.stand_at(bot.exchange)
        bot.exchange.fetch_order = doubting(bot.exchange.fetch_order, self.gate.lookup)
        bot.handle_cancel_enter = taking_back(bot.exchange, bot.handle_cancel_enter)
        self.books.calls.listen(bot.exchange)
        quick_candles.drop_last(bot.exchange)
        strategy.desk = self
        self.bot = bot

    @property
    def flatten(self) -> bool:
        """Whether every position shall be closed: a person or the portfolio's stop asks for it."""
        pulled = self.switch is not None and self.switch.read().flatten
        told = self.books.directive is not None and self.books.directive.flatten
        return pulled or told or bool(self.books.stopped)

    def begin_loop(self, marks: Mapping[str, float]) -> None:
        """New candles are in: hold the lease, settle what is open, report. Never raises."""
        try:
            if self.switch is not None:
                self.switch.acknowledge(self._ports.spec.name)
            self.books.hold_lease()
            assert self.gate is not None  # set by connect before any loop
            self.books.settle_outstanding(self.bot, self.gate)
            self.books.reconcile(self.bot, self.gate)
            self.books.report(self.bot, marks)
        except Exception as error:  # noqa: BLE001 - a bot without risk manager still has to watch its stops
            log.error("begin_loop_failed", bot=self._ports.spec.name, error=repr(error))

    def settle_booked(self) -> None:
        """A loop went well, so the database has what it ordered: tell what is closed already. Never raises."""
        try:
            assert self.gate is not None  # set by connect before any loop
            self.books.settle_booked(self.gate)
        except Exception as error:  # noqa: BLE001 - settled at the beginning of the next loop
            log.error("not_settled", bot=self._ports.spec.name, error=repr(error))

    def end_loop(self) -> None:
        """The loop is done: have every position protected, tell the fills. Never raises."""
        try:
            self.books.protect(self.bot)
        except Exception as error:  # noqa: BLE001 - tried again in the next loop; until then the loop watches
            log.error("not_protected", bot=self._ports.spec.name, error=repr(error))
        try:
            self.books.tell_fills()
        except Exception as error:  # noqa: BLE001 - told again after the next loop
            log.error("end_loop_failed", bot=self._ports.spec.name, error=repr(error))

    def equity(self) -> float:
        """Worth of the account in this loop, at the newest closes; 0 when unknown."""
        return self.books.equity or 0.0

    def forecasts(self, timeframe: str, candles: Mapping[str, Candles]) -> dict[str, Forecast]:
        """Forecasts of the newest candles; raises ForecastError when there are none."""
        if self._ports.forecasts is None:
            raise ForecastError("this bot has no prediction service", where=self._ports.spec.name)
        return self._ports.forecasts.forecasts(timeframe, candles)

    @property
    def ready(self) -> bool:
        """Whether nothing that the bot was told stands against an entry; the risk manager has the last word."""
        pulled = self.switch is not None and self.switch.read().closed
        told = self.books.directive
        active = told is not None and told.state is TradingState.ACTIVE and not self.books.stopped
        return active and not pulled and self.books.lease is not None

    @property
    def unsettled(self) -> bool:
        """Whether an approved entry's outcome is not known yet."""
        return self.gate is not None and bool(self.gate.approvals.outstanding)

    def advise(self, view: LegView) -> Advice:
        """What the coordinator wants of this bot's leg; raises GateError when there is no answer."""
        if self._ports.coordinator is None:
            raise GateError("this bot is no leg of an arbitrage", where=self._ports.spec.name)
        return self._ports.coordinator.advise(view)


class TradingWorker(Worker):
    """A Freqtrade worker for one bot.

    Args:
        configs: configuration files in order of precedence, as `write_config` returns them.
        ports: what to wire in.
    """

    def __init__(self, configs: Sequence[Path], ports: Ports) -> None:
        self._ports = ports
        quick_candles.install()
        self.desk = TradingDesk(ports)
        spec = ports.spec
        step_ms = timeframe_ms(spec.timeframe)
        self._meters = LoopMeters(ports.meters, spec.name, step_ms, virtual_clock=spec.virtual_clock)
        self.loops = 0
        self.last_error = ""
        self._retry = False
        super().__init__({"command": "trade", "config": [str(path) for path in configs], "verbosity": 0})

    def _init(self, reconfig: bool) -> None:
        super()._init(reconfig)
        self.desk.connect(self.freqtrade)

    def _process_running(self) -> None:
        """One loop. A passing failure is tried again soon; any other error goes to the runner, which builds anew."""
        try:
            self.freqtrade.process()
            self.desk.settle_booked()
        except TemporaryError as error:
            self._retry, self.last_error = True, f"{type(error).__name__}: {error}"[:500]
            log.warning("loop_failed", bot=self._ports.spec.name, error=self.last_error)
            self._meters.count_error("network")
        finally:
            self.desk.end_loop()
        self._done()

    def _sleep(self, sleep_duration: float) -> None:  # type: ignore[override]
        seconds = min(sleep_duration, RETRY_S) if self._retry else sleep_duration
        self._retry = False
        Trade.session.remove()  # no transaction stays open over a sleep
        self._ports.sleeper.sleep(seconds)

    def _done(self) -> None:
        self.loops += 1
        strategy = self.freqtrade.strategy
        self._meters.loop_done(strategy.newest, strategy.forecast_times(), self.freqtrade.exchange._api.fetch_time)
