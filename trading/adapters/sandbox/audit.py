"""The sandbox checks its own books: everything that was given out is somewhere, to the last unit."""

from __future__ import annotations

from collections import defaultdict

from trading.adapters.sandbox.ledger import FEES
from trading.adapters.sandbox.margin import MarginMoney
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
    problems = _order_problems(engine)
    for fill in engine.fills:
        rules, sign = engine.rules[fill.pair], 1 if fill.side == "BUY" else -1
        expected[fill.account][rules.base] += sign * rules.amount(fill.lots)
        expected[fill.account][rules.quote] -= sign * fill.cost
        expected[fill.account][fill.fee_asset] -= fill.fee
        expected[FEES][fill.fee_asset] += fill.fee
    for account in (*engine.money.ledger.accounts(), FEES):
        problems += _account_problems(engine, account, expected[account])
    return (*problems, *_sum_problems(engine))


def audit_futures(engine: Engine, money: MarginMoney) -> tuple[str, ...]:
    """What does not balance among the perpetuals; empty when all is well.

    Checked: initial + incomes = balances; locked = what open orders and positions set aside; the sum over all accounts
    = the sum of the initial balances; every order equals its fills, every position the fills of its pair; no profit is
    less than what was bought and sold for (more it may be: losses beyond the margin are the insurance's).
    """
    problems = _order_problems(engine)
    expected = {name: defaultdict(int, units) for name, units in money.ledger.initial.items()}
    locked: defaultdict[tuple[str, str], int] = defaultdict(int)
    profits: defaultdict[tuple[str, str], int] = defaultdict(int)
    for item in money.incomes:
        expected[item.account][item.asset] += item.units
        profits[item.account, item.pair] += item.units if item.kind == "REALIZED_PNL" else 0
    for order in engine.orders.values():
        locked[order.request.account, engine.rules[order.request.pair].quote] += order.locked
    lots: defaultdict[tuple[str, str], int] = defaultdict(int)
    earned: defaultdict[tuple[str, str], int] = defaultdict(int)
    for fill in engine.fills:
        sign = 1 if fill.side == "BUY" else -1
        lots[fill.account, fill.pair] += sign * fill.lots
        earned[fill.account, fill.pair] -= sign * fill.cost
    for account in money.ledger.accounts():
        for pair, rules in engine.rules.items():
            position, key = money.position(account, pair), (account, pair)
            locked[account, rules.quote] += position.margin
            if position.lots != lots[key] or (position.lots == 0) != (position.cost == 0) or position.margin < 0:
                problems.append(f"{account}'s position of {pair} does not equal its fills")
            if profits[key] < earned[key] + position.side * position.cost:
                problems.append(f"{account} earned less with {pair} than was bought and sold for")
        for asset in {*money.ledger.balances(account), *expected[account]}:
            held = money.ledger.balance(account, asset)
            if (held.total, held.locked) != (expected[account][asset], locked[account, asset]) or held.free < 0:
                problems.append(
                    f"{account}'s futures wallet has {held} units of {asset}, not {expected[account][asset]}"
                )
    return (*problems, *_sum_problems(engine))


def _order_problems(engine: Engine) -> list[str]:
    by_order: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
    problems = []
    for fill in engine.fills:
        by_order[fill.order_id][0] += fill.lots
        by_order[fill.order_id][1] += fill.cost
        request, sign = engine.orders[fill.order_id].request, 1 if fill.side == "BUY" else -1
        if not request.kind.priceless and sign * (fill.price - request.price) > 0:
            problems.append(f"fill {fill.fill_id} is worse than the limit of order {fill.order_id}")
    for order in engine.orders.values():
        if [order.filled, order.cost] != by_order[order.order_id]:
            problems.append(f"order {order.order_id} does not equal its fills")
        if order.locked < 0 or (order.locked and not order.status.open):
            problems.append(f"order {order.order_id} holds {order.locked} units in state {order.status}")
    return problems


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
