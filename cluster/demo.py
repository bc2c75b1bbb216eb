"""The main job, end to end, by the same stage functions that the single commands call.

candles -> features -> sweep -> judgement -> promotion -> served forecasts -> risk-approved orders -> crash and recovery
-> three books compared -> one report. Whatever is started is stopped again, also on Ctrl-C and when a stage fails.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.console import ConsoleProgress, to_json
from cluster.doctor import require_healthy
from cluster.environment import prepare_environment
from cluster.failure import blame_full_disk
from cluster.interrupts import Interrupts
from cluster.processes import adopt_orphans, end_children, stop
from cluster.settings import Settings
from cluster.short_folder import remove_short_folder, short_folder
from cluster.watch import RunWatch
from observability.only_one import only_one
from observability.progress import NullProgress

if TYPE_CHECKING:
    from cluster.facts import Facts
    from cluster.stages.exchange import RunningExchange
    from cluster.story import Story
    from trading.adapters.fleet import Fleet

STEP = 6  # candles of virtual time between two looks at the bots
STEP_SECONDS = 2.0  # the same where time is real
CRASH = (0.04, 0.45)  # share of the trading in which a bot is killed: when it holds positions, at the latest at the end
HALTED = (0.5, 0.7)  # share of the trading with the kill switch pulled
REPORT = "report.html"
ROUND_TRIP_COST = 0.0024  # fees and slippage of both sides, as `trading.signals.SignalPolicy` counts them
LONG_STREAK = 25  # the demo shows more than one losing streak; the default limit would end it at the first


@dataclass(frozen=True)
class DemoOptions:
    """How long to trade: virtual candles at the most, and real seconds at the most."""

    candles: int = 276
    trade_seconds: float = 130.0
    json_file: Path | None = None


def run_demo(settings: Settings, options: DemoOptions, progress: ConsoleProgress) -> Facts:
    """Run it in the folder `var/demo` of the workspace and leave its report there.

    Raises:
        StartError: another demo runs, or `doctor` finds the machine unfit.
        MtstError: a stage failed; what was started has been stopped.
        KeyboardInterrupt: the user or the system ended it; what was started has been stopped.
    """
    started_at = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    home = settings.workspace.root / "var" / "demo"
    with only_one(home.parent / "demo.lock", "the demo"), Interrupts() as interrupts, ExitStack() as stack:
        adopt_orphans()
        settings = _fresh(settings, home)
        stack.callback(remove_short_folder, settings.workspace.var, "tmp")
        stack.callback(end_children)
        stack.callback(interrupts.quiet)
        watch = stack.enter_context(RunWatch(settings.workspace.targets))
        with watch.stage("doctor"), progress.task("doctor"):
            require_healthy(settings)
        with watch.stage("import"), progress.task("load the frameworks"):
            # Only now: the stages import Ray, torch, MLflow and BentoML, which takes seconds.
            from cluster.report import write_report
            from cluster.story import Story, evidence_of, facts_of

        story = Story()
        settings = _Run(settings, options, progress, watch, interrupts, story).all()
        with watch.stage("report"), progress.task("report"):
            facts = facts_of(settings, story, watch, started_at, home / REPORT)
            write_report(home / REPORT, facts, evidence_of(settings, story))
        facts = replace(facts, wall_seconds=watch.wall_seconds, seconds=dict(watch.seconds))
    if options.json_file is not None:
        options.json_file.write_text(to_json(facts))
    return facts


def _fresh(settings: Settings, home: Path) -> Settings:
    """An empty workspace of its own; what a killed demo left behind is ended first."""
    for run_file in (home / "var" / "run").glob("*.json"):
        stop(run_file.stem, run_file.parent, grace_s=3.0)
    remove_short_folder(home / "var", "tmp")
    shutil.rmtree(home, ignore_errors=True)
    settings = settings.changed(
        workspace={"root": home},
        trade={"mode": "live" if settings.market.exchange == "sandbox" else "dry-run"},
        cluster={"num_cpus": settings.cluster.num_cpus or max(2, os.cpu_count() or 2)},
        risk={"max_losing_streak": LONG_STREAK, **settings.risk},
    )
    settings.workspace.make()
    temporary = short_folder(settings.workspace.var, "tmp")
    prepare_environment(settings)
    os.environ["TMPDIR"], tempfile.tempdir = str(temporary), None
    # The demo kills a bot on purpose; Ray's report of it would bury ours.
    os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "A worker died or was killed"
    return settings


@dataclass
class _Run:
    """One run: the stages in order, each timed, what they found kept in `story`."""

    settings: Settings
    options: DemoOptions
    progress: ConsoleProgress
    watch: RunWatch
    interrupts: Interrupts
    story: Story

    def all(self) -> Settings:
        """Run every stage; returns the settings with what the exchange said of its market."""
        with ExitStack() as stack:
            exchange = self._exchange(stack)
            self._candles(exchange)
            from cluster.ray_local import ray_session

            with self._stage("ray"), self.progress.task("Ray on loopback, with a token"):
                session = stack.enter_context(ray_session(self.settings))
            if session.dashboard_url:
                self.progress.say(f"Ray dashboard {session.dashboard_url}")
            handles = self._learn()
            self._serve_and_trade(exchange, handles)
        return self.settings

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self.interrupts.arm()
        try:
            with self.watch.stage(name):
                yield
            self.interrupts.check()
        except (KeyboardInterrupt, SystemExit):  # SystemExit is Ray's own answer to SIGTERM while it starts
            self.interrupts.quiet()
            self.progress.say("stopping everything that was started ...")
            raise KeyboardInterrupt from None
        except Exception as error:
            blame_full_disk(error, self.settings.workspace.root)
            raise

    def _exchange(self, stack: ExitStack) -> RunningExchange | None:
        from cluster.stages import exchange as stage
        from cluster.stages.bots import bot_names

        if self.settings.market.exchange != "sandbox":
            self.story.source = self.settings.market.exchange
            return None
        with self._stage("exchange"):
            exchange = stage.start_exchange(self.settings, self.progress, accounts=tuple(bot_names(self.settings)))
        stack.callback(exchange.stop)
        self.settings = self.settings.changed(market={"pairs": exchange.pairs, "timeframe": exchange.timeframe})
        self.story.source, self.story.trading_from_ms = exchange.market, exchange.open_ms
        return exchange

    def _candles(self, exchange: RunningExchange | None) -> None:
        from cluster.stages import data, enrichment, inspection

        with self._stage("backfill"):
            url = exchange.url if exchange else None
            self.story.backfill = data.backfill(self.settings, self.progress, base_url=url)
        with self._stage("enrich"):
            imported = enrichment.enrich(self.settings, self.progress).imported
            self.story.onchain_rows = sum(item.rows for item in imported)
        self.story.data = inspection.inspect(self.settings, NullProgress())
        self.story.trading_from_ms = self.story.trading_from_ms or self.story.backfill.until_ms

    def _learn(self) -> Any:
        from cluster.stages import data, trade, train
        from mtst.adapters.tracking import Tracker

        with self._stage("features"):
            self.story.features = data.build(self.settings, self.progress)
        # Freqtrade takes long to import: its actors do that while the models train.
        handles = trade.prepare(self.settings)
        with self._stage("sweep"):
            self.story.sweep = train.sweep(self.settings, self.progress)
        with self._stage("walk-forward"):
            self.story.judged = train.evaluate(self.settings, self.progress, short=True)
        with self._stage("promotion"):
            self.story.promoted = train.promote(self.settings, self.progress)
            left = Tracker(self.settings.workspace.mlflow_uri).open_runs(self.story.sweep.parent_run_id)
            self.story.left_running = len(left)
        return handles

    def _serve_and_trade(self, exchange: RunningExchange | None, handles: Any) -> None:
        from cluster import evidence
        from cluster.stages import bots, serve, trade

        with ExitStack() as stack:
            with self._stage("serve"):
                served = serve.up(self.settings, self.progress, detached=False)
            stack.callback(serve.down, self.settings)
            if self.story.promoted is not None and self.story.promoted.status != "champion":
                # Play money only: an unproven model hardly ever expects more than the costs, and would show nothing.
                self.settings = self.settings.changed(trade={"min_edge": -ROUND_TRIP_COST})
            forecasts = bots.Forecasts.at(served.url, served.token_file)
            specs = bots.bot_specs(self.settings, forecasts, exchange)
            self.story.databases = {spec.name: spec.database for spec in specs}
            with self._stage("bots"):
                fleet = trade.start_fleet(self.settings, self.progress, specs, handles=handles)
            self._trade_and_crash(exchange, fleet)
            last = fleet.status()
            self.story.metrics = evidence.exporter_facts(self.settings.workspace.targets)
            self.story.forecasts = evidence.forecast_facts(self.story.metrics, last.values())
            with self._stage("stop"), self.progress.task("stop the bots in order"):
                trade.stop_fleet(self.settings, fleet)
            self.story.closed = sum(status.closed_trades for status in last.values())
            self.story.opened = self.story.closed + sum(len(status.open_trades) for status in last.values())
            if exchange is not None:
                self._compare_books(exchange, fleet)

    def _compare_books(self, exchange: RunningExchange, fleet: Fleet) -> None:
        from cluster import evidence
        from cluster.stages import trade
        from cluster.stages.bots import bot_names

        client = exchange.client()
        self.story.ledger = client.ledger()
        client.close()
        journal, accounts = self.settings.workspace.journal, tuple(bot_names(self.settings))
        self.story.books = evidence.book_facts(
            trade.books(fleet), self.story.databases, journal, self.story.ledger, accounts
        )

    def _trade_and_crash(self, exchange: RunningExchange | None, fleet: Fleet) -> None:
        """Trade, and on the way crash a bot that holds positions and pull the kill switch for a while."""
        from cluster.stages import data, trade

        funding = exchange is not None and bool(data.open_store(self.settings).keys("funding"))
        began, share, traded, halted = time.monotonic(), 0.0, 0, False
        with self.progress.task("trading", total=self.options.candles) as task, self._stage("trading"):
            while share < 1.0:
                if halted != (HALTED[0] <= share < HALTED[1]):
                    halted = self._kill_switch(pull=not halted)
                traded += self._step(fleet, exchange)
                task.advance(STEP, "kill switch pulled" if halted else "")
                if funding and exchange is not None:
                    data.backfill(self.settings, NullProgress(), base_url=exchange.url, kinds=("funding",))
                status = fleet.status()
                bot = max(status, key=lambda name: len(status[name].open_trades))
                ripe = share >= CRASH[0] and bool(status[bot].open_trades)
                if self.story.recovery is None and (ripe or share >= CRASH[1]):
                    self.story.recovery = trade.kill_and_recover(fleet, bot, self.progress)
                spent = (time.monotonic() - began) / self.options.trade_seconds
                share = max(traded / self.options.candles, spent)
            if halted:
                self._kill_switch(pull=False)
            task.done(f"{traded} candles at {traded / (time.monotonic() - began):.1f} a second")

    def _step(self, fleet: Fleet, exchange: RunningExchange | None) -> int:
        """Trade for a few candles of virtual time; a real exchange cannot be hurried, there the bots just watch on."""
        from cluster.stages import trade

        if exchange is None:
            time.sleep(STEP_SECONDS)
            return 0
        return trade.run_until(fleet, STEP, NullProgress(), max_s=self.options.trade_seconds).candles

    def _kill_switch(self, *, pull: bool) -> bool:
        """Halt or resume by name, as a person would: while halted exits pass and every entry is refused."""
        from cluster.stages import trade

        if pull:
            trade.halt("demo", "a drill: the kill switch is pulled")
            self.progress.say("[bold]trade halt[/]    a drill: entries are refused from here, exits pass")
        else:
            trade.resume("demo", "the drill is over")
            self.progress.say("[bold]trade resume[/]  a person lifts the halt by name")
        return pull
