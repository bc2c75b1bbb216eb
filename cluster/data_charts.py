"""Pictures of the data page. Those that stand side by side are narrow, so that a phone shows each across its width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.charts import BAD, COLOURS, GOOD, GRID, INK, MUTED, figure_of, time_axis, times_of, to_svg
from pipelines.drift import ANOTHER, CALM, FeatureReport

NARROW = 3.4


def extremes(title: str, moves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Moves that are too large for their series: time (ms) and size in robust sigmas, a colour a series."""
    figure, axes = figure_of(2.4)
    for colour, (name, points) in zip(COLOURS, moves.items(), strict=False):
        stamps, sizes = times_of([stamp for stamp, _ in points]), [size for _, size in points]
        axes.scatter(stamps, sizes, s=14, color=colour, label=name)
    axes.set_ylabel("robust sigmas")
    time_axis(axes, title, percent=False, named=bool(moves))
    return to_svg(figure)


def delays(name: str, hours: Sequence[float], assumed: Sequence[float]) -> str:
    """How long after its period's end a value was published: measured ones, and times that are assumed."""
    figure, axes = figure_of(2.2, NARROW)
    largest = max([*hours, *assumed, 1.0])
    bins = [largest * i / 40 for i in range(41)]
    kinds = (("measured", hours, COLOURS[0]), ("assumed", assumed, COLOURS[1]))
    for label, values, colour in (kind for kind in kinds if kind[1]):
        axes.hist(values, bins=bins, color=colour, alpha=0.8, label=label)
    axes.set_yscale("log")
    axes.set_xlabel("hours after the period's end")
    axes.set_title(f"{name}: published how late")
    axes.legend()
    return to_svg(figure)


def distribution(feature: FeatureReport) -> str:
    """A feature's histogram with its quartiles."""
    figure, axes = figure_of(1.75, NARROW)
    widths = [b - a for a, b in zip(feature.edges, feature.edges[1:], strict=False)]
    axes.bar(feature.edges[:-1], feature.counts, width=widths, align="edge", color=COLOURS[0], alpha=0.85)
    for value in feature.quantiles[1:4]:
        axes.axvline(value, color=COLOURS[1], linewidth=1)
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=5)
    axes.set_title(feature.name)
    return to_svg(figure)


def missing(features: Sequence[FeatureReport]) -> str:
    """Share of rows without a value, a bar a feature; short ones are good."""
    figure, axes = figure_of(0.9 + 0.2 * len(features), 5.2)
    names, shares = [each.name for each in features], [each.missing for each in features]
    axes.barh(names, shares, height=0.6, color=[BAD if share > 0.01 else GOOD for share in shares])
    for row, share in enumerate(shares):
        axes.text(share, row, f" {share:.2%}", va="center", color=MUTED, fontsize=8)
    axes.set_xlim(0, max(0.02, max(shares, default=0.0) * 1.25))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    axes.locator_params(axis="x", nbins=4)
    axes.set_title("Rows without a value, after the warm-up")
    return to_svg(figure)


def drift(periods: Sequence[str], features: Sequence[FeatureReport]) -> str:
    """PSI of every feature in every period against the first one with enough rows; grey: too few rows."""
    from matplotlib.colors import LinearSegmentedColormap

    figure, axes = figure_of(1.1 + 0.23 * len(features))
    colours = LinearSegmentedColormap.from_list("drift", ["#eef3f8", "#f3c98b", BAD])
    values = [[float("nan") if value is None else value for value in each.psi] for each in features]
    axes.imshow(values, aspect="auto", cmap=colours.with_extremes(bad=GRID), vmin=0, vmax=2 * ANOTHER)
    for row, each in enumerate(features):
        for column, value in enumerate(each.psi):
            if value is not None and len(periods) <= 18:
                shade = "white" if value > 1.6 * ANOTHER else INK if value >= CALM else MUTED
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=shade)
    step = max(1, len(periods) // 12)
    axes.set_xticks(range(0, len(periods), step), periods[::step])
    axes.set_yticks(range(len(features)), [each.name for each in features])
    axes.grid(visible=False)
    axes.set_title(f"Drift against the first period (PSI; below {CALM} calm, above {ANOTHER} another distribution)")
    return to_svg(figure)
