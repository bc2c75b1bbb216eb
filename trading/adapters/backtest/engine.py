"""One backtest: Freqtrade's engine, our strategy, out-of-sample forecasts and the risk manager at every entry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
from freqtrade.configuration.config_setup import setup_utils_configuration
from freqtrade.enums import RunMode
from freqtrade.exceptions import FreqtradeException
from freqtrade.optimize.backtesting import Backtesting
from freqtrade.persistence import LocalTrade, enable_database_use

from observability.errors import TradingError
from observability.files import write_whole
from observability.progress import Progress
from trading.adapters.backtest.candles import offline_exchange, write_candles, write_funding
from trading.adapters.backtest.desk import VENUE, BacktestDesk
from trading.adapters.bot_spec import BotSpec
from trading.adapters.freqtrade_config import check_environment, write_config
from trading.adapters.strategies.base import FailClosedStrategy
from trading.clock import FixedClock
from trading.limits import DAY_MS, RiskLimits
from trading.manager import RiskManager

JOURNAL = "journal.db"
ALWAYS_MS = 1000 * 365 * DAY_MS


@dataclass(frozen=True)
class BacktestPlan:
    """What to try.

    Attributes:
        spec: the bot; its folder takes everything that the run writes, its settings go to the strategy.
        candles: candle table by pair.
        limits: the risk manager's; its account and venue are set here.
        cost: fee and expected slippage of one side, as a fraction.
        since_ms, until_ms: first and last time to trade; 0: as far as the candles reach. Candles before are warm-up.
        resume_after_ms: after how long a person lifts a tripped breaker; 0: never.
        funding: funding rates by pair, for perpetuals.
    """

    spec: BotSpec
    candles: Mapping[str, pl.DataFrame]
    limits: RiskLimits
    cost: float
    since_ms: int = 0
    until_ms: int = 0
    resume_after_ms: int = 0
    funding: Mapping[str, pl.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class BacktestRun:
    """Where a run left its journal, how often each doubt of the strategy or the gate kept an entry back."""

    journal: Path
    doubts: Mapping[str, int]
    trades: tuple[Mapping[str, Any], ...]


class GatedBacktesting(Backtesting):
    """Freqtrade's engine, asking at order creation as live: first entries and additions to a position alike."""

    desk: BacktestDesk

    def get_valid_entry_price_and_stake(self, pair: str, row: Any, *args: Any, **kwargs: Any) -> Any:
        """Freqtrade's price and stake, cut to what the risk manager approves; a stake of 0 makes no order."""
        price, stake, leverage, least = super().get_valid_entry_price_and_stake(pair, row, *args, **kwargs)
        direction = args[2] if len(args) > 2 else kwargs["direction"]
        if not stake or not price:
            return price, 0.0, leverage, least
        amount = stake / price * leverage
        approved = self.desk.ask(pair, "sell" if direction == "short" else "buy", amount, price)
        return price, stake * min(1.0, approved / amount), leverage, least

    def check_abort(self) -> None:
        """Every candle: a risk manager that failed ends the run."""
        if hasattr(self, "desk") and self.desk.failure is not None:
            raise self.desk.failure
        super().check_abort()


def run_backtest(plan: BacktestPlan, progress: Progress) -> BacktestRun:
    """Trade a plan through; the folder's journal then tells all of it.

    Raises:
        TradingError: Freqtrade cannot run it. DataError: a pair has no candles. ForecastError: wrong forecasts.
    """
    check_environment()
    folder = Path(plan.spec.folder)
    stored = folder / "candles"
    write_candles(stored, plan.candles, plan.spec.timeframe)
    for pair, rates in plan.funding.items():
        write_funding(stored, pair, rates, plan.candles[pair])
    for old in folder.glob(f"{JOURNAL}*"):
        old.unlink()
    config = _config(plan, stored)
    clock = FixedClock()
    manager = RiskManager(folder / JOURNAL, _limits(plan), clock)
    try:
        with progress.task(f"backtest of {plan.spec.strategy}") as task:
            engine = _engine(plan, config, manager, clock)
            data, span = engine.load_bt_data()
            # not `start`: its own statistics cost more than the trading, and the journal tells everything
            engine.backtest_one_strategy(engine.strategylist[0], data, span)
            engine.desk.finish()
            task.done(f"{len(LocalTrade.bt_trades)} trades")
        return BacktestRun(folder / JOURNAL, _doubts(engine), _rows())
    except FreqtradeException as error:
        raise TradingError(f"Freqtrade cannot run this backtest: {error}", where=plan.spec.name) from error
    finally:
        manager.close()
        Backtesting.cleanup()
        enable_database_use()


def _engine(plan: BacktestPlan, config: dict[str, Any], manager: RiskManager, clock: FixedClock) -> GatedBacktesting:
    prices = {pair: float(table["close"].median()) for pair, table in plan.candles.items()}  # type: ignore[arg-type]
    engine = GatedBacktesting(config, offline_exchange(config, prices))
    (strategy,) = engine.strategylist
    if not isinstance(strategy, FailClosedStrategy):
        raise TradingError(f"{type(strategy).__name__} is not a FailClosedStrategy", where=plan.spec.name)
    engine.desk = BacktestDesk(
        plan.spec.name, manager, clock, engine.wallets, plan.spec.play_money, plan.resume_after_ms
    )
    engine.desk.connect(strategy)
    return engine


def _config(plan: BacktestPlan, data: Path) -> dict[str, Any]:
    """The bot's own layers, as live, and one above them for the engine."""
    spec = plan.spec
    paths = write_config(spec)
    layer: dict[str, Any] = {"fee": plan.cost, "datadir": str(data), "export": "none", "backtest_cache": "none"}
    if plan.since_ms or plan.until_ms:
        layer["timerange"] = f"{plan.since_ms // 1000 or ''}-{plan.until_ms // 1000 or ''}"
    top = write_whole(Path(spec.folder) / "config" / "backtest.json", json.dumps(layer, indent=1))
    config: dict[str, Any] = setup_utils_configuration(
        {"config": [str(path) for path in (*paths, top)]}, RunMode.BACKTEST
    )
    config["datadir"] = data
    return config


def _limits(plan: BacktestPlan) -> RiskLimits:
    """The plan's limits, for an account whose money is simulated and whose lease nobody contests."""
    return replace(
        plan.limits,
        accounts={plan.spec.name: VENUE},
        play_money_venues=frozenset({VENUE}),
        short_venues=frozenset({VENUE}),
        shadow_trades_play_money=True,
        lease_ttl_ms=ALWAYS_MS,
    )


def _doubts(engine: GatedBacktesting) -> dict[str, int]:
    strategy = engine.strategylist[0]
    return {**getattr(strategy, "problems", {}), **engine.desk.refused_by_gate}


def _rows() -> tuple[Mapping[str, Any], ...]:
    """Every closed trade, oldest first."""
    return tuple(
        {
            "pair": trade.pair,
            "opened": trade.open_date_utc.strftime("%Y-%m-%d %H:%M"),
            "closed": trade.close_date_utc.strftime("%Y-%m-%d %H:%M") if trade.close_date_utc else "",
            "side": "short" if trade.is_short else "long",
            "stake": round(trade.stake_amount, 2),
            "entry": trade.open_rate,
            "exit": trade.close_rate,
            "profit": round(trade.close_profit_abs or 0.0, 4),
            "why in": trade.enter_tag or "",
            "why out": trade.exit_reason or "",
        }
        for trade in LocalTrade.bt_trades
    )
