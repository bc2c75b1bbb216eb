"""A market that shows no price, or a wrong one, for a while: nothing halts or sells, and the exit comes as planned."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import Any

import pytest

from benchmarks.loss_stand.scenarios import calm
from benchmarks.loss_stand.stand import CANDLE_MS, PAIR, Stand
from trading.adapters.sandbox.market import Market
from trading.journal import Journal

pytestmark = pytest.mark.slow
KLINES = {"kind": "error", "method": "GET", "path": "/api/v3/klines", "status": 400, "code": -1121, "count": 0}


def _in_and_out(market: Market) -> dict[str, Any]:
    plan = calm(market)
    leave_ms = plan["enter_from_ms"] + 14 * CANDLE_MS
    return {**plan, "enter_until_ms": leave_ms, "exit_ms": leave_ms}


@pytest.mark.parametrize("how", ["zero", "spike"])
def test_coins_without_a_price_are_no_loss_and_a_garbled_one_is_no_gain(how: str) -> None:
    with Stand(ours=True, seed=7, plan=_in_and_out, grace_s=60.0) as stand:
        stand.client.advance(stand.plan["enter_from_ms"] - CANDLE_MS)
        stand.start()
        stand.run(4)
        assert stand.held() > 0
        stand.client.plan_fault(kind="garbage_candles", how=how, pairs=[PAIR], for_ms=3 * CANDLE_MS)
        stand.run(4)
        stand.client.plan_fault(**KLINES, params={"symbol": PAIR.replace("/", "")}, for_ms=3 * CANDLE_MS)
        stand.kill()
        stand.start()  # with no candle of the pair at all
        stand.run(4)
        assert stand.held() > 0
        assert stand.risk.state().state.value == "active", stand.risk.state()
        stand.run(6)
        assert Counter(order["side"] for order in stand.orders() if float(order["filled"]) > 0) == {"buy": 1, "sell": 1}
        assert stand.harm().none
        with closing(Journal(stand.journal, read_only=True)) as journal:
            told = [float(entry.payload["equity"]) for entry in journal.read("report")]
    assert min(told) > 0.99 * max(told)
