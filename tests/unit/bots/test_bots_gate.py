"""The gate before an exchange that records, behind it a real risk manager: what gets through, and what never does."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ccxt
import pytest
from freqtrade.exceptions import (
    DependencyException,
    ExchangeError,
    InsufficientFundsError,
    InvalidOrderException,
    TemporaryError,
)

from observability.errors import GateError
from trading.adapters.gate import EntryFacts, EntryRefused, GateId, OrderGate
from trading.adapters.order_lookup import doubting
from trading.clock import WallClock
from trading.events import AccountReport
from trading.kill_switch import KillSwitch
from trading.limits import RiskLimits
from trading.manager import RiskManager
from trading.orders import Approved, OrderIntent

PAIR, CANDLE_MS = "BTC/USDT", 900_000


@dataclass
class Api:
    """What ccxt would answer to a lookup by client order id."""

    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    lags: bool = False
    has: dict[str, bool] = field(default_factory=lambda: {"fetchOrders": True})

    def fetch_order(self, _order_id: None, pair: str, params: dict[str, str]) -> dict[str, Any]:
        self.asked.append(params["clientOrderId"])
        if self.lags or params["clientOrderId"] not in self.orders:
            raise ccxt.OrderNotFound(pair)
        return self.orders[params["clientOrderId"]]

    def fetch_orders(self, _pair: str) -> list[dict[str, Any]]:
        return [{**order, "clientOrderId": key} for key, order in self.orders.items()]


class RecordingExchange:
    """Stands where Freqtrade's exchange stands, and remembers every order that reached it."""

    trading_mode = "spot"

    def __init__(self) -> None:
        self._config = {"dry_run": False}
        self._api = Api()
        self.sent: list[dict[str, Any]] = []
        self.fails: Exception | None = None
        self.executes_before_failing = False
        self.garbles = False

    def _get_params(self, *_args: Any, **_kwargs: Any) -> dict[str, Any]:
        return {}

    def _get_stop_params(self, *_args: Any, **_kwargs: Any) -> dict[str, Any]:
        return {"stopPrice": 1.0}

    def create_stoploss(self, **order: Any) -> dict[str, Any]:
        params = self._get_stop_params(side=order["side"])
        self.sent.append({**order, **params})
        made = {"id": f"{len(self.sent)}", "status": "open", "filled": 0.0}
        if self.fails is None or self.executes_before_failing:
            self._api.orders[params["clientOrderId"]] = made
        if self.fails is not None:
            raise self.fails
        return made

    def _order_contracts_to_amount(self, order: dict[str, Any]) -> dict[str, Any]:
        return order

    def create_order(self, **order: Any) -> dict[str, Any]:
        params = self._get_params(order["side"], order["ordertype"], 1.0, False)
        self.sent.append({**order, **params})
        amount, price = order["amount"], order["rate"]
        made = {"id": f"{len(self.sent)}", "status": "closed", "filled": amount, "cost": amount * price, "price": price}
        if self.fails is None or self.executes_before_failing:
            self._api.orders[params["clientOrderId"]] = made
        if self.fails is not None:
            raise self.fails
        return {"id": None, "status": None} if self.garbles else made


@dataclass
class Scene:
    """A gate between a strategy's order and an exchange that records."""

    risk: RiskManager
    exchange: RecordingExchange
    epoch: int

    def gate(
        self,
        risk: Any = None,
        *,
        epoch: int | None = -1,
        facts: Callable[..., EntryFacts] | None = None,
        switch: KillSwitch | None = None,
    ) -> OrderGate:
        known = self.epoch if epoch == -1 else epoch
        gate = OrderGate(
            GateId("swing", "a", "sandbox", CANDLE_MS),
            risk or self.risk,
            facts or _facts,
            lambda: known,
            switch=switch,
            deadline_s=0.2,
        )
        gate.stand_at(self.exchange)
        return gate

    def buy(self, **changes: Any) -> dict[str, Any]:
        order = {"pair": PAIR, "ordertype": "limit", "side": "buy", "amount": 0.01, "rate": 60_000.0, "leverage": 1.0}
        return self.exchange.create_order(**{**order, "reduceOnly": False, **changes})

    def sell(self) -> dict[str, Any]:
        return self.buy(side="sell", ordertype="market")


