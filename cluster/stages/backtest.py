"""Backtest: a strategy over stored candles, by Freqtrade's engine, behind the risk manager."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

from cluster.console import plain
from cluster.settings import Settings
from cluster.stages.bots import history_of
from cluster.stages.data import open_store
from cluster.stages.strategy_options import FORECAST_STRATEGIES, options_of
from cluster.stages.trade_report import Judged, judge_journal, write_page
from observability.errors import DataError, ForecastError, SettingsError
from observability.files import write_whole
from observability.progress import Progress
from pipelines.candles import timeframe_ms
from pipelines.series import SeriesKey
from trading.adapters.bot_spec import ARBITRAGES, BotSpec
from trading.adapters.oos_source import OutOfSampleForecasts
from trading.limits import MINUTE_MS, RiskLimits
from trading.performance import AccountPerformance

HOUR_MS = 60 * MINUTE_MS
RESULT, REPORT = "result.json", "report.html"


@dataclass(frozen=True)
class BacktestOptions:
    """What to try, beside the settings.

    Attributes:
        strategy: name of a strategy.
        candles: folder of `PAIR-TIMEFRAME.parquet` files; None takes the workspace's store.
        forecasts: file of out-of-sample forecasts, for a strategy that needs them; None takes the newest one here.
        cost: fee and expected slippage of one side.
        since_ms, until_ms: first and last time to trade; 0: as far as the candles reach.
        resume_after_h: after how long a person lifts a tripped breaker; 0: nobody ever does.
    """

    strategy: str
    candles: Path | None = None
    forecasts: Path | None = None
    cost: float = 0.0012
    since_ms: int = 0
    until_ms: int = 0
    resume_after_h: float = 24.0
    out: Path | None = None


@dataclass(frozen=True)
class BacktestSummary:
    """What came out.

    Attributes:
        hold_ratio: what equal parts of all pairs, bought at the start and sold at the end, earn after costs.
        text: what it means, in words.
        doubts: entries that the strategy kept back because something was missing, by place.
        resumed: how often the simulated person lifted a breaker.
    """

    strategy: str
    pairs: tuple[str, ...]
    timeframe: str
    since_ms: int
    until_ms: int
    candles: int
    start_equity: float
    end_equity: float
    profit_ratio: float
    max_drawdown: float
    mean_exposure: float
    hold_ratio: float
    trades: int
    wins: int
    fees: float
    turnover: float
    by_rule: Mapping[str, int]
    breakers: int
    resumed: int
    doubts: Mapping[str, int]
    text: str
    folder: Path
    journal: Path
    report: Path


def backtest(settings: Settings, options: BacktestOptions, progress: Progress) -> BacktestSummary:
    """Trade a strategy over the past and write journal, result and report into a folder of their own.

    Raises:
        DataError: no candles, or none that all pairs share. StoreError: a pair is not stored.
        ForecastError: forecasts are missing or in sample. TradingError: Freqtrade cannot run it.
        SettingsError: no such strategy, or one that is an arbitrage over two books.
    """
    from trading.adapters.backtest.engine import BacktestPlan, run_backtest

    if options.strategy in ARBITRAGES:
        raise SettingsError(
            f"{options.strategy} is two bots on two books, which Freqtrade's engine cannot hold", todo="trade up"
        )
    options_of(settings, options.strategy)  # a wrong name is told before candles are asked for
    market = settings.market
    candles = _common({pair: _table(settings, options, pair, "ohlcv") for pair in market.pairs}, market.timeframe)
    folder = (options.out or settings.workspace.var / "backtests" / options.strategy).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    spec, since = _spec(settings, options, folder), options.since_ms
    if options.strategy in FORECAST_STRATEGIES:
        known = OutOfSampleForecasts.read(Path(str(spec.settings["forecasts"])), market.timeframe)  # type: ignore[index]
        since = max(since, known.first_ms)
        options = replace(options, until_ms=min(options.until_ms or known.last_ms, known.last_ms))
    plan = BacktestPlan(
        spec,
        candles,
        _limits(settings, options),
        options.cost,
        since,
        options.until_ms,
        int(options.resume_after_h * HOUR_MS),
        {pair: _table(settings, options, pair, "funding") for pair in market.pairs if ":" in pair},
    )
    run = run_backtest(plan, progress)
    judged = judge_journal(run.journal)
    summary = _summary(plan, folder, run.journal, judged, run.doubts)
    write_whole(folder / RESULT, json.dumps(plain(summary) | {"trades_list": list(run.trades)}, indent=1, default=str))
    write_page(folder / REPORT, judged, list(run.trades), title=f"Backtest of {options.strategy}", text=summary.text)
    return summary


def _spec(settings: Settings, options: BacktestOptions, folder: Path) -> BotSpec:
    trade, market = settings.trade, settings.market
    given = {"max_history": history_of(options.strategy), **options_of(settings, options.strategy)}
    if options.strategy in FORECAST_STRATEGIES:
        given["forecasts"] = str(options.forecasts or newest_forecasts(settings))
    return BotSpec(
        name=options.strategy,
        strategy=options.strategy,
        account=options.strategy,
        venue="binance",
        mode="dry-run",
        pairs=tuple(market.pairs),
        timeframe=market.timeframe,
        folder=str(folder),
        api_server=False,
        play_money=trade.play_money,
        settings=given,
    )


def newest_forecasts(settings: Settings) -> Path:
    """The workspace's newest file of out-of-sample forecasts.

    Raises:
        ForecastError: there is none.
    """
    found = sorted(settings.workspace.models.rglob("forecasts.parquet"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ForecastError(
            "there are no out-of-sample forecasts here",
            where=str(settings.workspace.models),
            todo="train evaluate first",
        )
    return found[-1]


def _limits(settings: Settings, options: BacktestOptions) -> RiskLimits:
    step = timeframe_ms(settings.market.timeframe)
    bots = frozenset() if options.strategy in FORECAST_STRATEGIES else frozenset({options.strategy})
    return replace(
        RiskLimits.from_dict({"min_edge": settings.trade.min_edge, **settings.risk}),
        rule_bots=bots,
        max_data_age_ms=step + 5 * MINUTE_MS,
        max_forecast_age_ms=step + 5 * MINUTE_MS,
    )


def _table(settings: Settings, options: BacktestOptions, pair: str, kind: Literal["ohlcv", "funding"]) -> pl.DataFrame:
    """A stored series of a pair, from the folder named or from the store."""
    market = settings.market
    timeframe = market.timeframe if kind == "ohlcv" else ""
    if options.candles is None:
        return open_store(settings).read(SeriesKey(market.exchange, kind, pair, timeframe))
    path = series_file(options.candles, pair, timeframe or kind)
    if not path.is_file():
        raise DataError(f"no {kind} of {pair}", where=str(path), todo="files are PAIR-TIMEFRAME.parquet")
    return pl.read_parquet(path)


def series_file(folder: Path, pair: str, series: str) -> Path:
    """File of a pair's `series`, a timeframe or "funding"; a perpetual's is its own where there is one, else spot's."""
    name = pair.replace("/", "_").partition(":")[0]
    own = folder / f"{name}-perpetual-{series}.parquet"
    return own if ":" in pair and own.is_file() else folder / f"{name}-{series}.parquet"


