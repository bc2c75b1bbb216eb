"""Funding carry and basis: when the payments that can be expected pay for both legs' costs. Never known beforehand.

Long spot and short perpetual earns the funding rate while it is positive (the reverse needs borrowed coins, so it is
left out). Loses when funding turns, when the basis widens while a leg is closed, and when the short is liquidated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CarryPolicy:
    """When carry is held.

    Attributes:
        window: payments whose mean stands for the next ones; hold: payments that the position is planned for.
        leg_cost: fee and slippage of one order, as a fraction; four orders make a round trip.
        margin: expected net gain that is worth the trouble. leave_rate: mean rate at which it is given up.
        max_basis: widest distance of the perpetual from spot at which it is still opened.
    """

    window: int = 9
    hold: int = 63
    leg_cost: float = 0.0006
    margin: float = 0.002
    leave_rate: float = 0.0
    max_basis: float = 0.01


def expected_carry(rates: Sequence[float], policy: CarryPolicy) -> float:
    """Net of all four orders, as a fraction of one leg; minus infinity while too few payments are known."""
    known = [rate for rate in rates[-policy.window :] if math.isfinite(rate)]
    if len(known) < policy.window:
        return -math.inf
    return policy.hold * sum(known) / policy.window - 4.0 * policy.leg_cost


def carry_wanted(held: bool, rates: Sequence[float], spot: float, perpetual: float, policy: CarryPolicy) -> bool:
    """Whether to hold the carry after the newest payment in `rates` (oldest first); unknown prices open nothing."""
    carry = expected_carry(rates, policy)
    if held:
        mean = (carry + 4.0 * policy.leg_cost) / policy.hold
        return mean > policy.leave_rate
    known = all(math.isfinite(price) and price > 0 for price in (spot, perpetual))
    return known and carry > policy.margin and abs(perpetual / spot - 1.0) <= policy.max_basis


def cross_gap(bid_dear: float, ask_cheap: float, cost_dear: float, cost_cheap: float) -> float:
    """What selling at one venue and buying at the other earns after both costs, as a fraction of the price paid."""
    numbers = (bid_dear, ask_cheap)
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        return -math.inf
    return bid_dear * (1.0 - cost_dear) / (ask_cheap * (1.0 + cost_cheap)) - 1.0


@dataclass(frozen=True, slots=True)
class GapPolicy:
    """When a gap between two books of one asset is held: bought at the cheap one, sold short at the dear one.

    Attributes:
        leg_cost: fee and slippage of one order, as a fraction; four orders make a round trip.
        margin: gain after all four orders, were the gap to close, that is worth the trouble.
        leave: gap at which it is closed. max_gap: a wider one is taken for an error, and opens nothing.
    """

    leg_cost: float = 0.0008
    margin: float = 0.002
    leave: float = 0.0005
    max_gap: float = 0.05


def gap_wanted(held: bool, dear: tuple[float, float], cheap: tuple[float, float], policy: GapPolicy) -> bool:
    """Whether to hold the gap; unknown prices open nothing and close nothing.

    Args:
        held: whether it is held now.
        dear, cheap: (bid, ask) at the book that is sold and at the one that is bought.
        policy: thresholds.
    """
    if not all(math.isfinite(price) and price > 0 for price in (*dear, *cheap)):
        return held
    if held:
        return dear[1] / cheap[0] - 1.0 > policy.leave
    gap = cross_gap(dear[0], cheap[1], 2.0 * policy.leg_cost, 2.0 * policy.leg_cost)
    return policy.margin < gap <= policy.max_gap
