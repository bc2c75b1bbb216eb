"""The data page: what is stored, what is odd about it, and whether the features still look as they did."""

from __future__ import annotations

from pathlib import Path

from cluster import charts, data_charts
from cluster.console import day
from cluster.pages import render_page
from cluster.stages.findings import StoredSeries
from cluster.stages.inspection import DataReport
from observability.files import write_whole
from pipelines.candles import iso

_PAIRS_DRAWN = 8  # as many colours as can be told apart


def render_data_page(report: DataReport) -> str:
    """The page as a string; it loads nothing from anywhere."""
    candles = [item for item in report.series if item.report is not None and item.rows]
    pictures = {}
    if candles:
        spans = {_label(item, report): (item.start_ms, item.end_ms) for item in candles}
        gaps = {
            _label(item, report): [(g.start_ms, g.end_ms) for g in item.report.gaps] for item in candles if item.report
        }
        pictures["coverage"] = charts.coverage(
            spans, gaps, title="Candles that are stored, one bar a series (red: gaps)"
        )
    moves = {
        _label(item, report): [(each.time_ms, each.sigmas) for each in item.report.extremes]
        for item in candles
        if item.report is not None and item.report.extremes
    }
    if moves:
        shown = dict(sorted(moves.items(), key=lambda entry: -len(entry[1]))[:_PAIRS_DRAWN])
        pictures["extremes"] = data_charts.extremes("Moves of more than 20 robust sigmas in one candle", shown)
    for number, item in enumerate(each for each in report.series if each.delays):
        pictures[f"delay_{number}"] = data_charts.delays(item.pair, *item.delays)
    features = report.features
    if features is not None:
        pictures["missing"] = data_charts.missing(features.features)
        pictures["drift"] = data_charts.drift(features.periods, features.features)
        for number, feature in enumerate(features.features):
            pictures[f"feature_{number}"] = data_charts.distribution(feature)
    return render_page("inspect.html.j2", pictures, report=report, candles=candles, day=day, iso=iso)


def write_data_page(path: Path, report: DataReport) -> Path:
    """Write the page; a half-written one is never opened."""
    return write_whole(path, render_data_page(report))


def _label(item: StoredSeries, report: DataReport) -> str:
    many = len({each.exchange for each in report.series if each.report is not None}) > 1
    kind = " mark" if item.kind == "mark" else ""
    return f"{item.exchange + ' ' if many else ''}{item.pair} {item.timeframe}{kind}"
