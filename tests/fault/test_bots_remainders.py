"""A market too thin for an order: what is left is too little to be sold; it neither rests nor stops anything."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from benchmarks.loss_stand.scenarios import calm
from benchmarks.loss_stand.stand import CANDLE_MS, PAIR, Stand, filled
from trading.adapters.bot_books import read_trades
from trading.adapters.sandbox.market import Market
from trading.journal import Journal

pytestmark = pytest.mark.slow
LEAVE = 10  # candles
LITTLE = 3.0  # quote currency; the exchange takes no order below 5


def _in_and_out(market: Market) -> dict[str, Any]:
    plan = calm(market)
    leave_ms = plan["enter_from_ms"] + LEAVE * CANDLE_MS
    return {**plan, "enter_until_ms": leave_ms - CANDLE_MS, "exit_ms": leave_ms}


def test_what_a_thin_market_fills_or_leaves_is_let_go() -> None:
    with Stand(ours=True, seed=7, plan=_in_and_out, grace_s=60.0) as stand:
        stand.client.advance(stand.plan["enter_from_ms"] - CANDLE_MS)
        stand.start()
        stand.client.plan_fault(kind="partial_fills", max_fill=LITTLE, refill_ms=10**9, pairs=[PAIR])
        stand.run(3)
        stand.client.clear_faults()
        little = stand.held() * stand.price()
        assert 0 < little < 5.0
        stand.run(3)
        first, second = filled(stand.orders(), "buy")
        assert first["status"] == "canceled", "an entry that nobody wants any more does not rest until it is filled"
        assert second["status"] == "filled", "the account enters again beside what it cannot sell"
        worth = stand.held() * stand.price()
        thin = worth - little - LITTLE
        stand.client.plan_fault(kind="partial_fills", max_fill=thin, refill_ms=10**9, pairs=[PAIR])
        stand.run_to(stand.plan["exit_ms"] + 6 * CANDLE_MS)
        (sold,) = filled(stand.orders(), "sell")
        assert float(sold["filled"]) < float(second["filled"])
        assert stand.held() * stand.price() < 10.0
        trades = read_trades(stand.database())
        assert (trades.open_pairs, trades.closed) == ((), 2)
        assert stand.harm().money == 0.0 == stand.harm().orphans
        assert stand.risk.state().state.value == "active"
        with closing(Journal(stand.journal, read_only=True)) as journal:
            told = [entry.payload for entry in journal.read("report")]
            wins = [entry.payload["profit"] for entry in journal.read("fill") if entry.payload["profit"] is not None]
    assert told[-1]["positions"] == []
    assert not any(report["mismatch"] for report in told)
    assert min(report["equity"] for report in told) > 0.99 * max(report["equity"] for report in told)
    assert len(wins) == 1, "the sale that left the rest counts as the end of its trade"
