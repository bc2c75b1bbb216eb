"""The engine and its books: whatever happens, every unit is somewhere, and no fill is better than the price allows."""

from __future__ import annotations

import contextlib
import statistics
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.sandbox.follower import Follower
from trading.adapters.sandbox.audit import audit
from trading.adapters.sandbox.ledger import FEES, MARKET_MAKER, Ledger
from trading.adapters.sandbox.matching import Engine, Liquidity, Terms
from trading.adapters.sandbox.money import SpotMoney
from trading.adapters.sandbox.orders import Kind, Order, OrderRequest, RefusalError, Status
from trading.adapters.sandbox.path import PricePath
from trading.adapters.sandbox.rules import UNIT, SymbolRules
from trading.adapters.sandbox.simulated import SimulatedMarket, simulate

MARKET = simulate(SimulatedMarket(("BTC/USDT", "DOGE/USDT"), history_days=1, trading_days=3), seed=4)
PATH = PricePath(MARKET)
NAMES = ("alice", "bob")


def _engine(terms: Terms | None = None) -> Engine:
    ledger = Ledger()
    for name in NAMES:
        ledger.open_account(name, {"USDT": 10_000 * UNIT, "BTC": UNIT // 10})
    return Engine(MARKET.rules, PATH, SpotMoney(MARKET.rules, ledger), terms or Terms())


class Exchange(RuleBasedStateMachine):
    """Random orders, cancellations and time on two accounts."""

    @initialize(cap=st.sampled_from([0, 50 * UNIT]), fees=st.sampled_from([(1000, 1000), (0, 750), (199_999, 333_333)]))
    def open(self, cap: int, fees: tuple[int, int]) -> None:
        self.engine = _engine(Terms(*fees, liquidity=Liquidity(cap)))
        self.now = MARKET.open_ms
        self.follower = Follower(self.engine, "alice")

    @rule(
        account=st.sampled_from(NAMES),
        pair=st.sampled_from(MARKET.pairs),
        side=st.sampled_from(["BUY", "SELL"]),
        kind=st.sampled_from(list(Kind)),
        notional=st.integers(1, 8_000),
        away=st.integers(-3_000, 3_000),
        stop=st.integers(-3_000, 3_000),
        force=st.sampled_from(["GTC", "GTC", "IOC", "FOK"]),
        client_id=st.sampled_from(["", "", "a", "b"]),
        by_cost=st.booleans(),
    )
    def place(self, **drawn: Any) -> None:
        rules, price = MARKET.rules[drawn["pair"]], PATH.price(drawn["pair"], self.now)
        request = OrderRequest(
            account=drawn["account"],
            pair=drawn["pair"],
            side=drawn["side"],
            kind=drawn["kind"],
            lots=drawn["notional"] * UNIT // rules.cost(price, 1),
            price=0 if drawn["kind"] is Kind.MARKET else price + price * drawn["away"] // 100_000,
            stop_price=price + price * drawn["stop"] // 100_000,
            quote_units=drawn["notional"] * UNIT if drawn["by_cost"] else 0,
            time_in_force=drawn["force"],
            client_id=drawn["client_id"],
        )
        before, known = self.engine.digest(), len(self.engine.orders)
        bid, ask = self.engine.quote(request.pair, self.now)
        fills = len(self.engine.fills)
        try:
            order = self.engine.place(request, self.now)
        except RefusalError:
            assert (self.engine.digest(), len(self.engine.orders)) == (before, known)
            return
        for fill in self.engine.fills[fills:]:
            assert fill.price == (ask if request.side == "BUY" else bid)
            assert not fill.maker
        assert order.status is not Status.NEW or request.time_in_force == "GTC" or request.kind.conditional

    @rule(choice=st.integers(0, 10**6))
    def cancel(self, choice: int) -> None:
        orders = [order for name in NAMES for order in self.engine.open_orders(name)]
        if orders:
            self.engine.cancel(orders[choice % len(orders)], self.now)

    @rule(length=st.sampled_from([1, 1_000, 60_000, 900_000, 7_200_000]))
    def wait(self, length: int) -> None:
        before, self.now = self.now, min(self.now + length, MARKET.end_ms)
        for fill in self.engine.advance(before, self.now):
            assert before < fill.time_ms <= self.now
            price = PATH.price(fill.pair, fill.time_ms)
            if fill.maker:  # the price went through the limit, and the fill is at the limit
                assert fill.price == self.engine.orders[fill.order_id].request.price
                assert price < fill.price if fill.side == "BUY" else price > fill.price
            else:  # a triggered stop takes the quote
                bid, ask = self.engine.quote(fill.pair, fill.time_ms)
                assert fill.price == (ask if fill.side == "BUY" else bid)

    @rule()
    def follow(self) -> None:
        self.follower.look()

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "engine"):
            assert audit(self.engine) == ()

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.follower.knows_everything()


TestExchange = Exchange.TestCase
TestExchange.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def _limit(side: str, share: float, notional: int = 1_000, **extra: Any) -> OrderRequest:
    price = PATH.price("BTC/USDT", MARKET.open_ms)
    lots = notional * UNIT // MARKET.rules["BTC/USDT"].cost(price, 1)
    wanted = {"kind": Kind.LIMIT, "lots": lots, "price": round(price * share), **extra}
    return OrderRequest("alice", "BTC/USDT", side, **wanted)  # type: ignore[arg-type]


def test_one_round_trip_to_the_unit() -> None:
    engine = _engine()
    rules = MARKET.rules["BTC/USDT"]
    bid, ask = engine.quote("BTC/USDT", MARKET.open_ms)
    bought = engine.place(_limit("BUY", 1.0, kind=Kind.MARKET), MARKET.open_ms)
    amount, cost = rules.amount(bought.lots), rules.cost(ask, bought.lots)
    fee = round(amount / 1000)
    assert bought.status is Status.FILLED
    assert engine.money.ledger.balance("alice", "BTC").free == UNIT // 10 + amount - fee
    assert engine.money.ledger.balance("alice", "USDT").free == 10_000 * UNIT - cost
    assert engine.money.ledger.balance(FEES, "BTC").free == fee
    assert engine.money.ledger.balance(MARKET_MAKER, "USDT").free == cost
    engine.place(_limit("SELL", 1.0, kind=Kind.MARKET), MARKET.open_ms)
    back = rules.cost(bid, bought.lots)
    assert engine.money.ledger.balance("alice", "USDT").free == 10_000 * UNIT - cost + back - round(back / 1000)
    assert audit(engine) == ()


def test_the_audit_sees_a_single_missing_unit() -> None:
    engine = _engine()
    engine.place(_limit("BUY", 1.0, kind=Kind.MARKET), MARKET.open_ms)
    assert audit(engine) == ()
    engine.money.ledger._balances["alice"]["USDT"].free -= 1
    problems = audit(engine)
    assert any("alice" in text for text in problems)
    assert any("from nowhere" in text for text in problems)


def test_a_limit_locks_waits_and_comes_back_when_cancelled() -> None:
    engine = _engine()
    order = engine.place(_limit("BUY", 0.9), MARKET.open_ms)
    assert order.status is Status.NEW
    assert engine.money.ledger.balance("alice", "USDT").locked == order.locked > 0
    engine.cancel(order, MARKET.open_ms)
    assert engine.money.ledger.balance("alice", "USDT") == engine.money.ledger.balance("bob", "USDT")
    with pytest.raises(RefusalError, match="-2011"):
        engine.cancel(order, MARKET.open_ms)


def test_a_touch_does_not_fill_and_a_tick_through_does() -> None:
    low = int(MARKET.candles["BTC/USDT"].low[PATH.row(MARKET.open_ms)])
    end = MARKET.open_ms + MARKET.step_ms - 1
    for limit, status in ((low, Status.NEW), (low + 1, Status.FILLED)):
        engine = _engine()
        order = engine.place(_limit("BUY", 1.0, price=limit), MARKET.open_ms)
        if order.status is Status.NEW:  # else it was marketable: the low is the open
            engine.advance(MARKET.open_ms, end)
        assert order.status is status


def test_a_capped_order_fills_in_parts() -> None:
    engine = _engine(Terms(liquidity=Liquidity(100 * UNIT, 1_000)))
    order = engine.place(_limit("BUY", 0.9995), MARKET.open_ms)
    engine.advance(MARKET.open_ms, MARKET.end_ms)
    fills = [fill for fill in engine.fills if fill.order_id == order.order_id]
    assert order.status is Status.FILLED
    assert len(fills) >= 10
    assert all(later.time_ms - early.time_ms >= 1_000 for early, later in pairwise(fills))
    assert sum(fill.lots for fill in fills) == order.lots


def test_a_stop_loss_sleeps_triggers_and_fills_no_worse_than_its_limit() -> None:
    price = PATH.price("BTC/USDT", MARKET.open_ms)
    engine = _engine()
    stop = _limit("SELL", 0.9, kind=Kind.STOP_LOSS_LIMIT, stop_price=round(price * 0.998))
    order = engine.place(stop, MARKET.open_ms)
    assert order.sleeping
    (fill,) = engine.advance(MARKET.open_ms, MARKET.end_ms)
    assert not order.sleeping
    assert PATH.price("BTC/USDT", fill.time_ms) <= stop.stop_price < PATH.price("BTC/USDT", fill.time_ms - 1)
    assert fill.price >= stop.price


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"lots": 0}, -1013, "LOT_SIZE"),
        ({"price": 0}, -1013, "PRICE_FILTER"),
        ({"price": 10}, -1013, "PERCENT_PRICE"),
        ({"lots": 1}, -1013, "NOTIONAL"),
        ({"lots": 10**9}, -2010, "insufficient balance"),
        ({"kind": Kind.LIMIT_MAKER}, -2010, "immediately match"),
        ({"side": "SELL", "kind": Kind.STOP_LOSS_LIMIT, "stop_price": 10**12}, -2010, "trigger immediately"),
        ({"kind": Kind.STOP_LOSS_LIMIT, "stop_price": 1}, -2010, "trigger immediately"),
    ],
)
def test_refusals_speak_binance(change: dict[str, Any], code: int, words: str) -> None:
    side = change.pop("side", "BUY")
    with pytest.raises(RefusalError, match=words) as caught:
        _engine().place(_limit(side, 1.01, **change), MARKET.open_ms)
    assert caught.value.code == code


