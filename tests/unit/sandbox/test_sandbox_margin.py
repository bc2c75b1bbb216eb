"""The books of perpetuals: whatever is opened, funded, reduced, turned or liquidated, every unit is somewhere."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.sandbox.follower import Follower
from trading.adapters.sandbox.audit import audit_futures
from trading.adapters.sandbox.brackets import BRACKETS, maintenance
from trading.adapters.sandbox.ledger import INSURANCE, MARKET_MAKER, Ledger
from trading.adapters.sandbox.market import Candles, Funding
from trading.adapters.sandbox.matching import Engine, Liquidity, Terms
from trading.adapters.sandbox.orders import Kind, OrderRequest, RefusalError, Status
from trading.adapters.sandbox.path import PricePath
from trading.adapters.sandbox.perpetuals import PerpetualMoney
from trading.adapters.sandbox.rules import UNIT
from trading.adapters.sandbox.simulated import SimulatedMarket, simulate

CALM = simulate(SimulatedMarket(("BTC/USDT", "DOGE/USDT"), history_days=1, trading_days=6), seed=4)
NAMES = ("alice", "bob")
PRICES = {"limit": (Kind.LIMIT, Kind.LIMIT_MAKER), "stop": (Kind.STOP_LOSS, Kind.TAKE_PROFIT, Kind.STOP_LOSS_LIMIT)}


def _wild(factor: float) -> Any:
    """The same market with gaps: from candle to candle the price jumps, funding is fierce."""

    def moved(table: Candles) -> Candles:
        jump = np.where(np.arange(CALM.rows) % 40 < 20, 1.0, factor)
        columns = [np.maximum((column * jump).astype(np.int64), 1) for column in (table.open, table.high, table.low)]
        return Candles(*columns, np.maximum((table.close * jump).astype(np.int64), 1), table.volume)

    fierce = {pair: Funding(table.time_ms, table.rate * 200) for pair, table in CALM.funding.items()}
    return replace(CALM, candles={pair: moved(table) for pair, table in CALM.candles.items()}, funding=fierce)


def _engine(market: Any = CALM, terms: Terms | None = None) -> tuple[Engine, PerpetualMoney]:
    ledger, path = Ledger(), PricePath(market)
    for name in NAMES:
        ledger.open_account(name, {"USDT": 10_000 * UNIT})
    money = PerpetualMoney(market.rules, ledger, market, path)
    return Engine(market.rules, path, money, terms or Terms(200, 500)), money


def _order(engine: Engine, side: str, notional: float, kind: Kind = Kind.MARKET, **changes: Any) -> OrderRequest:
    rules = engine.rules["BTC/USDT"]
    price = engine.quote("BTC/USDT", CALM.open_ms)[1]
    lots = max(1, int(notional * UNIT / rules.cost(price, 1)))
    return OrderRequest("alice", "BTC/USDT", side, kind, **{"lots": lots, **changes})  # type: ignore[arg-type]


class Perpetuals(RuleBasedStateMachine):
    """Random orders, settings, cancellations and time on two accounts, in calm and in wild markets."""

    @initialize(factor=st.sampled_from([1.0, 0.9, 1.12, 0.5]), cap=st.sampled_from([0, 500 * UNIT]))
    def open(self, factor: float, cap: int) -> None:
        self.market = _wild(factor)
        self.engine, self.money = _engine(self.market, Terms(200, 500, liquidity=Liquidity(cap)))
        self.now = self.market.open_ms
        self.follower = Follower(self.engine, "alice")

    @rule(account=st.sampled_from(NAMES), pair=st.sampled_from(CALM.pairs), leverage=st.integers(1, 125))
    def lever(self, account: str, pair: str, leverage: int) -> None:
        self.money.position(account, pair).leverage = leverage

    @rule(account=st.sampled_from(NAMES), pair=st.sampled_from(CALM.pairs), isolated=st.booleans())
    def isolate(self, account: str, pair: str, isolated: bool) -> None:
        position = self.money.position(account, pair)
        if not position.lots and not self.engine.open_orders(account, pair):
            position.isolated = isolated

    @rule(
        account=st.sampled_from(NAMES),
        pair=st.sampled_from(CALM.pairs),
        side=st.sampled_from(["BUY", "SELL"]),
        kind=st.sampled_from([Kind.MARKET, Kind.MARKET, *PRICES["limit"], *PRICES["stop"]]),
        notional=st.integers(1, 200_000),
        away=st.integers(-200, 200),
        stop=st.integers(-200, 200),
        reduce_only=st.booleans(),
        close_position=st.booleans(),
    )
    def place(self, **drawn: Any) -> None:
        rules, price = self.engine.rules[drawn["pair"]], self.engine.quote(drawn["pair"], self.now)[1]
        kind: Kind = drawn["kind"]
        closes = kind.conditional and kind.priceless and drawn["close_position"]
        request = OrderRequest(
            drawn["account"],
            drawn["pair"],
            drawn["side"],
            kind,
            lots=0 if closes else max(1, drawn["notional"] * UNIT // rules.cost(price, 1)),
            price=0 if kind.priceless else max(1, price * (10_000 + drawn["away"]) // 10_000),
            stop_price=max(1, price * (10_000 + drawn["stop"]) // 10_000) if kind.conditional else 0,
            reduce_only=drawn["reduce_only"],
            close_position=closes,
        )
        with contextlib.suppress(RefusalError):
            self.engine.place(request, self.now)

    @rule(account=st.sampled_from(NAMES))
    def cancel(self, account: str) -> None:
        for order in self.engine.open_orders(account)[:1]:
            self.engine.cancel(order, self.now)

    @rule(minutes=st.integers(1, 600))
    def wait(self, minutes: int) -> None:
        until = min(self.now + minutes * 60_000, self.market.end_ms)
        self.engine.advance(self.now, until)
        self.now = until

    @rule()
    def follow(self) -> None:
        self.follower.look()

    @invariant()
    def every_unit_is_somewhere(self) -> None:
        assert audit_futures(self.engine, self.money) == ()

    def teardown(self) -> None:
        self.follower.knows_everything()


TestPerpetuals = Perpetuals.TestCase
TestPerpetuals.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_brackets_keep_the_maintenance_margin_continuous() -> None:
    for lower, upper in itertools.pairwise(BRACKETS):
        assert lower.cap == upper.floor
        assert abs(maintenance(upper.floor) - maintenance(upper.floor - 1)) <= 2
        assert (lower.leverage, lower.margin_ppm) > (upper.leverage, 0)
        assert lower.margin_ppm < upper.margin_ppm


@pytest.mark.parametrize("side", ["BUY", "SELL"])
def test_turning_a_position_closes_it_and_opens_the_other_side(side: str) -> None:
    engine, money = _engine()
    other = "SELL" if side == "BUY" else "BUY"
    first = engine.place(_order(engine, side, 1_000), CALM.open_ms)
    engine.place(_order(engine, other, 3_000, lots=3 * first.lots), CALM.open_ms)
    position = money.position("alice", "BTC/USDT")
    assert position.lots == -2 * first.lots * (1 if side == "BUY" else -1)
    assert position.margin == pytest.approx(2 * first.cost / 20, rel=1e-3)
    assert audit_futures(engine, money) == ()


def test_a_gap_beyond_the_margin_is_the_insurance_funds_loss() -> None:
    engine, money = _engine(_wild(0.5))
    money.position("alice", "BTC/USDT").isolated = True
    money.position("alice", "BTC/USDT").leverage = 10
    engine.place(_order(engine, "BUY", 10_000), CALM.open_ms)
    engine.advance(CALM.open_ms, CALM.end_ms)
    assert money.held() == []
    assert engine.orders[2].client_id.startswith("autoclose-")
    left = money.ledger.balance("alice", "USDT").total
    assert 8_900 * UNIT < left < 9_010 * UNIT, "a tenth was its margin; no more is lost than that and fees"
    assert money.ledger.balance(INSURANCE, "USDT").total < -3_000 * UNIT
    assert audit_futures(engine, money) == ()


@pytest.mark.parametrize("isolated", [True, False])
def test_what_cross_positions_have_lost_cannot_be_locked_again(isolated: bool) -> None:
    engine, money = _engine(_wild(0.9))
    position = money.position("alice", "BTC/USDT")
    position.isolated, position.leverage = isolated, 5
    engine.place(_order(engine, "BUY", 20_000), CALM.open_ms)
    entry = position.cost // position.lots // engine.rules["BTC/USDT"].cost(1, 1)
    times = range(CALM.open_ms, CALM.end_ms, 900_000)
    later = next(at for at in times if engine.quote("BTC/USDT", at)[0] < 0.93 * entry)
    engine.advance(CALM.open_ms, later)
    lost = -position.profit(engine.rules["BTC/USDT"], money.marks(later)["BTC/USDT"])
    assert lost > 1_300 * UNIT
    free = money.ledger.balance("alice", "USDT").free
    assert money.available("alice", "USDT", later) == free - (0 if isolated else lost)
    lots = 20 * free * 95 // 100 // engine.rules["DOGE/USDT"].cost(engine.quote("DOGE/USDT", later)[1], 1)
    greedy = OrderRequest("alice", "DOGE/USDT", "BUY", Kind.MARKET, lots)
    if isolated:
        engine.place(greedy, later)
    else:
        with pytest.raises(RefusalError, match="insufficient"):
            engine.place(greedy, later)
        reducing = replace(_order(engine, "SELL", 1_000), lots=position.lots, reduce_only=True)
        assert engine.place(reducing, later).status is Status.FILLED, "what reduces needs nothing"
    assert audit_futures(engine, money) == ()


def test_a_conditional_order_without_a_position_expires_when_its_stop_is_met() -> None:
    engine, money = _engine()
    price = engine.quote("BTC/USDT", CALM.open_ms)[0]
    stop = _order(engine, "SELL", 1_000, Kind.STOP_LOSS, stop_price=round(price * 0.999), reduce_only=True)
    order = engine.place(stop, CALM.open_ms)
    assert money.ledger.balance("alice", "USDT").locked == 0
    engine.advance(CALM.open_ms, CALM.end_ms)
    assert (order.status, order.filled) == (Status.EXPIRED, 0)
    assert order.triggered_ms is not None


def test_longs_pay_shorts_and_the_house_is_square() -> None:
    engine, money = _engine()
    long = _order(engine, "BUY", 5_000)
    engine.place(long, CALM.open_ms)
    engine.place(replace(long, account="bob", side="SELL"), CALM.open_ms)
    engine.advance(CALM.open_ms, CALM.open_ms + 86_400_000)
    paid = {
        name: sum(i.units for i in money.incomes if i.account == name and i.kind == "FUNDING_FEE") for name in NAMES
    }
    assert paid["alice"] != 0
    assert abs(paid["alice"] + paid["bob"]) <= 3, "a unit of rounding a payment"
    assert money.ledger.balance(MARKET_MAKER, "USDT").total == -sum(
        item.units for item in money.incomes if item.kind != "COMMISSION"
    )
