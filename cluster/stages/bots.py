"""Which bots the settings ask for, where they get forecasts, and the limits that the risk manager holds them to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.settings import Settings
from cluster.stages.arbitrage import leg_exchange, leg_pair, plan_of
from cluster.stages.exchange import RunningExchange
from cluster.stages.live_keys import live_keys
from cluster.stages.strategy_options import FORECAST_STRATEGIES, options_of, perpetual
from mtst.adapters.bento import about_model, token_of
from observability.errors import SettingsError
from pipelines.candles import timeframe_ms
from trading.adapters.bot_spec import ARBITRAGES, BotSpec
from trading.arbitrage.coordinator import LegName
from trading.arbitrage.standing import LONG, SHORT
from trading.limits import MINUTE_MS, RiskLimits
from trading.limits_file import LimitsFile

REAL_EXCHANGES = ("binance",)
MOST_TRADES = 6  # of a bot at a time; the risk manager's own limit is another
LEAST_HISTORY = 400  # what the slowest plain rule needs to warm up
HISTORY = {"stat_arb": 600}  # candles before the first signal, where it is more than that


@dataclass(frozen=True)
class Forecasts:
    """Where the bots get forecasts: the service's address, the file with its token, and how many candles it reads."""

    url: str = ""
    token_file: Path | None = None
    history: int = 400

    @classmethod
    def at(cls, url: str, token_file: Path) -> Forecasts:
        """Ask the service how many candles it needs; raises ForecastError when it does not answer."""
        return cls(url, token_file, int(about_model(url, token_of(token_file))["history"]))


def bot_names(settings: Settings) -> dict[str, tuple[str, LegName | None]]:
    """Every configured bot's strategy, and its leg: a bot is called like its strategy, two legs have two bots."""
    found: dict[str, tuple[str, LegName | None]] = {}
    for name in settings.trade.strategies:
        legs = {f"{name}-long": LONG, f"{name}-short": SHORT}
        found |= {bot: (name, leg) for bot, leg in legs.items()} if name in ARBITRAGES else {name: (name, None)}
    return found


def bot_folders(settings: Settings) -> dict[str, Path]:
    """Folder of every configured bot, by name."""
    root = settings.workspace.var / "bots"
    return {name: (root / name).resolve() for name in bot_names(settings)}


def check_bots(settings: Settings, forecasts: Forecasts) -> None:
    """Say what can be known to be wrong before anything starts.

    Raises:
        SettingsError: a strategy, one of its options or a limit is unknown, or a strategy lacks its forecasts.
    """
    for strategy in settings.trade.strategies:
        options_of(settings, strategy)
    needy = FORECAST_STRATEGIES & set(settings.trade.strategies)
    if needy and not forecasts.url:
        raise SettingsError(
            f"{', '.join(needy)} needs forecasts and no model is served", todo="serve up first, or trade rules only"
        )
    LimitsFile(settings.workspace.risk_file, _given_limits(settings)).changed()


def bot_specs(
    settings: Settings, forecasts: Forecasts, exchange: RunningExchange | None = None, *, virtual: bool = True
) -> tuple[BotSpec, ...]:
    """The bots that the settings ask for.

    Args:
        settings: market, strategies, mode and key file.
        forecasts: the prediction service, for strategies that need one.
        exchange: the sandbox exchange, with one account a bot named like it; None for a real exchange.
        virtual: whether the sandbox's clock is virtual.

    Raises:
        SettingsError: a strategy needs what is not there, or the exchange cannot be traded.
    """
    trade, market = settings.trade, settings.market
    real = exchange is None
    if real and market.exchange not in REAL_EXCHANGES:
        raise SettingsError(f"{market.exchange} cannot be traded", todo=f"use sandbox or {', '.join(REAL_EXCHANGES)}")
    names, folders = bot_names(settings), bot_folders(settings)
    keys = live_keys(trade, tuple(names)) if real and trade.mode == "live" else {}
    check_bots(settings, forecasts)
    pairs = exchange.pairs if exchange is not None else market.pairs
    token = str(forecasts.token_file.resolve()) if forecasts.token_file else ""
    specs = []
    for name, (strategy, leg) in names.items():
        at = leg_exchange(settings, strategy, leg, exchange, virtual=virtual)
        spec = BotSpec(
            name=name,
            strategy=strategy,
            account=f"{market.exchange}-{name}" if at is None else name,
            venue=market.exchange if at is None else "sandbox",
            mode=trade.mode if at is None else "live",
            pairs=_pairs(settings, strategy, leg, pairs),
            timeframe=market.timeframe if at is None else at.timeframe,
            folder=str(folders[name]),
            url="" if at is None else at.url,
            key_file=_sandbox_key(at, name) if at is not None else str(keys.get(name, "")),
            virtual_clock=at is not None and virtual,
            forecast_url=forecasts.url if strategy in FORECAST_STRATEGIES else "",
            forecast_token_file=token if strategy in FORECAST_STRATEGIES else "",
            targets_dir=str(settings.workspace.targets.resolve()),
            switch=str(settings.workspace.kill_switch.resolve()),
            notify_file=str(trade.notify_file.resolve()) if trade.notify_file else "",
            dsn_file=str(trade.bots_dsn_file.resolve()) if trade.bots_dsn_file else "",
            play_money=trade.play_money,
            max_open_trades=MOST_TRADES if leg is None else 1,
            settings=_strategy_settings(settings, strategy, leg, forecasts),
        )
        specs.append(spec)
    return tuple(specs)


