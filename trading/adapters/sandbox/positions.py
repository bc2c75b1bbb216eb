"""Positions on perpetuals, and what they are worth: one net position an account and pair (one-way mode)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trading.adapters.sandbox.brackets import maintenance
from trading.adapters.sandbox.rules import SymbolRules

DEFAULT_LEVERAGE = 20
FAR = 1_000  # a liquidation price beyond so many times the mark is none


@dataclass(slots=True)
class Position:
    """What an account holds of a pair, and how it is set up.

    `lots` is signed; `cost` is the entry value of all lots; `margin` are the units set aside for it.
    """

    account: str
    pair: str
    leverage: int = DEFAULT_LEVERAGE
    isolated: bool = False
    lots: int = 0
    cost: int = 0
    margin: int = 0
    updated_ms: int = 0

    @property
    def side(self) -> int:
        """1 long, -1 short, 0 flat."""
        return (self.lots > 0) - (self.lots < 0)

    def profit(self, rules: SymbolRules, mark: int) -> int:
        """Unrealised profit or loss at a mark price."""
        return self.side * (rules.cost(mark, abs(self.lots)) - self.cost)

    def notional(self, rules: SymbolRules, mark: int) -> int:
        """Absolute worth at a mark price."""
        return rules.cost(mark, abs(self.lots))


def ruined(wallet: int, held: Iterable[Position], rules: Mapping[str, SymbolRules], marks: Mapping[str, int]) -> bool:
    """Whether `wallet` units no longer carry these positions: equity has fallen to the maintenance margin."""
    equity, needed = wallet, 0
    for position in held:
        mark, its = marks[position.pair], rules[position.pair]
        equity += position.profit(its, mark)
        needed += maintenance(position.notional(its, mark))
    return equity <= needed


def liquidation_price(
    position: Position, wallet: int, group: Iterable[Position], rules: Mapping[str, SymbolRules], marks: dict[str, int]
) -> int:
    """The mark (ticks) at which `group`, other prices unchanged, is ruined by this position; 0 for never."""
    held = list(group)

    def fails(mark: int) -> bool:
        return ruined(wallet, held, rules, {**marks, position.pair: mark})

    now = marks[position.pair]
    safe, low, high = (now, 1, now) if position.lots > 0 else (now, now, FAR * now)
    if fails(safe):
        return now
    if not fails(low if position.lots > 0 else high):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        if fails(middle) == (position.lots > 0):
            low = middle
        else:
            high = middle
    return low if position.lots > 0 else high