def test_a_client_id_is_free_again_when_its_order_is_done_as_on_binance() -> None:
    engine = _engine()
    first = engine.place(_limit("BUY", 0.9, client_id="once"), MARKET.open_ms)
    with pytest.raises(RefusalError, match="Duplicate order sent"):
        engine.place(_limit("BUY", 0.9, client_id="once"), MARKET.open_ms)
    engine.cancel(first, MARKET.open_ms)
    second: Order = engine.place(_limit("BUY", 0.9, client_id="once"), MARKET.open_ms)
    assert engine.find("alice", "BTC/USDT", None, "once") is second
    assert engine.find("bob", "BTC/USDT", second.order_id, None) is None


def _play(seed_of_orders: int, waits: list[int]) -> str:
    engine, now = _engine(), MARKET.open_ms
    for number, wait in enumerate(waits):
        share = 1 + ((seed_of_orders + 7 * number) % 13 - 6) / 1_000
        side = "BUY" if (seed_of_orders + number) % 3 else "SELL"
        with contextlib.suppress(RefusalError):
            engine.place(_limit(side, share, notional=200 + number), now)
        engine.advance(now, now + wait)
        now += wait
    return engine.digest()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100), waits=st.lists(st.integers(1, 3_600_000), min_size=1, max_size=15))
