"""Pictures that only the model card draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.charts import BAD, COLOURS, GOOD, MUTED, figure_of, to_svg


def spread(levels: Sequence[float], observed: Mapping[str, Sequence[float]]) -> str:
    """Where outcomes fell between the promised quantiles, as a ratio to the promise; 1 everywhere is calibrated."""
    figure, axes = figure_of(3.2, 4.2)
    edges = [0.0, *levels, 1.0]
    for colour, (name, shares) in zip(COLOURS, observed.items(), strict=False):
        at = [0.0, *shares, 1.0]
        ratio = [(at[i + 1] - at[i]) / (edges[i + 1] - edges[i]) for i in range(len(edges) - 1)]
        axes.stairs(ratio, edges, color=colour, linewidth=1.5, label=name)
    axes.axhline(1.0, color=MUTED, linewidth=1, linestyle="--")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("promised quantile")
    axes.set_ylabel("share of outcomes / promised share")
    if observed:
        axes.legend(loc="lower center")
    axes.set_title("Where the outcomes fell (1: as promised)")
    return to_svg(figure)


def changes(title: str, values: Mapping[str, float], *, good_below: bool = False) -> str:
    """Signed shares as bars from zero, green on the good side."""
    figure, axes = figure_of(0.8 + 0.3 * max(1, len(values)), 4.2)
    numbers = list(values.values())
    colours = [GOOD if (number < 0) == good_below else BAD for number in numbers]
    axes.barh(list(values), numbers, height=0.6, color=colours)
    room = max((abs(number) for number in numbers), default=0.0) or 1e-3
    for row, number in enumerate(numbers):
        axes.text(number, row, f" {number:+.2%} ", va="center", ha="left" if number >= 0 else "right", fontsize=8)
    axes.set_xlim(min(0.0, *numbers, 0.0) - 0.35 * room, max(0.0, *numbers, 0.0) + 0.35 * room)
    axes.axvline(0.0, color=MUTED, linewidth=1)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xticks([])
    axes.set_title(title)
    return to_svg(figure)
