"""Which bots the settings ask for, where they get forecasts, and the limits that the risk manager holds them to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster.settings import Settings
from cluster.stages.exchange import RunningExchange
from mtst.adapters.bento import about_model, token_of
from observability.errors import SettingsError
from pipelines.candles import timeframe_ms
from trading.adapters.bot_spec import BotSpec
from trading.limits import MINUTE_MS, RiskLimits

FORECAST_STRATEGIES = frozenset({"nn_predictor"})
BACKTEST_ONLY = frozenset({"stat_arb"})  # perpetuals: a bot's books do not know short positions yet
REAL_EXCHANGES = ("binance",)
LEAST_HISTORY = 400  # what the slowest plain rule needs to warm up


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


def bot_folders(settings: Settings) -> dict[str, Path]:
    """Folder of every configured bot, by name; a bot is called like its strategy."""
    root = settings.workspace.var / "bots"
    return {name: (root / name).resolve() for name in settings.trade.strategies}


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
    if unready := sorted(BACKTEST_ONLY & set(trade.strategies)):
        raise SettingsError(f"{', '.join(unready)} can only be tried on the past", todo="trade backtest")
    if real and market.exchange not in REAL_EXCHANGES:
        raise SettingsError(f"{market.exchange} cannot be traded", todo=f"use sandbox or {', '.join(REAL_EXCHANGES)}")
    if real and trade.mode == "live" and len(trade.strategies) != 1:
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
            strategy=name,
            account=name if exchange is not None else f"{market.exchange}-{name}",
            venue="sandbox" if exchange is not None else market.exchange,
            mode="live" if exchange is not None else trade.mode,
            pairs=tuple(pairs),
            timeframe=exchange.timeframe if exchange is not None else market.timeframe,
            folder=str(folder),
            url=exchange.url if exchange is not None else "",
            key_file=_key_file(settings, exchange, name),
            virtual_clock=exchange is not None and virtual,
            forecast_url=forecasts.url if name in FORECAST_STRATEGIES else "",
            forecast_token_file=token if name in FORECAST_STRATEGIES else "",
            targets_dir=str(settings.workspace.targets.resolve()),
            switch=str(settings.workspace.kill_switch.resolve()),
            notify_file=str(trade.notify_file.resolve()) if trade.notify_file else "",
            play_money=trade.play_money,
            settings={"max_history": max(forecasts.history, LEAST_HISTORY), "policy": _policy(settings, name)},
        )
        for name, folder in bot_folders(settings).items()
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
        shadow_trades_play_money=play,
        max_data_age_ms=candle_ms + 5 * MINUTE_MS,
        max_forecast_age_ms=candle_ms + 5 * MINUTE_MS,
        # a bot on virtual time renews its lease once a candle
        lease_ttl_ms=2 * candle_ms if leaps else RiskLimits().lease_ttl_ms,
    )


def _policy(settings: Settings, strategy: str) -> dict[str, Any]:
    """How a strategy reads its input: forecasts as they were judged, on the longest horizon unless told otherwise."""
    if strategy not in FORECAST_STRATEGIES:
        return {}
    horizon = settings.trade.horizon or max(settings.features.horizons)
    return {"horizon": horizon, "min_edge": settings.trade.min_edge}


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
