"""One self-contained HTML page: what happened, what it means, and every decision that was made."""

from __future__ import annotations

from pathlib import Path

from cluster import charts
from cluster.facts import Evidence, Facts
from cluster.pages import render_page
from observability.files import write_whole


def render_report(facts: Facts, evidence: Evidence) -> str:
    """The page as a string; it loads nothing from anywhere."""
    pictures = {
        "coverage": charts.coverage(evidence.spans, evidence.gaps, evidence.trading_from_ms),
        "sweep": charts.sweep(evidence.curves, evidence.best_trial),
        "scores": charts.scores(evidence.losses, str(facts.model["name"])),
        "calibration": charts.calibration(evidence.levels, evidence.observed),
        "equity": charts.lines("Equity, open positions at market (stake currency)", evidence.equity),
        "drawdown": charts.drawdown("Drawdown from the highest equity so far", evidence.equity),
        "decisions": charts.decisions(facts.decisions["by_rule"]),
        "stages": charts.stages(facts.seconds),
    }
    return render_page("report.html.j2", pictures, facts=facts, evidence=evidence)


def write_report(path: Path, facts: Facts, evidence: Evidence) -> Path:
    """Write the page; a half-written one is never opened."""
    return write_whole(path, render_report(facts, evidence))