def _facts(_pair: str, price: float, _side: str) -> EntryFacts:
    now = int(time.time() * 1000)
    return EntryFacts(now - now % CANDLE_MS - CANDLE_MS, price * 0.98, None)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    limits = RiskLimits(accounts={"a": "sandbox"}, rule_bots=frozenset({"swing"}))
    risk = RiskManager(tmp_path / "journal.db", limits, WallClock())
    lease = risk.acquire_lease("a", "swing")
    now = int(time.time() * 1000)
    risk.report(AccountReport("a", "swing", lease.epoch, now, 10_000.0, 10_000.0, marks={PAIR: 60_000.0}))
    return Scene(risk, RecordingExchange(), lease.epoch)


def test_an_approved_entry_is_sent_once_and_reserved_until_the_bot_has_booked_it(scene: Scene) -> None:
    gate = scene.gate()
    made = scene.buy()
    assert made["status"] == "closed"
    (sent,) = scene.exchange.sent
    intent = scene.risk.decisions(1)[0]["intent"]
    assert sent["clientOrderId"] == f"r-{intent['intent_id']}"
    assert len(sent["clientOrderId"]) <= 36  # Binance's limit
    assert (intent["stop_price"], intent["lease_epoch"]) == (58_800.0, scene.epoch)
    (reservation,) = scene.risk.reservations("a")
    assert gate.outstanding == {reservation.reservation_id: made["id"]}
    gate.settle(reservation.reservation_id, made)
    assert scene.risk.reservations("a") == ()


def test_a_refusal_sends_nothing_and_is_one_of_freqtrades_own_exceptions(scene: Scene) -> None:
    gate = scene.gate()
    scene.risk.halt("by hand", "tester")
    with pytest.raises(DependencyException, match="STATE_HALTED"):
        scene.buy()
    assert scene.exchange.sent == []
    assert gate.refusals == {"STATE_HALTED": 1}


def test_a_refused_pair_rests_but_others_do_not(scene: Scene) -> None:
    gate = scene.gate()
    scene.risk.halt("by hand", "tester")
    for _ in range(3):
        with pytest.raises(EntryRefused):
            scene.buy()
    assert gate.refusals == {"STATE_HALTED": 1}
    with pytest.raises(EntryRefused):
        scene.buy(pair="ETH/USDT")
    assert gate.refusals == {"STATE_HALTED": 2}


class Slow:
    """A risk manager that approves only when it is told to go on."""

    def __init__(self, risk: RiskManager) -> None:
        self._risk, self.asked, self.go_on = risk, 0, threading.Event()

    def decide(self, intent: OrderIntent) -> Any:
        self.asked += 1
        self.go_on.wait(60)
        return self._risk.decide(intent)


class Dead:
    """A risk manager that cannot be reached."""

    def decide(self, _intent: OrderIntent) -> Any:
        raise GateError("the actor is gone")


@dataclass
class Liar:
    """A risk manager whose answer was tampered with."""

    risk: RiskManager
    lie: Callable[[Any], Any]

    def decide(self, intent: OrderIntent) -> Any:
        return self.lie(self.risk.decide(intent))


LIES = {
    "another intent": lambda decision: replace(decision, intent_id="other"),
    "more than asked": lambda decision: replace(decision, amount=decision.amount * 2),
    "another price": lambda decision: replace(decision, price=decision.price * 1.01),
    "not a number": lambda decision: replace(decision, amount=float("nan")),
    "no reservation": lambda decision: replace(decision, reservation_id=""),
    "nothing": lambda _decision: None,
    "true": lambda _decision: True,
    "text": lambda _decision: "approved",
}


@pytest.mark.parametrize("name", LIES)
def test_a_lying_risk_manager_opens_nothing(scene: Scene, name: str) -> None:
    scene.gate(Liar(scene.risk, LIES[name]))
    with pytest.raises(EntryRefused):
        scene.buy()
    assert scene.exchange.sent == []


def test_a_slow_risk_manager_is_not_waited_for(scene: Scene) -> None:
    slow = Slow(scene.risk)
    gate = scene.gate(slow)
    with pytest.raises(EntryRefused, match="no answer within"):
        scene.buy()
    assert slow.asked == 1
    assert scene.exchange.sent == []
    assert len(gate.outstanding) == 1, "a late approval must be found and given back"
    slow.go_on.set()


