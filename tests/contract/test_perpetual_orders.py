"""A bot's stops on perpetuals lie in a book apart: found after a lost reply, taken back when they are forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import ccxt
import pytest
from freqtrade.persistence import Trade, init_db

from cluster.stages.exchange import RunningExchange
from tests.contract.sandbox_kit import conserved, exchange_in, trader_of
from trading.adapters.order_lookup import OrderLookup
from trading.adapters.orphans import clear_orphans

BTC = "BTC/USDT:USDT"
OURS, STRANGE, ENTRY = f"s-{'a' * 32}", "by-hand", f"r-{'b' * 32}"


@pytest.fixture
def exchange(tmp_path: Any) -> Iterator[RunningExchange]:
    with exchange_in(tmp_path, "bot", trading_days=2.0) as running, conserved(running):
        yield running


@pytest.fixture
def held(exchange: RunningExchange) -> Iterator[Any]:
    """Freqtrade's exchange as far as it is asked here, over real ccxt; it is long 0.1 with a stop below."""
    init_db("sqlite://")
    api = trader_of(exchange, "bot", ccxt.binanceusdm)
    api.create_order(BTC, "market", "buy", 0.1, None, {"clientOrderId": ENTRY})
    yield SimpleNamespace(
        trading_mode="futures",
        _api=api,
        _config={"dry_run": False},
        _order_contracts_to_amount=lambda order: order,
    )
    Trade.session.remove()


def _stop(api: Any, client_id: str) -> str:
    price = api.fetch_ticker(BTC)["last"] * 0.9
    params = {"stopPrice": price, "reduceOnly": True, "clientOrderId": client_id}
    return str(api.create_order(BTC, "market", "sell", 0.1, None, params)["id"])


def test_a_stop_is_found_by_the_id_that_we_gave_it(held: Any) -> None:
    made, lookup = _stop(held._api, OURS), OrderLookup(held)
    found = lookup.by_client_id(OURS, BTC, stop=True)
    assert found is not None
    assert (found["id"], found["status"]) == (made, "open")
    assert lookup.by_id(made, BTC, stop=True) is not None
    entry = lookup.by_client_id(ENTRY, BTC)
    assert entry is not None
    assert entry["filled"] == 0.1
    assert lookup.ask(OURS, BTC) is None, "ordinary orders are another book"


def test_a_forgotten_stop_is_taken_back_and_a_strangers_is_told(held: Any) -> None:
    ours, strange = _stop(held._api, OURS), _stop(held._api, STRANGE)
    assert ours != strange
    assert clear_orphans(held, [BTC]) == {strange: BTC}
    left = held._api.fetch_open_orders(BTC, params={"stop": True})
    assert [order["id"] for order in left] == [strange]
