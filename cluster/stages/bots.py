"""Which bots the settings ask for, where they get forecasts, and the limits that the risk manager holds them to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.settings import Settings
from cluster.stages.exchange import RunningExchange
from mtst.adapters.bento import about_model, token_of
from observability.errors import SettingsError
from pipelines.candles import timeframe_ms
from trading.adapters.bot_spec import ARBITRAGES, BotSpec
from trading.adapters.coordinator_actor import CoordinatorConfig
from trading.arbitrage.carry import CarryPolicy, GapPolicy
from trading.arbitrage.coordinator import LegName
from trading.arbitrage.spread import PairPolicy
from trading.arbitrage.standing import LONG, SHORT, PairPlan
from trading.limits import MINUTE_MS, RiskLimits
from trading.rules import ScalpPolicy, SwingPolicy
from trading.signals import SignalPolicy

FORECAST_STRATEGIES = frozenset({"nn_predictor"})
REAL_EXCHANGES = ("binance",)
MOST_TRADES = 6  # of a bot at a time; the risk manager's own limit is another
LEAST_HISTORY = 400  # what the slowest plain rule needs to warm up
HISTORY = {"stat_arb": 600}  # candles before the first signal, where it is more than that
POLICIES: Mapping[str, type[Any]] = {
    "nn_predictor": SignalPolicy,
    "swing": SwingPolicy,
    "scalp": ScalpPolicy,
    "stat_arb": PairPolicy,
    "carry": CarryPolicy,
    "gap": GapPolicy,
}
LEG_OPTIONS = frozenset({"policy", "stake_fraction", "long", "short", "leg_stop", "timeout_s", "rest_s", "silence_s"})
OPTIONS: Mapping[str, frozenset[str]] = {
    "nn_predictor": frozenset({"policy", "rules"}),
    "swing": frozenset({"policy", "stake_fraction"}),
    "scalp": frozenset({"policy", "stake_fraction"}),
    "stat_arb": frozenset({"policy", "stake_fraction", "legs", "leg_stop", "leg_timeout"}),
    "carry": LEG_OPTIONS,
    "gap": LEG_OPTIONS,
}


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
    if real and trade.mode == "live" and len(names) != 1:
        raise SettingsError(
            "live, one account serves exactly one bot", where=f"trade.strategies = {list(trade.strategies)}",
            todo="name one strategy; several bots on one account would corrupt each other's books",
        )  # fmt: skip
    needy = FORECAST_STRATEGIES & set(trade.strategies)
    if needy and not forecasts.url:
        raise SettingsError(
            f"{', '.join(needy)} needs forecasts and no model is served", todo="serve up first, or trade rules only"
        )
    pairs = exchange.pairs if exchange is not None else market.pairs
    token = str(forecasts.token_file.resolve()) if forecasts.token_file else ""
    return tuple(
        BotSpec(
            name=name,
            strategy=strategy,
            account=name if exchange is not None else f"{market.exchange}-{name}",
            venue="sandbox" if exchange is not None else market.exchange,
            mode="live" if exchange is not None else trade.mode,
            pairs=_pairs(settings, strategy, leg, pairs),
            timeframe=exchange.timeframe if exchange is not None else market.timeframe,
            folder=str(folders[name]),
            url=exchange.url if exchange is not None else "",
            key_file=_key_file(settings, exchange, name),
            virtual_clock=exchange is not None and virtual,
            forecast_url=forecasts.url if strategy in FORECAST_STRATEGIES else "",
            forecast_token_file=token if strategy in FORECAST_STRATEGIES else "",
            targets_dir=str(settings.workspace.targets.resolve()),
            switch=str(settings.workspace.kill_switch.resolve()),
            notify_file=str(trade.notify_file.resolve()) if trade.notify_file else "",
            play_money=trade.play_money,
            max_open_trades=MOST_TRADES if leg is None else 1,
            settings={
                "max_history": max(forecasts.history, history_of(strategy)),
                **options_of(settings, strategy),
                **({} if leg is None else {"leg": leg, "silence_ms": plan_of(settings, strategy).silence_ms}),
            },
        )
        for name, (strategy, leg) in names.items()
    )


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
        RiskLimits.from_dict({"min_edge": settings.trade.min_edge, **settings.risk}),
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


def history_of(strategy: str) -> int:
    """Candles that a strategy sees before its first signal."""
    return HISTORY.get(strategy, LEAST_HISTORY)


def options_of(settings: Settings, strategy: str) -> dict[str, Any]:
    """A strategy's own settings: `trade.options`, forecasts read as they were judged unless told otherwise.

    Raises:
        SettingsError: an option, or a field of its policy, that the strategy does not know.
    """
    given, where = dict(settings.trade.options.get(strategy, {})), f"trade.options.{strategy}"
    unknown = sorted(set(given) - OPTIONS.get(strategy, set(given)))
    if unknown:
        raise SettingsError(f"unknown: {', '.join(unknown)}", where=where, todo="see docs/strategies.md")
    policy = dict(given.get("policy", {}))
    if strategy in FORECAST_STRATEGIES:
        horizon = settings.trade.horizon or max(settings.features.horizons)
        policy = {"horizon": horizon, "min_edge": settings.trade.min_edge, **policy}
    try:
        if strategy in POLICIES:  # an unknown strategy is told by its bot
            POLICIES[strategy](**policy)
    except TypeError as error:
        raise SettingsError(
            f"no such policy: {error}", where=f"{where}.policy", todo="see docs/strategies.md"
        ) from error
    return {**given, "policy": policy}


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


def _pairs(settings: Settings, strategy: str, leg: LegName | None, pairs: Sequence[str]) -> tuple[str, ...]:
    """What a bot trades: all pairs, two perpetuals, or the one of its leg."""
    given = settings.trade.options.get(strategy, {})
    if leg is not None:
        long = given.get("long", pairs[0])
        short = perpetual(given.get("short", long))
        if long == short:
            raise SettingsError("both legs trade one book", where=f"trade.options.{strategy}", todo="name two")
        return (long,) if leg == LONG else (short,)
    return tuple(perpetual(pair) for pair in given.get("legs") or pairs[:2]) if strategy == "stat_arb" else tuple(pairs)


def perpetual(pair: str) -> str:
    """The perpetual of a pair: BTC/USDT:USDT of BTC/USDT."""
    return pair if ":" in pair else f"{pair}:{pair.partition('/')[2]}"


def _key_file(settings: Settings, exchange: RunningExchange | None, name: str) -> str:
    if exchange is not None:
        if name not in exchange.key_files:
            raise SettingsError(
                f"the sandbox exchange has no account {name}", todo="exchange down, then exchange up --account ACCOUNT"
            )
        return str(Path(exchange.key_files[name]).resolve())
    # A dry run needs no key, and Freqtrade would hold it in memory for nothing.
    live = settings.trade.mode == "live" and settings.trade.key_file is not None
    return str(settings.trade.key_file.resolve()) if live and settings.trade.key_file else ""
