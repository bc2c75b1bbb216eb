"""What the stages of a run found, and how it becomes the facts of `--json` and the evidence of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cluster import evidence as proof
from cluster.facts import Evidence, Facts
from cluster.settings import Settings
from cluster.stages.inspection import DataReport
from cluster.stages.train import EvaluateSummary, PromoteSummary
from cluster.watch import RunWatch
from mtst.adapters.sweep import SweepResult
from pipelines.adapters.exchange import BackfillSummary
from pipelines.adapters.ray_features import FeatureSummary
from trading.adapters.bot_database import Database
from trading.adapters.fleet import Recovery


@dataclass
class Story:
    """Filled stage by stage while the run goes on; mutable for that reason alone."""

    source: str = ""
    trading_from_ms: int = 0
    onchain_rows: int = 0
    left_running: int = 0
    opened: int = 0
    closed: int = 0
    forecasts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    books: dict[str, Any] = field(default_factory=dict)
    ledger: Mapping[str, Any] = field(default_factory=dict)
    databases: dict[str, Database] = field(default_factory=dict)
    backfill: BackfillSummary | None = None
    data: DataReport | None = None
    features: FeatureSummary | None = None
    sweep: SweepResult | None = None
    judged: EvaluateSummary | None = None
    promoted: PromoteSummary | None = None
    recovery: Recovery | None = None


def facts_of(settings: Settings, story: Story, watch: RunWatch, started_at: str, report: Path) -> Facts:
    """The facts of a run whose stages are all done."""
    told = proof.journal_story(settings.workspace.journal)
    accounts = story.ledger.get("accounts", {}).values()
    return Facts(
        version=_version(),
        started_at=started_at,
        market=_market(settings, story),
        rows=_rows(story),
        trials=_trials(story),
        model=_model(story),
        forecasts=story.forecasts,
        orders=sum(len(account["orders"]) for account in accounts),
        fills=sum(len(account["fills"]) for account in accounts),
        trades={"opened": story.opened, "closed": story.closed},
        decisions={"approved": told.approved, "refused": told.refused, "by_rule": told.by_rule},
        recovery=_recovery(story),
        books=story.books,
        metrics=story.metrics,
        seconds=dict(watch.seconds),
        wall_seconds=watch.wall_seconds,
        peak_memory_bytes=watch.peak_bytes,
        report=str(report),
    )


def evidence_of(settings: Settings, story: Story) -> Evidence:
    """The series and rows that the report draws."""
    assert story.data is not None
    assert story.sweep is not None
    assert story.judged is not None
    assert story.promoted is not None
    told = proof.journal_story(settings.workspace.journal)
    candles = {each.pair: each for each in story.data.series if each.kind == "ohlcv" and each.report is not None}
    trials = {f"trial {row.trial_id[-5:]}": row for row in story.sweep.trials}
    return Evidence(
        spans={pair: (each.start_ms, each.end_ms) for pair, each in candles.items()},
        gaps={
            pair: [(gap.start_ms, gap.end_ms) for gap in each.report.gaps]
            for pair, each in candles.items()
            if each.report is not None
        },
        trading_from_ms=story.trading_from_ms,
        curves={name: row.curve for name, row in trials.items()},
        best_trial=next(iter(trials), ""),
        losses=story.judged.losses,
        levels=story.judged.levels,
        observed=story.judged.observed,
        reasons=story.promoted.reasons,
        equity=told.equity,
        decision_rows=told.decisions,
        trade_rows=proof.trade_rows(story.databases),
        scores=_scores(story.judged),
        notes=_notes(story),
    )


def _market(settings: Settings, story: Story) -> dict[str, Any]:
    assert story.backfill is not None
    candles = [series for series in story.backfill.series if series.kind == "ohlcv"]
    return {
        "source": story.source,
        "pairs": list(settings.market.pairs) if not candles else [series.pair for series in candles],
        "timeframe": story.backfill.timeframe,
        "first": proof.stamp(min(series.start_ms for series in candles)),
        "last": proof.stamp(max(series.end_ms for series in candles)),
        "trading_from": proof.stamp(story.trading_from_ms),
    }


def _rows(story: Story) -> dict[str, int]:
    assert story.backfill is not None
    assert story.features is not None
    by_kind = {kind: sum(s.rows for s in story.backfill.series if s.kind == kind) for kind in ("ohlcv", "funding")}
    return {
        "candles": by_kind["ohlcv"],
        "funding": by_kind["funding"],
        "onchain": story.onchain_rows,
        "features": story.features.rows,
    }


def _trials(story: Story) -> dict[str, Any]:
    assert story.sweep is not None
    outcomes = [row.outcome for row in story.sweep.trials]
    return {
        "count": len(outcomes),
        "finished": outcomes.count("completed"),
        "pruned": outcomes.count("pruned"),
        "failed": outcomes.count("failed"),
        "left_running": story.left_running,
        "best_loss": story.sweep.best_loss,
        "untrained_loss": story.sweep.base_loss,
        "best": story.sweep.best_config,
        "parent_run_id": story.sweep.parent_run_id,
    }


def _model(story: Story) -> dict[str, Any]:
    assert story.judged is not None
    assert story.promoted is not None
    judged, promoted = story.judged, story.promoted
    return {
        "name": promoted.name,
        "version": promoted.version,
        "status": promoted.status,
        "words": promoted.text,
        "losses": judged.losses,
        "improvements": judged.improvements,
        "p_values": judged.p_values,
        "net_returns": judged.net_returns,
        "blocks": judged.blocks,
        "windows": judged.windows,
        "absent": list(judged.absent),
        "reasons": [{"code": r.code, "passed": r.passed, "text": r.text} for r in promoted.reasons],
    }


def _recovery(story: Story) -> dict[str, Any]:
    assert story.recovery is not None
    found = story.recovery
    return {
        "bot": found.bot,
        "seconds": found.seconds,
        "positions_before": len(found.trades_before),
        "positions_after": len(found.trades_after),
        "same_positions": found.trades_before == found.trades_after,
    }


def _scores(judged: EvaluateSummary) -> list[dict[str, Any]]:
    rows = []
    for name, loss in sorted(judged.losses.items(), key=lambda item: item[1]):
        better, p_value = judged.improvements.get(name), judged.p_values.get(name)
        rows.append(
            {
                "name": name,
                "pinball loss": f"{loss:.5g}",
                "model is better by": "" if better is None else f"{better:+.2%}",
                "p": "" if p_value is None else ("< 0.001" if p_value < 0.001 else f"{p_value:.3f}"),
            }
        )
    return rows


def _notes(story: Story) -> tuple[str, ...]:
    assert story.judged is not None
    assert story.promoted is not None
    notes = []
    if story.promoted.status != "champion":
        notes.append(
            "The model is in shadow. At this play-money venue its entries are let through whenever it expects a rise "
            "before costs, so that you can watch it; with real money every one of them would be refused (rules "
            "MODEL_SHADOW and EDGE_BELOW_COST)."
        )
    if story.judged.absent:
        notes.append(
            f"Not available at this source, so the model learned without it: {', '.join(story.judged.absent)}."
        )
    return tuple(notes)


def _version() -> str:
    try:
        return version("mtst-trader")
    except PackageNotFoundError:
        return "0.1.0 (checkout)"
