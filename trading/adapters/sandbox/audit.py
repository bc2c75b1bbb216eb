"""The sandbox checks its own books: everything that was given out is somewhere, to the last unit."""

from __future__ import annotations

from collections import defaultdict

from trading.adapters.sandbox.ledger import FEES
from trading.adapters.sandbox.matching import Engine
from trading.adapters.sandbox.rules import SymbolRules


def audit(engine: Engine) -> tuple[str, ...]:
    """What does not balance, in words; empty when all is well.

    Checked: initial + fills - fees = balances, for every account and asset; locked = what open orders set aside; fees
    collected = fees paid; the sum over all accounts, the house's included, = the sum of the initial balances; every
    order equals its fills; no fill is worse than its order's limit.
    """
    expected: dict[str, defaultdict[str, int]] = {
        name: defaultdict(int, units) for name, units in engine.money.ledger.initial.items()
    }
    by_order: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
    problems = []
    for fill in engine.fills:
        rules, sign = engine.rules[fill.pair], 1 if fill.side == "BUY" else -1
        expected[fill.account][rules.base] += sign * rules.amount(fill.lots)
        expected[fill.account][rules.quote] -= sign * fill.cost
        expected[fill.account][fill.fee_asset] -= fill.fee
        expected[FEES][fill.fee_asset] += fill.fee
        by_order[fill.order_id][0] += fill.lots
        by_order[fill.order_id][1] += fill.cost
        request = engine.orders[fill.order_id].request
        if not request.kind.priceless and sign * (fill.price - request.price) > 0:
            problems.append(f"fill {fill.fill_id} is worse than the limit of order {fill.order_id}")
    for order in engine.orders.values():
        if [order.filled, order.cost] != by_order[order.order_id]:
            problems.append(f"order {order.order_id} does not equal its fills")
        if order.locked < 0 or (order.locked and not order.status.open):
            problems.append(f"order {order.order_id} holds {order.locked} units in state {order.status}")
    for account in (*engine.money.ledger.accounts(), FEES):
        problems += _account_problems(engine, account, expected[account])
    return (*problems, *_sum_problems(engine))


def _account_problems(engine: Engine, account: str, expected: dict[str, int]) -> list[str]:
    locked: defaultdict[str, int] = defaultdict(int)
    for order in engine.open_orders(account):
        rules: SymbolRules = engine.rules[order.request.pair]
        locked[rules.quote if order.request.side == "BUY" else rules.base] += order.locked
    problems = []
    balances = engine.money.ledger.balances(account)
    for asset in {*balances, *expected}:
        held = engine.money.ledger.balance(account, asset)
        if (held.total, held.locked) != (expected.get(asset, 0), locked[asset]) or min(held.free, held.locked) < 0:
            problems.append(
                f"{account} has {held.free} free + {held.locked} locked units of {asset}, "
                f"expected {expected.get(asset, 0)} of which {locked[asset]} locked"
            )
    return problems


def _sum_problems(engine: Engine) -> list[str]:
    given: defaultdict[str, int] = defaultdict(int)
    for units in engine.money.ledger.initial.values():
        for asset, count in units.items():
            given[asset] += count
    totals = engine.money.ledger.totals()
    return [
        f"{totals.get(asset, 0) - given[asset]} units of {asset} came from nowhere"
        for asset in {*totals, *given}
        if totals.get(asset, 0) != given[asset]
    ]
