"""`trade.options`: what a strategy may be told, by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster.settings import Settings
from observability.errors import SettingsError
from trading.arbitrage.carry import CarryPolicy, GapPolicy
from trading.arbitrage.spread import PairPolicy
from trading.rules import ScalpPolicy, SwingPolicy
from trading.signals import SignalPolicy

FORECAST_STRATEGIES = frozenset({"nn_predictor"})
POLICIES: Mapping[str, type[Any]] = {
    "nn_predictor": SignalPolicy,
    "swing": SwingPolicy,
    "scalp": ScalpPolicy,
    "stat_arb": PairPolicy,
    "carry": CarryPolicy,
    "gap": GapPolicy,
}
LEG_OPTIONS = frozenset(
    {"policy", "stake_fraction", "long", "short", "short_workspace", "leg_stop", "timeout_s", "rest_s", "silence_s"}
)
OPTIONS: Mapping[str, frozenset[str]] = {
    "nn_predictor": frozenset({"policy", "rules"}),
    "swing": frozenset({"policy", "stake_fraction"}),
    "scalp": frozenset({"policy", "stake_fraction"}),
    "stat_arb": frozenset({"policy", "stake_fraction", "legs", "leg_stop", "leg_timeout"}),
    "carry": LEG_OPTIONS,
    "gap": LEG_OPTIONS,
}


def options_of(settings: Settings, strategy: str) -> dict[str, Any]:
    """A strategy's own settings: `trade.options`, forecasts read as they were judged unless told otherwise.

    Raises:
        SettingsError: no such strategy, or an option, or a field of its policy, that it does not know.
    """
    if strategy not in POLICIES:
        raise SettingsError(
            f"no strategy is called {strategy!r}", where="trade.strategies", todo=f"use one of {', '.join(POLICIES)}"
        )
    given, where = dict(settings.trade.options.get(strategy, {})), f"trade.options.{strategy}"
    unknown = sorted(set(given) - OPTIONS[strategy])
    if unknown:
        raise SettingsError(f"unknown: {', '.join(unknown)}", where=where, todo="see docs/strategies.md")
    policy = dict(given.get("policy", {}))
    if strategy in FORECAST_STRATEGIES:
        horizon = settings.trade.horizon or max(settings.features.horizons)
        policy = {"horizon": horizon, "min_edge": settings.trade.min_edge, **policy}
    try:
        POLICIES[strategy](**policy)
    except TypeError as error:
        raise SettingsError(
            f"no such policy: {error}", where=f"{where}.policy", todo="see docs/strategies.md"
        ) from error
    return {**given, "policy": policy}


def perpetual(pair: str) -> str:
    """The perpetual of a pair: BTC/USDT:USDT of BTC/USDT."""
    return pair if ":" in pair else f"{pair}:{pair.partition('/')[2]}"
