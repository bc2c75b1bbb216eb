"""One of the ways to lose money, played for real by both contenders; and one history, played twice."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from benchmarks.loss_stand.scenarios import SCENARIOS, calm
from benchmarks.loss_stand.stand import CANDLE_MS, PAIR, Stand
from benchmarks.losses import run
from observability.errors import SettingsError
from observability.progress import NullProgress
from trading.adapters.sandbox.market import Market

pytestmark = pytest.mark.slow
SEED = 7


def test_what_costs_plain_freqtrade_its_books_costs_ours_nothing() -> None:
    found = run(NullProgress(), only=("crash",), seed=SEED).facts["scenarios"]
    assert set(found) == {"crash before commit"}
    for plain, ours in found.values():
        assert min(plain["orphans"], plain["duplicates"], plain["unprotected"], plain["money"]) > 0
        assert (ours["fills"], ours["known"], ours["orphans"], ours["duplicates"]) == (1, 1, 0, 0)
        assert (ours["unprotected"], ours["money"]) == (0, 0.0)


def test_an_unknown_scenario_is_refused_and_all_have_words() -> None:
    with pytest.raises(SettingsError, match="lost reply"):
        run(NullProgress(), only=("no such",))
    assert len({item.name for item in SCENARIOS}) == len(SCENARIOS) == 9
    assert all(item.text for item in SCENARIOS)


def _in_and_out(market: Market) -> dict[str, Any]:
    plan = calm(market)
    return {
        **plan,
        "enter_until_ms": plan["enter_from_ms"] + 6 * CANDLE_MS,
        "exit_ms": plan["enter_from_ms"] + 6 * CANDLE_MS,
    }


def _history() -> str:
    """A hash of every order of a bot's run, its own random ids left out."""
    with Stand(ours=True, seed=SEED, plan=_in_and_out, grace_s=60.0) as stand:
        stand.client.advance(stand.plan["enter_from_ms"] - CANDLE_MS)
        stand.start()
        stand.run(12)
        orders = [{k: v for k, v in order.items() if k != "client_order_id"} for order in stand.orders()]
        assert {order["side"] for order in orders if order["pair"] == PAIR} == {"buy", "sell"}
        return hashlib.sha256(json.dumps(orders, sort_keys=True).encode()).hexdigest()


def test_two_equal_runs_with_one_seed_give_the_same_orders() -> None:
    assert _history() == _history()
