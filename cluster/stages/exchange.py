"""Run the sandbox exchange beside us: write its configuration and keys, start it, wait until it answers, stop it."""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cluster import processes
from cluster.settings import Settings
from observability.errors import ExchangeError, StartError
from observability.ports import check_port, free_port
from observability.progress import Progress
from trading.adapters.sandbox.accounts import make_accounts
from trading.adapters.sandbox.client import SandboxClient
from trading.adapters.sandbox.config import (
    MarketConfig,
    ReplayConfig,
    SandboxConfig,
    SimulatedConfig,
    load_config,
    save_config,
)

NAME = "exchange"
DRIFT_SHARE = 0.05  # variance share of the planted drift at `market.edge` 1


@dataclass(frozen=True)
class RunningExchange:
    """A sandbox exchange that answers. `key_files`: account name -> its key file; times in ms UTC."""

    url: str
    pid: int
    market: str
    pairs: tuple[str, ...]
    timeframe: str
    first_ms: int
    open_ms: int
    end_ms: int
    key_files: Mapping[str, Path]
    _run_dir: Path = field(repr=False)

    def client(self) -> SandboxClient:
        """A connection to its control API."""
        return SandboxClient(self.url)

    def alive(self) -> bool:
        """Whether its process still runs."""
        return processes.find(NAME, self._run_dir) is not None

    def stop(self) -> None:
        """End it; does nothing when it has ended."""
        processes.stop(NAME, self._run_dir)


@dataclass(frozen=True)
class ExchangeStatus:
    """What `exchange status` finds."""

    running: bool
    url: str = ""
    health: Mapping[str, Any] = field(default_factory=dict)


def market_config(settings: Settings) -> MarketConfig:
    """The market that the settings ask for: a replay where there is a folder, else a simulated one."""
    market = settings.market
    if market.replay is not None:
        return ReplayConfig(
            folder=market.replay.resolve(),
            pairs=market.pairs,
            timeframe=market.timeframe,
            trading_days=market.trading_days,
        )
    return SimulatedConfig(
        pairs=market.pairs,
        timeframe=market.timeframe,
        history_days=market.history_days,
        trading_days=market.trading_days,
        edge=min(0.5, DRIFT_SHARE * market.edge),
        basis=market.basis,
        basis_half_life=market.basis_half_life,
    )


def start_exchange(
    settings: Settings,
    progress: Progress,
    *,
    accounts: Sequence[str] = ("trader",),
    port: int = 0,
    mode: Literal["lockstep", "wall"] = "lockstep",
    grace_s: float = 3.0,
    detached: bool = False,
) -> RunningExchange:
    """Start the exchange process of this workspace and wait until it answers.

    Each account begins with `trade.play_money` USDT (the quote asset of the pairs). In lock-step mode the clock stands
    at T0 until participants join it; one busy for `grace_s` real seconds is no longer waited for. `port` 0 picks a free
    one.

    Raises:
        StartError: it runs already, the port is taken, or it ended at once (its log is quoted).
    """
    space = settings.workspace
    space.make()
    if processes.find(NAME, space.run_dir) is not None:  # before its configuration would be overwritten
        raise StartError(f"{NAME} is already running", where=str(space.run_dir), todo="stop it first: exchange down")
    if port:
        check_port(port, NAME)
    quotes = {pair.split("/")[1] for pair in settings.market.pairs}
    config = SandboxConfig(
        port=port or free_port(),
        instance=secrets.token_hex(8),
        seed=settings.market.seed,
        mode=mode,
        grace_s=grace_s,
        market=market_config(settings),
        accounts=make_accounts(space.secrets / NAME, accounts, dict.fromkeys(quotes, settings.trade.play_money)),
        targets_dir=space.targets.resolve(),
    )
    path = _config_path(settings)
    save_config(config, path)
    argv = [sys.executable, "-m", "trading.adapters.sandbox", "--config", str(path.resolve())]
    url = f"http://{config.host}:{config.port}"
    client = SandboxClient(url, timeout_s=5.0)

    def ready() -> bool:
        with contextlib.suppress(ExchangeError):
            return bool(client.health()["instance"] == config.instance)
        return False

    with progress.task("exchange") as task, contextlib.closing(client):
        log = space.logs / f"{NAME}.log"
        process = processes.spawn(NAME, argv, run_dir=space.run_dir, log=log, ready=ready, detached=detached)
        health = client.health()
        task.done(f"{url} {health['market']}, {len(health['pairs'])} pairs at {health['timeframe']}")
    return _running(settings, config, process.pid, health)


def find_exchange(settings: Settings) -> RunningExchange | None:
    """The exchange that runs in this workspace, or None."""
    process = processes.find(NAME, settings.workspace.run_dir)
    if process is None:
        return None
    config = load_config(_config_path(settings))
    with contextlib.closing(SandboxClient(f"http://{config.host}:{config.port}", timeout_s=5.0)) as client:
        return _running(settings, config, process.pid, client.health())


def exchange_status(settings: Settings) -> ExchangeStatus:
    """Whether an exchange runs in this workspace, and what it says of itself."""
    found = find_exchange(settings)
    if found is None:
        return ExchangeStatus(running=False)
    with contextlib.closing(found.client()) as client:
        return ExchangeStatus(running=True, url=found.url, health=client.health())


def stop_exchange(settings: Settings) -> bool:
    """End the exchange of this workspace; False when none runs."""
    return processes.stop(NAME, settings.workspace.run_dir)


def _config_path(settings: Settings) -> Path:
    return settings.workspace.var / f"{NAME}.json"


def _running(settings: Settings, config: SandboxConfig, pid: int, health: Mapping[str, Any]) -> RunningExchange:
    return RunningExchange(
        url=f"http://{config.host}:{config.port}",
        pid=pid,
        market=health["market"],
        pairs=tuple(health["pairs"]),
        timeframe=health["timeframe"],
        first_ms=health["first_ms"],
        open_ms=health["open_ms"],
        end_ms=health["end_ms"],
        key_files={account.name: account.key_file for account in config.accounts},
        _run_dir=settings.workspace.run_dir,
    )
