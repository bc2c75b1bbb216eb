"""What must hold through every fault, asked of the exchange's own ledger, and what was seen to break it."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.ledger import DUST, works

Ledger = Mapping[str, Any]


@dataclass(frozen=True)
class Gap:
    """A span of virtual time, in ms, within which these accounts must not enter, and why."""

    what: str
    accounts: tuple[str, ...]
    since_ms: int
    until_ms: int


@dataclass
class Watch:
    """Looks at the books again and again, and remembers.

    Attributes:
        patience_ms: for so long a position may be without a stop (its bot may be dead, its stop refused).
        gaps: when nothing may be entered. broken: violations in words.
        bare_ms: by account and pair, since when a position has been without its stop.
        longest_bare_ms: the longest of those times by what had just broken.
    """

    patience_ms: int
    gaps: list[Gap] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    bare_ms: dict[tuple[str, str], int] = field(default_factory=dict)
    longest_bare_ms: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def look(self, ledger: Ledger, prices: Mapping[str, float], incident: str) -> None:
        """Whether the exchange's own books balance, and every position has its stop."""
        now_ms = int(ledger["now_ms"])
        self.broken += [f"{incident}: {problem}" for problem in ledger["problems"]]
        for name, account in ledger["accounts"].items():
            for pair, price in prices.items():
                key, bare = (name, pair), uncovered(account, pair)
                if bare * price <= DUST + dust(account["orders"], pair) * price:
                    self.bare_ms.pop(key, None)
                    continue
                since = self.bare_ms.setdefault(key, now_ms)
                self.longest_bare_ms[incident] = max(self.longest_bare_ms[incident], now_ms - since)
                if now_ms - since > self.patience_ms:
                    self.broken.append(f"{incident}: {name} holds {bare:.6g} of {pair} without a stop")
                    del self.bare_ms[key]

    def judge(self, ledger: Ledger) -> None:
        """At the end: no entry while anything was missing, and no second one while the first was held."""
        for name, account in ledger["accounts"].items():
            self.broken += [f"{name} bought {pair} twice: order {order}" for pair, order in doubled(account)]
            entries = [order for order in account["orders"] if order["side"] == "buy"]
            for gap in self.gaps:
                if name in gap.accounts:
                    self.broken += [
                        f"{name} entered while {gap.what}: order {order['order_id']} at {order['created_ms']}"
                        for order in entries
                        if gap.since_ms < order["created_ms"] < gap.until_ms
                    ]


def uncovered(account: Mapping[str, Any], pair: str) -> float:
    """Base currency of a pair held without a stop on the exchange; 0 while an order for it is being filled."""
    base = pair.partition("/")[0]
    held = float(account["balances"].get(base, {"total": 0})["total"])
    open_orders = [order for order in account["orders"] if order["pair"] == pair and works(order)]
    if any(order["status"] == "partially_filled" for order in open_orders):
        return 0.0
    return held - sum(float(order["amount"]) for order in open_orders if "stop" in order["type"])


def dust(orders: Iterable[Mapping[str, Any]], pair: str) -> float:
    """What sales may have left behind in base currency: each is cut to whole lots, and what it leaves adds up.

    The lot is read off the amounts, of which the finest has all its decimals.
    """
    amounts = [
        (order["side"], order["amount"].rstrip("0").partition(".")[2]) for order in orders if order["pair"] == pair
    ]
    decimals = max((len(fraction) for _, fraction in amounts), default=0)
    return sum(side == "sell" for side, _ in amounts) * float(10.0**-decimals)


def doubled(account: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Entries that began to fill while an earlier one was still held, each as (pair, order)."""
    held: defaultdict[str, float] = defaultdict(float)
    begun: set[str] = set()
    for fill in sorted(account["fills"], key=lambda fill: (fill["time_ms"], int(fill["fill_id"]))):
        pair, order, amount = fill["pair"], fill["order_id"], float(fill["amount"])
        if fill["side"] == "sell":
            held[pair] -= amount
            continue
        left = dust(account["orders"], pair)
        if order not in begun and (held[pair] - left) * float(fill["price"]) > DUST:
            yield pair, order
        begun.add(order)
        # what the fee takes away is not there to be sold
        held[pair] += amount - (float(fill["fee"]) if fill["fee_asset"] == pair.partition("/")[0] else 0.0)


def history(ledger: Ledger) -> str:
    """A hash of what every account ordered and what came of it; ids are random or drawn by who came first."""
    told = {
        name: sorted(_facts(account["orders"])) for name, account in ledger["accounts"].items()
    }  # fmt: skip
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _facts(orders: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
    names = ("created_ms", "pair", "side", "type", "status", "price", "stop_price", "amount", "filled", "cost")
    return (tuple(order[name] for name in names) for order in orders)
