"""The gate before an exchange that records, behind it a real risk manager: what gets through, and what never does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from freqtrade.exceptions import (
    DependencyException,
)

from observability.errors import GateError
from tests.unit.bots.gate_scene import Scene, scene_in
from trading.adapters.approvals import EntryRefused
from trading.adapters.entry_intent import EntryFacts
from trading.kill_switch import KillSwitch
from trading.manager import RiskManager
from trading.orders import Approved, OrderIntent


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return scene_in(tmp_path)


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
    assert gate.approvals.outstanding == {reservation.reservation_id: made["id"]}
    gate.approvals.settle(reservation.reservation_id, made)
    assert scene.risk.reservations("a") == ()


def test_a_refusal_sends_nothing_and_is_one_of_freqtrades_own_exceptions(scene: Scene) -> None:
    gate = scene.gate()
    scene.risk.halt("by hand", "tester")
    with pytest.raises(DependencyException, match="STATE_HALTED"):
        scene.buy()
    assert scene.exchange.sent == []
    assert gate.approvals.refusals == {"STATE_HALTED": 1}


def test_a_refused_pair_rests_but_others_do_not(scene: Scene) -> None:
    gate = scene.gate()
    scene.risk.halt("by hand", "tester")
    for _ in range(3):
        with pytest.raises(EntryRefused):
            scene.buy()
    assert gate.approvals.refusals == {"STATE_HALTED": 1}
    with pytest.raises(EntryRefused):
        scene.buy(pair="ETH/USDT")
    assert gate.approvals.refusals == {"STATE_HALTED": 2}


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
    assert len(gate.approvals.outstanding) == 1, "a late approval must be found and given back"
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


def test_a_smaller_approval_is_what_gets_sent(scene: Scene) -> None:
    def smaller(decision: Any) -> Any:
        return replace(decision, amount=decision.amount / 2) if isinstance(decision, Approved) else decision

    liar = Liar(scene.risk, smaller)
    liar.settle = scene.risk.settle  # type: ignore[attr-defined]
    scene.gate(liar)
    scene.buy()
    assert scene.exchange.sent[0]["amount"] == 0.005


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
    assert gate.approvals.refusals == {"STATE_HALTED": 2}
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
