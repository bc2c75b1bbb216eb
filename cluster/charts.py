"""Pictures of the report as inline SVG; each takes plain numbers and knows no stage of the work behind them."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

INK, MUTED, GRID = "#1f2733", "#6b7685", "#e3e7ec"
COLOURS = ("#1769aa", "#d9730d", "#2e8b57", "#8e44ad", "#b03a5b", "#5d7a1f", "#0e7c86", "#7a5c2e")
GOOD, BAD = "#2e8b57", "#c0392b"


def figure_of(height: float = 2.6, width: float = 8.4, columns: int = 1) -> tuple[Any, Any]:
    """A figure (inches) in the house's style, and its axes."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "mtst",  # the same numbers give the same bytes
            "font.family": "sans-serif",
            "font.size": 9,
            "axes.edgecolor": GRID,
            "axes.labelcolor": MUTED,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.titlecolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.formatter.useoffset": False,
            "grid.color": GRID,
            "grid.linewidth": 0.7,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "legend.frameon": False,
            "legend.fontsize": 8,
        }
    )
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns)
    return figure, axes


def to_svg(figure: Any) -> str:
    """The figure as inline SVG that is as wide as its place."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    svg = text[text.index("<svg") :]
    # Fluid width: the viewBox keeps the proportions.
    return re.sub(r'(<svg[^>]*?) width="[^"]+" height="[^"]+"', r'\1 width="100%"', svg, count=1)


def times_of(stamps_ms: Sequence[int]) -> list[datetime]:
    """Times in ms UTC as the drawing library wants them."""
    return [datetime.fromtimestamp(stamp / 1000, tz=UTC) for stamp in stamps_ms]


def coverage(
    spans: Mapping[str, tuple[int, int]],
    gaps: Mapping[str, Sequence[tuple[int, int]]],
    split_ms: int | None = None,
    title: str = "Candles learned from, one bar a pair (orange: trading starts here; red: gaps)",
) -> str:
    """Which candles are there: a bar a pair from first to last (ms), gaps in red, the start of trading as a line."""
    figure, axes = figure_of(0.9 + 0.28 * len(spans))
    for row, (pair, span) in enumerate(spans.items()):
        start, end = times_of(span)
        axes.barh(row, end - start, left=start, height=0.55, color=COLOURS[0], alpha=0.85)
        for gap in gaps.get(pair, ()):
            gap_start, gap_end = times_of(gap)
            axes.barh(row, gap_end - gap_start, left=gap_start, height=0.55, color=BAD)
    if split_ms is not None:
        axes.axvline(times_of([split_ms])[0], color=COLOURS[1], linewidth=1.4)
    axes.set_yticks(range(len(spans)), list(spans))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_title(title)
    return to_svg(figure)


def sweep(curves: Mapping[str, Sequence[float]], best: str) -> str:
    """Validation loss by epoch, one line a trial, the chosen one drawn strong."""
    figure, axes = figure_of()
    for name, losses in curves.items():
        chosen = name == best
        axes.plot(
            range(1, len(losses) + 1),
            losses,
            marker="o",
            markersize=4 if chosen else 2.5,
            linewidth=2.4 if chosen else 1.0,
            color=COLOURS[1] if chosen else COLOURS[0],
            alpha=1.0 if chosen else 0.45,
            label=f"{name} (chosen)" if chosen else None,
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation pinball loss")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title("The sweep: one line a trial; short lines were stopped early")
    if best in curves:
        axes.legend()
    return to_svg(figure)


def scores(losses: Mapping[str, float], model: str) -> str:
    """Out-of-sample pinball loss of the model and of every baseline; shorter is better."""
    figure, axes = figure_of(0.8 + 0.3 * len(losses), 4.4)
    ordered = sorted(losses.items(), key=lambda item: item[1])
    names = [name for name, _ in ordered]
    values = [value for _, value in ordered]
    axes.barh(names, values, height=0.6, color=[COLOURS[1] if name == model else COLOURS[0] for name in names])
    low, high = min(values), max(values)
    axes.set_xlim(low - 0.25 * (high - low) - 1e-9, high + 0.12 * (high - low) + 1e-9)
    for row, value in enumerate(values):
        axes.text(value, row, f" {value:.4g}", va="center", color=MUTED, fontsize=8)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_title("Loss on candles never seen (shorter is better)")
    axes.set_xlabel("pinball loss; the axis does not start at zero")
    axes.locator_params(axis="x", nbins=4)
    return to_svg(figure)


def calibration(levels: Sequence[float], observed: Mapping[str, Sequence[float]]) -> str:
    """Promised quantile level against the share of outcomes below it; on the diagonal the forecast keeps its word."""
    figure, axes = figure_of(3.2, 4.2)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    for colour, (name, shares) in zip(COLOURS, observed.items(), strict=False):
        axes.plot(levels, shares, marker="o", markersize=4, linewidth=1.5, color=colour, label=name)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("promised")
    axes.set_ylabel("happened")
    if observed:
        axes.legend(loc="upper left")
    axes.set_title("Calibration of the quantiles")
    return to_svg(figure)


def lines(title: str, series: Mapping[str, Sequence[tuple[int, float]]], *, percent: bool = False) -> str:
    """Values over time (ms, value), one line a name: equity, exposure."""
    figure, axes = figure_of()
    for colour, (name, points) in zip(COLOURS, series.items(), strict=False):
        axes.plot(
            times_of([stamp for stamp, _ in points]),
            [value for _, value in points],
            color=colour,
            linewidth=1.5,
            label=name,
        )
    time_axis(axes, title, percent=percent, named=bool(series))
    return to_svg(figure)


def drawdown(title: str, equity: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """How far each line stands below its own highest point so far."""
    figure, axes = figure_of(1.9)
    for colour, (name, points) in zip(COLOURS, equity.items(), strict=False):
        peak, depths = 0.0, []
        for _, value in points:
            peak = max(peak, value)
            depths.append(value / peak - 1.0 if peak else 0.0)
        stamps = times_of([stamp for stamp, _ in points])
        axes.fill_between(stamps, depths, 0.0, color=colour, alpha=0.2)
        axes.plot(stamps, depths, color=colour, linewidth=1.2, label=name)
    time_axis(axes, title, percent=True, named=bool(equity))
    return to_svg(figure)


def decisions(counts: Mapping[str, int]) -> str:
    """How often each rule spoke; approvals in green."""
    figure, axes = figure_of(0.8 + 0.28 * max(1, len(counts)))
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    names = [name for name, _ in ordered]
    values = [value for _, value in ordered]
    axes.barh(names, values, height=0.6, color=[GOOD if name == "APPROVED" else BAD for name in names])
    for row, value in enumerate(values):
        axes.text(value, row, f" {value}", va="center", color=MUTED, fontsize=8)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_title("Entries that the risk manager approved or refused, by rule")
    return to_svg(figure)


def stages(seconds: Mapping[str, float]) -> str:
    """Where the time went, in the order in which it went."""
    figure, axes = figure_of(0.8 + 0.26 * max(1, len(seconds)))
    axes.barh(list(seconds), list(seconds.values()), height=0.6, color=COLOURS[6])
    for row, value in enumerate(seconds.values()):
        axes.text(value, row, f" {value:.1f} s", va="center", color=MUTED, fontsize=8)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_title("Seconds by stage")
    return to_svg(figure)


def time_axis(axes: Any, title: str, *, percent: bool, named: bool) -> None:
    """Dates below, a title above; values in per cent if asked for."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import PercentFormatter

    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    axes.set_title(title)
    if named:
        axes.legend(loc="best")
