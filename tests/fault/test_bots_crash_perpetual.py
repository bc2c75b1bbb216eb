"""The short leg loses answers, and its life between an order and its booking: nothing is doubled, nothing lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.integration.gap_stand import AFTER, DEAR, SHORT, GapStand, gap_stand
from trading.arbitrage.coordinator import Phase

pytestmark = pytest.mark.slow
ENTRY, STOP = "/fapi/v1/order", "/fapi/v1/algoOrder"


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GapStand]:
    with gap_stand(tmp_path_factory.mktemp("crash"), 4) as made:
        yield made


def _sound(stand: GapStand, pulse: int) -> None:
    """One entry and one stop of this pulse, both legs closed with the gap, nothing left over, books that agree."""
    stand.to_pulse(pulse, AFTER)
    assert stand.flat(), stand.story()
    orders = stand.orders(SHORT)
    assert [order for order in orders if order["status"] == "new"] == []
    assert set(Counter(order["client_order_id"] for order in orders).values()) == {1}
    stand.books_agree()


def _planned(stand: GapStand) -> int:
    with closing(stand.exchange.client()) as client:
        return len(client.faults())


def _protected(stand: GapStand) -> None:
    """The short leg is held, and exactly one stop rests for all of it."""
    resting = [order for order in stand.orders(SHORT) if order["status"] == "new"]
    assert [(order["side"], order["type"]) for order in resting] == [("buy", "stop_loss")]
    assert -stand.held()[1] == float(resting[0]["amount"]) > 0


@pytest.mark.parametrize(("pulse", "path"), [(0, ENTRY), (1, STOP)])
def test_an_answer_that_is_lost_is_found_and_the_order_not_repeated(stand: GapStand, pulse: int, path: str) -> None:
    stand.to_pulse(pulse)
    stand.plan(kind="timeout_after", count=1, hold_s=0.3, path=path)
    stand.until_phase(Phase.OPEN)
    assert _planned(stand) == 0, "it was met"
    _protected(stand)
    _sound(stand, pulse)


@pytest.mark.parametrize(("pulse", "path"), [(2, ENTRY), (3, STOP)])
def test_a_bot_that_dies_before_it_can_book_its_order_takes_it_up(stand: GapStand, pulse: int, path: str) -> None:
    """Killed while the exchange, which has executed the order already, holds its answer back."""
    stand.to_pulse(pulse)
    stand.plan(kind="timeout_after", count=1, hold_s=20.0, path=path)
    for _ in range(60):
        if _planned(stand) == 0:
            break
        stand.minutes(1)
    assert _planned(stand) == 0, stand.story()
    recovery = stand.fleet.kill_and_recover(SHORT)
    assert recovery.trades_after == (DEAR,)
    stand.minutes(3)
    assert stand.phase is Phase.OPEN, stand.story()
    _protected(stand)
    _sound(stand, pulse)
