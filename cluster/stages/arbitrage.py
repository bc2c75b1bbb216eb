"""What the settings say of arbitrages: their two legs, on which book each trades, and the coordinator's plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.settings import Settings
from cluster.stages.exchange import RunningExchange, find_exchange
from cluster.stages.strategy_options import POLICIES, options_of, perpetual
from observability.errors import SettingsError
from trading.adapters.bot_spec import ARBITRAGES
from trading.adapters.coordinator_actor import CoordinatorConfig
from trading.arbitrage.coordinator import LegName
from trading.arbitrage.standing import LONG, SHORT, PairPlan


def leg_pair(given: Mapping[str, Any], arbitrage: str, leg: LegName, first: str) -> str:
    """The pair of a leg, by the arbitrage's options `given`, else the `first` of the market and its perpetual.

    Raises:
        SettingsError: both legs would trade one book.
    """
    long = str(given.get("long", first))
    short = perpetual(str(given.get("short", long)))
    if long == short and "short_workspace" not in given:
        raise SettingsError("both legs trade one book", where=f"trade.options.{arbitrage}", todo="name two")
    return long if leg == LONG else short


def leg_exchange(
    settings: Settings, arbitrage: str, leg: LegName | None, exchange: RunningExchange | None, *, virtual: bool
) -> RunningExchange | None:
    """The sandbox exchange that a bot trades on: the workspace's, or another for a short leg with `short_workspace`.

    Raises:
        SettingsError: none runs there, or each of the two has a virtual clock of its own.
    """
    given, where = settings.trade.options.get(arbitrage, {}), f"trade.options.{arbitrage}.short_workspace"
    if leg != SHORT or "short_workspace" not in given:
        return exchange
    if exchange is None:
        raise SettingsError("a second exchange is for the sandbox only", where=where, todo="leave it out")
    if virtual:
        raise SettingsError("two exchanges have two virtual clocks", where=where, todo="exchange up --mode wall, both")
    other = find_exchange(settings.changed(workspace={"root": Path(given["short_workspace"])}))
    if other is None:
        raise SettingsError("no sandbox exchange runs there", where=where, todo="exchange up in that workspace first")
    return other


def plan_of(settings: Settings, arbitrage: str) -> PairPlan:
    """How the two legs of an arbitrage are traded; raises SettingsError for an option that it does not know."""
    given, usual = options_of(settings, arbitrage), PairPlan(POLICIES[arbitrage]())
    return PairPlan(
        POLICIES[arbitrage](**given["policy"]),
        replace(usual.legs, timeout_ms=_ms(given, "timeout_s", usual.legs.timeout_ms)),
        _ms(given, "rest_s", usual.rest_ms),
        _ms(given, "silence_s", usual.silence_ms),
    )


def coordinators(settings: Settings, url: str = "") -> tuple[CoordinatorConfig, ...]:
    """A coordinator for each configured arbitrage, on the virtual clock of the sandbox exchange at `url`, if any."""
    folder = settings.workspace.var / "legs"
    return tuple(
        CoordinatorConfig(name, plan_of(settings, name), (folder / f"{name}.json").resolve(), url)
        for name in settings.trade.strategies
        if name in ARBITRAGES
    )


def _ms(given: Mapping[str, Any], name: str, usual_ms: int) -> int:
    return int(float(given.get(name, usual_ms / 1000)) * 1000)