def _strategy_settings(settings: Settings, strategy: str, leg: LegName | None, forecasts: Forecasts) -> dict[str, Any]:
    """The `mtst` table of a bot's configuration."""
    given = {"max_history": max(forecasts.history, history_of(strategy)), **options_of(settings, strategy)}
    return given if leg is None else {**given, "leg": leg, "silence_ms": plan_of(settings, strategy).silence_ms}


def risk_limits(settings: Settings, specs: tuple[BotSpec, ...]) -> RiskLimits:
    """Limits for these bots: the settings' own, cautious defaults, times by the candle's length.

    An unproven model, and an expected loss after costs, may use play money only.

    Raises:
        SettingsError: `trade.min_edge` is below 0 where money is real.
    """
    play = all(spec.play for spec in specs)
    if settings.trade.min_edge < 0 and not play:
        raise SettingsError(
            f"an edge of {settings.trade.min_edge} is an expected loss", where="trade.min_edge", todo="set it to 0"
        )
    candle_ms = max(timeframe_ms(spec.timeframe) for spec in specs)
    leaps = any(spec.virtual_clock for spec in specs)
    return replace(
        _given_limits(settings),
        accounts={spec.account: spec.risk_venue for spec in specs},
        pairs=frozenset(pair for spec in specs for pair in spec.pairs),
        rule_bots=frozenset(spec.name for spec in specs if spec.strategy not in FORECAST_STRATEGIES),
        short_venues=frozenset(spec.risk_venue for spec in specs if spec.futures),
        shadow_trades_play_money=play,
        max_data_age_ms=candle_ms + 5 * MINUTE_MS,
        max_forecast_age_ms=candle_ms + 5 * MINUTE_MS,
        # a bot on virtual time renews its lease once a candle
        lease_ttl_ms=2 * candle_ms if leaps else RiskLimits().lease_ttl_ms,
    )


def _given_limits(settings: Settings) -> RiskLimits:
    return RiskLimits.from_dict({"min_edge": settings.trade.min_edge, **settings.risk})


def history_of(strategy: str) -> int:
    """Candles that a strategy sees before its first signal."""
    return HISTORY.get(strategy, LEAST_HISTORY)


def _pairs(settings: Settings, strategy: str, leg: LegName | None, pairs: Sequence[str]) -> tuple[str, ...]:
    """What a bot trades: all pairs, two perpetuals, or the one of its leg."""
    given = settings.trade.options.get(strategy, {})
    if leg is not None:
        return (leg_pair(given, strategy, leg, pairs[0]),)
    return tuple(perpetual(pair) for pair in given.get("legs") or pairs[:2]) if strategy == "stat_arb" else tuple(pairs)


def _sandbox_key(exchange: RunningExchange, name: str) -> str:
    if name not in exchange.key_files:
        raise SettingsError(
            f"the sandbox exchange has no account {name}",
            where=exchange.url,
            todo=f"exchange down, then exchange up --account {name}",
        )
    return str(Path(exchange.key_files[name]).resolve())
