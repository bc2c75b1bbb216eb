"""A trial's picture: every loss at its place, and a whole picture whatever the trial left."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import pytest

from mtst.curves import HEIGHT, LEFT, LINES, RIGHT, WIDTH, Curves, loss_curves

SVG = "{http://www.w3.org/2000/svg}"


def places(curves: Curves) -> dict[str, list[tuple[float, float]]]:
    """By metric, where its line goes."""
    lines = ET.fromstring(loss_curves(curves)).iter(f"{SVG}polyline")
    found = [[tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()] for line in lines]
    return dict(zip([name for name, *_ in LINES], found, strict=True))  # type: ignore[arg-type]


def test_losses_stand_in_order_and_inside() -> None:
    curves = {"train_loss": [(1, 0.4), (2, 0.3), (3, 0.2)], "valid_loss": [(1, 0.35), (2, 0.3), (3, 0.31)]}
    found = places(curves)
    assert found["base_loss"] == []
    (x1, y1), (x2, y2), (x3, y3) = found["train_loss"]
    assert (x1, x3) == (LEFT, WIDTH - RIGHT)
    assert x2 - x1 == pytest.approx(x3 - x2)
    assert y1 < y2 < y3, "a lower loss stands lower"
    assert y2 - y1 == pytest.approx(y3 - y2, abs=0.11)
    assert found["valid_loss"][1] == (x2, y2)
    assert all(0 < y < HEIGHT for line in found.values() for _, y in line)


@pytest.mark.parametrize(
    "curves",
    [{}, {"train_loss": []}, {"valid_loss": [(4, 0.0)]}, {"train_loss": [(1, math.nan)], "base_loss": [(1, math.inf)]}],
    ids=["nothing", "no epoch", "one point at zero", "not finite"],
)
def test_whatever_a_trial_left_there_is_a_picture(curves: Curves) -> None:
    assert all(len(line) <= 1 for line in places(curves).values())
    assert "nan" not in loss_curves(curves)


def test_many_epochs_are_numbered_sparsely() -> None:
    texts = [each.text for each in ET.fromstring(loss_curves({"valid_loss": [(i, 0.7) for i in range(1, 62)]})).iter()]
    assert [text for text in texts if text and text.isdigit()] == ["1", "16", "31", "46", "61"]