def test_the_same_orders_at_the_same_times_give_the_same_books(seed: int, waits: list[int]) -> None:
    assert _play(seed, waits) == _play(seed, waits)


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(1, 3 * 86_400_000), max_size=30))
def test_how_time_is_cut_into_steps_does_not_matter(cuts: list[int]) -> None:
    def run(moments: list[int]) -> str:
        engine, now = _engine(), MARKET.open_ms
        for side, share in (("BUY", 0.995), ("BUY", 0.99), ("SELL", 1.004), ("SELL", 1.01)):
            engine.place(_limit(side, share, notional=500), now)
        for moment in moments:
            engine.advance(now, MARKET.open_ms + moment)
            now = MARKET.open_ms + moment
        return engine.digest()

    end = 3 * 86_400_000
    assert run([*sorted(set(cuts) - {end}), end]) == run([end])


def test_rules_count_exactly() -> None:
    rules = SymbolRules("XRP/USDT", 4, 0)
    assert rules.cost(5_210, 1_000) == 521 * UNIT
    with pytest.raises(ValueError, match="exceed 8"):
        SymbolRules("A/B", 5, 4)


def test_a_candle_step_with_sixty_open_orders_is_cheap() -> None:
    engine = _engine()
    for number in range(60):
        engine.place(_limit("BUY", 0.9 + number / 10_000, notional=100), MARKET.open_ms)
    taken = []
    for step in range(50):
        begin = MARKET.open_ms + step * MARKET.step_ms
        started = time.perf_counter()
        engine.advance(begin, begin + MARKET.step_ms)
        taken.append(time.perf_counter() - started)
    assert statistics.median(taken) < 0.005
