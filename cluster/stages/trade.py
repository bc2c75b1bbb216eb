"""Trade: Freqtrade bots beside the risk manager, on the sandbox exchange or on a real one."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from cluster.keeper import end_keeper, start_keeper
from cluster.ray_local import ray_session
from cluster.settings import Settings
from cluster.stages import serve as serving
from cluster.stages.arbitrage import coordinators
from cluster.stages.bots import Forecasts, bot_folders, bot_names, bot_specs, check_bots, risk_limits
from cluster.stages.exchange import RunningExchange, find_exchange, start_exchange
from cluster.stages.running_fleet import announce, announced, end_actors, forget, nobody_trades
from cluster.stages.strategy_options import FORECAST_STRATEGIES
from observability.errors import ExchangeError, SettingsError, StartError, TradingError
from observability.exporter import clear_targets
from observability.only_one import only_one
from observability.progress import Progress
from pipelines.adapters.exchange import SANDBOX, open_exchange
from trading.adapters.bot_actors import actor_name, prepare_bots
from trading.adapters.bot_runner import BotStatus
from trading.adapters.bot_spec import BotSpec
from trading.adapters.coordinator_actor import phases
from trading.adapters.fleet import Fleet, FleetConfig, Recovery, RunSummary
from trading.adapters.fleet_books import FleetBooks
from trading.adapters.freqtrade_config import check_environment, layers, masked, merge
from trading.adapters.risk_actor import NAMESPACE, find_risk_actor
from trading.adapters.sandbox.client import SandboxClient
from trading.limits import RiskLimits
from trading.limits_file import LimitsFile
from trading.state import Latch

FOUND_LATER = "found at the start"
"""Address of a prediction service that only a start looks for."""


@dataclass(frozen=True)
class TradeStatus:
    """The trading system as `trade status` shows it. `legs`: where each arbitrage stands."""

    state: str
    who: str
    reason: str
    bots: tuple[BotStatus, ...]
    note: str = ""
    legs: Mapping[str, str] = field(default_factory=dict)


def prepare(settings: Settings, *, detached: bool = False) -> dict[str, Any]:
    """Start the bots' actors early, only to import Freqtrade while other stages run; needs a Ray session.

    Pass the result to `start_fleet`.
    """
    check_environment()
    return prepare_bots(bot_folders(settings), detached=detached)


def start_fleet(
    settings: Settings,
    progress: Progress,
    specs: tuple[BotSpec, ...],
    *,
    limits: RiskLimits | None = None,
    handles: Mapping[str, Any] | None = None,
    detached: bool = False,
) -> Fleet:
    """Start the risk manager and the bots and wait until each has finished a loop; needs a Ray session.

    Args:
        settings: the workspace.
        progress: told when the bots trade.
        specs: from `bot_specs`.
        limits: the risk manager's; `risk_limits(settings, specs)` when None.
        handles: warm actors from `prepare`.
        detached: the actors outlive this program (on a cluster that does).

    Raises:
        StartError: a bot does not come up; its last error is told.
    """
    check_environment()
    url = next((spec.url for spec in specs if spec.virtual_clock), "")
    space = settings.workspace
    config = FleetConfig(
        specs,
        space.journal.resolve(),
        limits or risk_limits(settings, specs),
        url,
        space.targets.resolve(),
        space.kill_switch.resolve(),
        detached,
        space.risk_file.resolve(),
        str(space.data_raw),
        settings.market.exchange,
        settings.trade.journal_dsn_file,
        coordinators(settings, url),
    )
    LimitsFile(space.risk_file, config.limits).changed()  # a mistake in it is told before anything starts
    with progress.task(f"{len(specs)} bots and the risk manager") as task:
        fleet = Fleet.start(config, handles)
        announce(settings, specs)
        task.done(", ".join(f"{spec.name} on {spec.venue} ({spec.mode})" for spec in specs))
    return fleet


@contextmanager
def trading(settings: Settings, progress: Progress, forecasts: Forecasts, *, detached: bool = False) -> Iterator[Fleet]:
    """Everything that trading needs, started and, unless `detached`, stopped again: Ray, exchange, risk manager, bots.

    Uses the exchange and the served model of this workspace where they run.

    Raises:
        SettingsError: detached without a cluster to stay on, or a variable that would override the bots' configuration.
        StartError: bots trade in this workspace already. SourceError: a real exchange cannot be reached.
    """
    check_environment()
    if not forecasts.url and FORECAST_STRATEGIES & set(settings.trade.strategies):
        served = serving.running(settings)
        forecasts = Forecasts.at(served.url, served.token_file) if served else forecasts
    # What cannot be is told in seconds, before Ray starts and three bots have tried.
    check_bots(settings, forecasts)
    if settings.market.exchange != SANDBOX:
        bot_specs(settings, forecasts)
        open_exchange(settings.market.exchange, attempts=2).now_ms()
    with only_one(settings.workspace.run_dir / "trade.lock", "trading"), ray_session(settings) as session:
        if detached and session.local:
            raise SettingsError("there is no cluster to leave the bots on", todo="cluster up first")
        nobody_trades(settings)
        clear_targets(settings.workspace.targets)
        exchange, ours, fleet = None, False, None
        try:
            handles = prepare(settings, detached=detached)
            exchange, ours = _exchange(settings, progress, detached=detached)
            virtual = exchange is not None and _mode(exchange) == "lockstep"
            specs = bot_specs(settings, forecasts, exchange, virtual=virtual)
            fleet = start_fleet(settings, progress, specs, handles=handles, detached=detached)
            if forecasts.url:
                start_keeper(settings, exchange.url if exchange else "", virtual=virtual, detached=detached)
            if detached:
                fleet.release()
            yield fleet
        finally:
            if fleet is None:
                end_actors(settings)  # those of a cluster would outlive us
            elif not detached:
                stop_fleet(settings, fleet)
            if exchange is not None and ours and (not detached or fleet is None):
                exchange.stop()


def run_until(fleet: Fleet, candles: int, progress: Progress, *, max_s: float = float("inf")) -> RunSummary:
    """Let virtual time run for `candles` candles, at most `max_s` real seconds."""
    return fleet.run_candles(candles, progress, max_s=max_s)


def kill_and_recover(fleet: Fleet, name: str, progress: Progress) -> Recovery:
    """Kill -9 a bot and wait until it trades again."""
    with progress.task(f"kill -9 of {name}") as task:
        found = fleet.kill_and_recover(name)
        same = "the same" if found.trades_before == found.trades_after else "other"
        task.done(f"back in {found.seconds:.1f} s with {same} open trades {', '.join(found.trades_after) or '(none)'}")
    return found


def books(fleet: Fleet) -> FleetBooks:
    """Compare every bot's database, the journal and the exchange's ledger."""
    return fleet.books()


def stop_fleet(settings: Settings, fleet: Fleet) -> dict[str, BotStatus]:
    """Stop the bots, then the risk manager; positions stay open."""
    end_keeper()
    last = fleet.stop()
    forget(settings)
    return last


def find_fleet(settings: Settings) -> Fleet:
    """The fleet that runs in this workspace; needs a Ray session.

    Raises:
        TradingError: none was started here. GateError: its risk manager does not answer.
    """
    import ray

    specs = tuple(BotSpec.from_json(json.dumps(item)) for item in announced(settings)["bots"])
    risk = find_risk_actor()
    try:
        handles = {spec.name: ray.get_actor(actor_name(spec.name), namespace=NAMESPACE) for spec in specs}
    except ValueError as error:
        raise TradingError(f"a bot is gone: {error}", todo="trade down, then trade up") from error
    config = FleetConfig(
        specs,
        settings.workspace.journal.resolve(),
        risk_limits(settings, specs),
        detached=True,
        journal_dsn=settings.trade.journal_dsn_file,
    )
    return Fleet(config, risk, handles)


def status(fleet: Fleet) -> TradeStatus:
    """State of trading and of every bot; "unknown" while the risk manager does not answer.

    Raises:
        TradingError: the risk manager was ended for good.
    """
    import ray

    bots = tuple(fleet.status().values())
    try:
        latch: Latch = ray.get(fleet.risk.state.remote(), timeout=10)
    except ray.exceptions.ActorDiedError as error:
        raise TradingError("trading was ended from elsewhere", todo="trade up") from error
    except ray.exceptions.RayError as error:
        why = f"the risk manager does not answer ({type(error).__name__})"
        return TradeStatus("unknown", "nobody", why, bots, _note(fleet))
    legs = phases(fleet.arbitrages, NAMESPACE)
    return TradeStatus(latch.state.value, latch.who, latch.reason, bots, _note(fleet), legs)


def _note(fleet: Fleet) -> str:
    """What a person should know of the sandbox exchange, if anything."""
    url = next((spec.url for spec in fleet.bots.values() if spec.url), "")
    if not url:
        return ""
    with closing(SandboxClient(url, timeout_s=2.0)) as client:
        try:
            ended = client.health()["ended"]
        except ExchangeError:
            return "the sandbox exchange does not answer"
    return "the exchange's candles are used up, so its clock stands still: nothing trades any more" if ended else ""


def halt(who: str, reason: str) -> Latch:
    """Refuse every entry until a person resumes; open positions keep their stops. Needs a Ray session."""
    import ray

    return ray.get(find_risk_actor().halt.remote(reason, who), timeout=10)  # type: ignore[no-any-return]


def flatten(who: str, reason: str) -> Latch:
    """Ask every bot to close all positions; entries stay refused until a person resumes. Needs a Ray session."""
    import ray

    return ray.get(find_risk_actor().flatten.remote(reason, who), timeout=10)  # type: ignore[no-any-return]


def resume(who: str, reason: str, *, rebase: bool = False) -> Latch:
    """Lift a halt by name; `rebase` counts drawdown and losses anew from here. Needs a Ray session."""
    import ray

    return ray.get(find_risk_actor().resume.remote(who, reason, rebase), timeout=10)  # type: ignore[no-any-return]


def watch(fleet: Fleet, seconds: float, say: Callable[[TradeStatus], None]) -> None:
    """Show the status every `seconds` until Ctrl-C or SIGTERM; bots on virtual time go on by themselves."""

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(*_: object) -> None:
        for number in numbers:  # an impatient second Ctrl-C must not leave half of the processes behind
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, end)
    fleet.release()
    while True:
        say(status(fleet))
        time.sleep(seconds)


def effective_config(spec: BotSpec) -> dict[str, Any]:
    """What Freqtrade will see, merged, every secret masked."""
    return masked(merge(layers(spec)))


def effective_configs(settings: Settings) -> dict[str, dict[str, Any]]:
    """What Freqtrade would see of every bot, by name, without starting anything.

    Raises:
        SettingsError: a variable would override it, or the settings do not fit together.
        StartError: the sandbox exchange is meant and does not run.
    """
    check_environment()
    exchange = None
    if settings.market.exchange == SANDBOX:
        exchange = find_exchange(settings)
        if exchange is None:
            raise StartError(
                "the sandbox exchange does not run, and its address is not known", todo="exchange up first"
            )
    forecasts = Forecasts(url=FOUND_LATER)
    return {spec.name: effective_config(spec) for spec in bot_specs(settings, forecasts, exchange)}


def _exchange(settings: Settings, progress: Progress, *, detached: bool) -> tuple[RunningExchange | None, bool]:
    """The sandbox exchange if it is wanted, and whether it was started here."""
    if settings.market.exchange != "sandbox":
        return None, False
    found = find_exchange(settings)
    if found is not None:
        return found, False
    return start_exchange(settings, progress, accounts=tuple(bot_names(settings)), detached=detached), True


def _mode(exchange: RunningExchange) -> str:
    with closing(exchange.client()) as client:
        return str(client.health()["mode"])
