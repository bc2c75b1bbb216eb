"""Orders at the gate whose answers are lost, garbled or refusals: found again, or known not to exist. Stops, too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from freqtrade.exceptions import (
    ExchangeError,
    InsufficientFundsError,
    InvalidOrderException,
    TemporaryError,
)

from tests.unit.bots.gate_scene import PAIR, Scene, scene_in
from trading.adapters.approvals import EntryRefused
from trading.adapters.order_lookup import doubting


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return scene_in(tmp_path)


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
    assert list(gate.approvals.outstanding.values()) == ["1"]


def test_an_order_that_one_replica_does_not_know_is_found_in_the_list_of_all(scene: Scene) -> None:
    gate = scene.gate()
    scene.exchange.garbles = scene.exchange._api.lags = True
    assert scene.buy()["id"] == "1"
    assert list(gate.approvals.outstanding.values()) == ["1"]


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
    assert held.reservation_id in gate.approvals.outstanding
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