def test_after_three_failures_the_breaker_spares_the_bot_the_wait(scene: Scene) -> None:
    slow = Slow(scene.risk)
    scene.gate(slow)
    for name in ("A", "B", "C", "D", "E"):
        with pytest.raises(EntryRefused):
            scene.buy(pair=f"{name}/USDT")
    assert slow.asked == 3
    assert scene.exchange.sent == []
    slow.go_on.set()


def test_a_dead_risk_manager_opens_nothing_and_holds_no_exit(scene: Scene) -> None:
    scene.gate(Dead())
    with pytest.raises(EntryRefused):
        scene.buy()
    assert scene.exchange.sent == []
    scene.sell()
    assert [order["side"] for order in scene.exchange.sent] == ["sell"]


@pytest.mark.parametrize("epoch", [None, 0, 99])
def test_without_the_present_epoch_nothing_opens(scene: Scene, epoch: int | None) -> None:
    scene.gate(epoch=epoch)
    with pytest.raises(EntryRefused, match=r"(?i)lease"):
        scene.buy()
    assert scene.exchange.sent == []


def test_a_replaced_bot_is_fenced_off(scene: Scene) -> None:
    scene.gate()
    scene.risk.acquire_lease("a", "swing")  # its successor came up
    with pytest.raises(EntryRefused, match="LEASE"):
        scene.buy()
    assert scene.exchange.sent == []


def test_a_strategy_that_does_not_know_its_stop_opens_nothing(scene: Scene) -> None:
    def clueless(_pair: str, _price: float, _side: str) -> EntryFacts:
        raise KeyError("no candle")

    scene.gate(facts=clueless)
    with pytest.raises(EntryRefused):
        scene.buy()
    assert scene.exchange.sent == []


def test_exits_pass_while_trading_is_halted(scene: Scene) -> None:
    scene.gate()
    scene.risk.halt("by hand", "tester")
    scene.sell()
    assert len(scene.exchange.sent) == 1


def test_on_futures_whatever_is_not_reduce_only_adds_risk(scene: Scene) -> None:
    scene.exchange.trading_mode = "futures"
    scene.gate()
    scene.risk.halt("by hand", "tester")
    with pytest.raises(EntryRefused):
        scene.buy(side="sell", reduceOnly=False)
    assert scene.exchange.sent == []
    scene.buy(side="buy", reduceOnly=True)
    assert len(scene.exchange.sent) == 1


def test_a_lost_reply_is_looked_up_and_the_order_adopted(scene: Scene) -> None:
    scene.gate()
    scene.exchange.fails, scene.exchange.executes_before_failing = TemporaryError("504"), True
    made = scene.buy()
    assert made["id"] == "1"
    assert len(scene.exchange.sent) == 1, "never sent a second time"
    assert [item.reservation_id for item in scene.risk.reservations("a")] == [scene.exchange.sent[0]["clientOrderId"]]


def test_an_answer_that_is_no_order_is_looked_up_like_a_lost_one(scene: Scene) -> None:
    gate = scene.gate()
    scene.exchange.garbles = True
    assert scene.buy()["id"] == "1"
    assert scene.sell()["id"] == "2"
    assert list(gate.outstanding.values()) == ["1"]


def test_an_order_that_one_replica_does_not_know_is_found_in_the_list_of_all(scene: Scene) -> None:
    gate = scene.gate()
    scene.exchange.garbles = scene.exchange._api.lags = True
    assert scene.buy()["id"] == "1"
    assert list(gate.outstanding.values()) == ["1"]


def test_freqtrade_forgets_no_order_that_the_list_of_all_has(scene: Scene) -> None:
    gate = scene.gate()
    made = scene.buy()

    def blind(order_id: str, pair: str, _params: Any) -> Any:
        raise InvalidOrderException(f"{pair} has no order {order_id}")

    fetch = doubting(blind, gate.lookup)
    assert fetch(made["id"], PAIR)["filled"] == made["filled"]
    with pytest.raises(InvalidOrderException):
        fetch("77", PAIR)


def test_an_order_that_did_not_arrive_keeps_its_pair_reserved(scene: Scene) -> None:
    gate = scene.gate()
    scene.exchange.fails = TemporaryError("timed out")
    with pytest.raises(EntryRefused, match="no answer from the exchange"):
        scene.buy()
    (held,) = scene.risk.reservations("a")
    assert held.reservation_id in gate.outstanding
    scene.exchange.fails = None
    with pytest.raises(EntryRefused, match="UNSETTLED"):
        scene.buy()
    assert len(scene.exchange.sent) == 1


