"""A training's losses by epoch as a small SVG, written by hand.

A drawing library takes half a second to load and 60 ms a picture: half of what a search itself spent on a trial.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

Point = tuple[int, float]  # epoch, loss
Curves = Mapping[str, Sequence[Point]]  # by metric
LINES = (
    ("train_loss", "training", "#1769aa"),
    ("valid_loss", "validation", "#d9730d"),
    ("base_loss", "untrained", "#6b7685"),
)
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 480, 280, 64, 16, 44, 44  # pixels
TICKS = 4  # gaps between the marks of an axis, at most


def loss_curves(curves: Curves) -> str:
    """Training and validation loss, and the loss of the untrained forecast; what is not finite is left out."""
    lines = {name: [(step, loss) for step, loss in curves.get(name, ()) if math.isfinite(loss)] for name, *_ in LINES}
    frame = Frame.around([point for line in lines.values() for point in line] or [(0, 0.0)])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="11" fill="#6b7685">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="16">pinball loss, in units of recent volatility</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">epoch</text>',
        *frame.grid(),
    ]
    for number, (name, label, colour) in enumerate(LINES):
        places = [frame.place(*point) for point in lines[name]]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places]
        parts.append(f'<text x="{LEFT + 80 * number}" y="34" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True)
class Frame:
    """Which epochs and losses the picture's inner part spans; nothing of it is empty."""

    first: float
    last: float
    low: float
    high: float

    @classmethod
    def around(cls, points: Sequence[Point]) -> Self:
        """All points, with a little air above and below."""
        steps, losses = zip(*points, strict=True)
        air = 0.05 * (max(losses) - min(losses)) or 0.01 * abs(max(losses)) or 1.0
        alone = 0.5 * (min(steps) == max(steps))
        return cls(min(steps) - alone, max(steps) + alone, min(losses) - air, max(losses) + air)

    def place(self, step: float, loss: float) -> tuple[float, float]:
        """Pixels from the left and from the top."""
        right = (step - self.first) / (self.last - self.first)
        up = (loss - self.low) / (self.high - self.low)
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def grid(self) -> Iterator[str]:
        """Lines with their losses, and the epochs below."""
        for number in range(TICKS + 1):
            loss = self.low + (self.high - self.low) * number / TICKS
            _, y = self.place(self.first, loss)
            yield f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e3e7ec"/>'
            yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{loss:.4g}</text>'
        first, last = math.ceil(self.first), math.floor(self.last)
        for step in range(first, last + 1, max(1, math.ceil((last - first) / TICKS))):
            x, y = self.place(step, self.low)
            yield f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{step}</text>'