def _common(candles: dict[str, pl.DataFrame], timeframe: str) -> dict[str, pl.DataFrame]:
    """The tables cut to the span that all of them cover: a pair that ends early would look like one never traded."""
    first = max(table["timestamp"][0] for table in candles.values())
    last = min(table["timestamp"][-1] for table in candles.values())
    if first >= last:
        raise DataError(f"the pairs share no {timeframe} candles", where=", ".join(candles))
    return {pair: table.filter(pl.col("timestamp").is_between(first, last)) for pair, table in candles.items()}


def hold_ratio(candles: Mapping[str, pl.DataFrame], since_ms: int, until_ms: int, cost: float) -> float:
    """What equal parts of all pairs earn when bought at the first close and sold at the last, after costs."""
    gains = []
    for table in candles.values():
        times = table["timestamp"].dt.epoch("ms")
        closes = table.filter((times >= since_ms) & (times <= until_ms))["close"]
        gains.append(closes[-1] / closes[0] * (1.0 - cost) ** 2 - 1.0 if len(closes) else 0.0)
    return sum(gains) / len(gains)


def _summary(plan: Any, folder: Path, journal: Path, judged: Judged, doubts: Mapping[str, int]) -> BacktestSummary:
    name = plan.spec.name
    if name not in judged.performance.accounts:
        raise DataError("the candles end before the strategy's warm-up does", where=name, todo="give more history")
    account, moves = judged.performance.accounts[name], judged.performance.breakers
    total, since, until = account.total, account.equity[0][0], account.equity[-1][0]
    tripped = [move for move in moves if move[1] in ("halted", "reducing")]
    hold = hold_ratio(plan.candles, since, until, plan.cost)
    return BacktestSummary(
        strategy=plan.spec.strategy,
        pairs=plan.spec.pairs,
        timeframe=plan.spec.timeframe,
        since_ms=since,
        until_ms=until,
        candles=len(account.equity),
        start_equity=account.equity[0][1],
        end_equity=account.equity[-1][1],
        profit_ratio=account.profit_ratio,
        max_drawdown=account.max_drawdown,
        mean_exposure=account.mean_exposure,
        hold_ratio=hold,
        trades=total.trades,
        wins=total.wins,
        fees=total.fees,
        turnover=total.turnover,
        by_rule=judged.performance.by_rule,
        breakers=len(tripped),
        resumed=sum(move[2] == "simulated person" for move in moves),
        doubts=doubts,
        text=_words(plan.spec.strategy, account, hold),
        folder=folder,
        journal=journal,
        report=folder / REPORT,
    )


def _words(strategy: str, account: AccountPerformance, hold: float) -> str:
    """What the figures mean, without hope."""
    profit, trades, fees = account.profit_ratio, account.total.trades, account.total.fees
    if not trades:
        return f"{strategy} never traded: nothing to judge."
    verdict = "earned" if profit > 0 else "lost"
    against = "more than" if profit > hold else "less than"
    few = " Fewer than 30 trades say next to nothing." if trades < 30 else ""
    return (
        f"{strategy} {verdict} {abs(profit):.2%} after costs of {fees:,.2f} in {trades} trades, {against} holding the "
        f"pairs ({hold:+.2%}) and {'more' if profit > 0 else 'less'} than cash; it once stood "
        f"{account.max_drawdown:.2%} below its best.{few} "
        "One past is one sample: choose nothing by it that you would not lose."
    )