def test_an_order_that_the_exchange_refused_frees_its_reservation(scene: Scene) -> None:
    scene.gate()
    scene.exchange.fails = InsufficientFundsError("poor")
    with pytest.raises(InsufficientFundsError):
        scene.buy()
    assert scene.risk.reservations("a") == ()


def test_a_lost_reply_to_an_exit_is_looked_up_too(scene: Scene) -> None:
    scene.gate()
    scene.exchange.fails, scene.exchange.executes_before_failing = TemporaryError("504"), True
    assert scene.sell()["id"] == "1"
    assert len(scene.exchange.sent) == 1


def test_an_exit_that_did_not_arrive_fails_as_it_would_without_the_gate(scene: Scene) -> None:
    scene.gate()
    scene.exchange.fails = TemporaryError("timed out")
    with pytest.raises(TemporaryError):
        scene.sell()
    assert scene.exchange._api.asked, "but it was looked up first"


def test_a_smaller_approval_is_what_gets_sent(scene: Scene) -> None:
    def smaller(decision: Any) -> Any:
        return replace(decision, amount=decision.amount / 2) if isinstance(decision, Approved) else decision

    liar = Liar(scene.risk, smaller)
    liar.settle = scene.risk.settle  # type: ignore[attr-defined]
    scene.gate(liar)
    scene.buy()
    assert scene.exchange.sent[0]["amount"] == 0.005


def test_an_adopted_order_is_answered_and_not_sent(scene: Scene) -> None:
    gate = scene.gate()
    with gate.adopting({"id": "77"}):
        assert scene.buy()["id"] == "77"
    assert scene.exchange.sent == []


STOP_ORDER = {"pair": PAIR, "amount": 0.01, "stop_price": 58_000.0, "order_types": {}, "side": "sell", "leverage": 1.0}


def test_a_stop_is_never_gated_and_carries_an_id_of_ours(scene: Scene) -> None:
    scene.gate(epoch=None)
    scene.exchange.create_stoploss(**STOP_ORDER)
    assert re.fullmatch("s-[0-9a-f]{32}", scene.exchange.sent[0]["clientOrderId"])


def test_a_refused_stop_sells_nothing(scene: Scene) -> None:
    """Freqtrade would sell on InvalidOrderException and buy again a moment later."""
    gate = scene.gate()
    scene.exchange.fails = InvalidOrderException("would trigger at once")
    with pytest.raises(ExchangeError) as refused:
        scene.exchange.create_stoploss(**STOP_ORDER)
    assert not isinstance(refused.value, InvalidOrderException)
    gate.orphans_likely = False
    scene.exchange.fails = InsufficientFundsError("coins are locked")
    with pytest.raises(InsufficientFundsError):
        scene.exchange.create_stoploss(**STOP_ORDER)
    assert gate.orphans_likely, "an unknown order may hold them"


def test_a_stop_whose_answer_is_lost_is_found(scene: Scene) -> None:
    scene.gate()
    scene.exchange.fails, scene.exchange.executes_before_failing = TemporaryError("504"), True
    assert scene.exchange.create_stoploss(**STOP_ORDER)["id"] == "1"
    scene.exchange.executes_before_failing = False
    with pytest.raises(TemporaryError):
        scene.exchange.create_stoploss(**STOP_ORDER)


def test_a_pulled_kill_switch_holds_every_entry_and_no_exit_whatever_the_risk_manager_says(
    scene: Scene, tmp_path: Path
) -> None:
    switch = KillSwitch(tmp_path / "switch.jsonl")
    switch.install()
    gate = scene.gate(switch=switch)
    switch.order("halt", "ann", "a drill")
    for _ in range(2):
        with pytest.raises(EntryRefused, match="a drill"):
            scene.buy()
    assert scene.exchange.sent == []
    assert gate.refusals == {"STATE_HALTED": 2}
    assert scene.risk.reservations() == (), "what it approved for the record was given back"
    assert len(scene.risk.decisions()) == 1, "journalled once a minute"
    scene.sell()
    assert len(scene.exchange.sent) == 1
    switch.order("resume", "ann", "over")
    scene.buy()
    assert len(scene.exchange.sent) == 2, "a resume counts at once"
    switch.path.unlink()
    with pytest.raises(EntryRefused):
        scene.buy()
