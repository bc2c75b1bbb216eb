"""Leverage brackets of the perpetuals: the larger a position, the less leverage and the more margin to keep it."""

from __future__ import annotations

from dataclasses import dataclass

from trading.adapters.sandbox.rules import PPM, UNIT


@dataclass(frozen=True, slots=True)
class Bracket:
    """One step: notional from `floor` up to `cap` units, at most `leverage`, maintenance `margin_ppm` less `cum`."""

    floor: int
    cap: int
    leverage: int
    margin_ppm: int
    cum: int


def _ladder(*steps: tuple[int, int, int]) -> tuple[Bracket, ...]:
    """Brackets of (cap in quote, leverage, margin ppm); `cum` keeps the maintenance margin continuous."""
    brackets: list[Bracket] = []
    floor = cum = last_ppm = 0
    for cap, leverage, ppm in steps:
        cum += floor * (ppm - last_ppm) // PPM
        brackets.append(Bracket(floor, cap * UNIT, leverage, ppm, cum))
        floor, last_ppm = cap * UNIT, ppm
    return tuple(brackets)


BRACKETS = _ladder(
    (50_000, 125, 4_000),
    (600_000, 100, 5_000),
    (3_000_000, 75, 6_500),
    (12_000_000, 50, 10_000),
    (70_000_000, 25, 20_000),
    (1_000_000_000, 10, 50_000),
)
"""The same ladder for every pair, in the shape of Binance's BTCUSDT."""

MAX_LEVERAGE = BRACKETS[0].leverage


def bracket_of(notional: int) -> Bracket:
    """The bracket that a notional (units) lies in."""
    return next((item for item in BRACKETS if notional < item.cap), BRACKETS[-1])


def maintenance(notional: int) -> int:
    """Margin (units) below which a position of this notional is liquidated."""
    bracket = bracket_of(notional)
    return max(0, -(-notional * bracket.margin_ppm // PPM) - bracket.cum)
