"""Two bots and a coordinator over two books, live on the sandbox: opened, closed, refused, late, killed, left alone.

The sandbox's perpetuals share the prices of spot, so the gap is planted between two symbols: bitcoin bought on one
account's spot book, and sold short on the other account's perpetual of a symbol that is at times dearer.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from observability.progress import NullProgress
from tests.integration.planted import trading_on, write_pair
from trading.arbitrage.coordinator import Phase

pytestmark = pytest.mark.slow
LONG, SHORT = "gap-long", "gap-short"
CHEAP, DEAR = "BTC/USDT", "WBTC/USDT:USDT"
HISTORY, PULSE, PULSES, WIDE = 450, 12, 6, 0.015
BEFORE, AFTER = 1, 10  # candles of a pulse: just before its gap opens, and when it has closed
MINUTE = 60_000


def _gap(rows: int) -> Any:
    """Nothing, then a wide gap, then nothing: once in every `PULSE` candles of trading."""
    gap = np.zeros(rows)
    for pulse in range(PULSES):
        first = HISTORY + pulse * PULSE + BEFORE + 1
        gap[first : first + 6] = WIDE
    return gap


@pytest.fixture(scope="module")
def trading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    candles = tmp_path_factory.mktemp("legs") / "candles"
    candles.mkdir()
    rows = HISTORY + PULSES * PULSE + 10
    log_btc = np.log(60_000.0) + np.cumsum(np.random.default_rng(5).normal(0.0, 0.0008, rows))
    write_pair(candles, "BTC/USDT", log_btc)
    write_pair(candles, "WBTC/USDT", log_btc + _gap(rows))
    options = {"gap": {"long": CHEAP, "short": DEAR, "rest_s": 1_800}}
    pairs = ("BTC/USDT", "WBTC/USDT")
    with trading_on(candles, pairs, rows - HISTORY, strategies=("gap",), options=options) as found:
        yield found


def _coordinator() -> Any:
    import ray

    return ray.get_actor("legs-gap", namespace="mtst")


def _standing() -> Any:
    import ray

    return ray.get(_coordinator().standing.remote(), timeout=10)


def _held(trading: dict[str, Any]) -> tuple[float, float]:
    """Bitcoin that the long leg owns, and the short leg's position, by the exchange's ledger."""
    with closing(trading["exchange"].client()) as client:
        ledger = client.ledger()
    assert ledger["problems"] == []
    coins = ledger["accounts"][LONG]["balances"].get("BTC", {"total": "0"})["total"]
    positions = ledger["futures"][SHORT]["positions"]
    return float(coins), float(positions[0]["amount"]) if positions else 0.0


def _story(trading: dict[str, Any]) -> str:
    """What everybody says, for a test that failed."""
    return "\n".join(map(str, [_held(trading), _standing(), *trading["fleet"].status().values()]))


def _flat(trading: dict[str, Any]) -> bool:
    coins, position = _held(trading)
    return coins * 60_000 < 10 and position == 0


def _minutes(trading: dict[str, Any], count: int, until: Callable[[], bool] | None = None) -> int:
    """Let virtual minutes pass, one by one, at most `count`, until something is true; returns how many passed."""
    from trading.adapters.fleet import CONDUCTOR

    with closing(trading["exchange"].client()) as client:
        for passed in range(count):
            if until is not None and until():
                return passed
            client.sleep(CONDUCTOR, client.join(CONDUCTOR) + MINUTE)
            client.join(CONDUCTOR)
            trading["fleet"].settle_down()
    return count


def _to_pulse(trading: dict[str, Any], pulse: int, candle: int = BEFORE) -> None:
    """Let time run to a candle of a pulse."""
    with closing(trading["exchange"].client()) as client:
        now_ms = client.now_ms()
    begins = trading["exchange"].open_ms + (pulse * PULSE + candle) * 15 * MINUTE
    assert now_ms <= begins
    trading["fleet"].run_candles(-(-(begins - now_ms) // (15 * MINUTE)), NullProgress())


def _books_agree(trading: dict[str, Any]) -> None:
    books = trading["fleet"].books()
    assert books.agree, {name: book.text for name, book in books.by_bot.items()}
    assert books.difference < 1e-8


def test_both_legs_are_opened_held_and_closed_when_the_gap_has_gone(trading: dict[str, Any]) -> None:
    import ray

    fleet = trading["fleet"]
    _to_pulse(trading, 0)
    assert _flat(trading)
    _minutes(trading, 60, lambda: _standing().pair.phase is Phase.OPEN)
    assert _standing().pair.phase is Phase.OPEN, _story(trading)
    coins, position = _held(trading)
    assert coins == pytest.approx(-position, rel=0.005), "as many bought as sold, but for the fee"
    assert 800 < coins * 60_000 < 1_200
    fleet.run_candles(2, NullProgress())
    assert _standing().pair.phase is Phase.OPEN
    book = ray.get(fleet.risk.book.remote())
    worth = {
        held.pair: (held.notional if held.side == "long" else -held.notional, held.stop)
        for view in book.accounts.values()
        for held in view.report.positions
    }
    assert set(worth) == {CHEAP, DEAR}
    assert abs(sum(net for net, _ in worth.values())) < 0.03 * sum(abs(net) for net, _ in worth.values())
    assert all(stop for _, stop in worth.values()), "each leg's stop rests on its exchange"
    _to_pulse(trading, 0, AFTER)
    assert _flat(trading), _story(trading)
    assert _standing().pair.phase is Phase.IDLE
    profit = sum(state.profit for state in fleet.status().values())
    assert 1 < profit < 15, "what the gap had opened to, of 1,000, less four orders"
    assert {name: state.doubts for name, state in fleet.status().items()} == {LONG: {}, SHORT: {}}
    _books_agree(trading)


def test_a_refused_leg_has_the_other_unwound(trading: dict[str, Any]) -> None:
    with closing(trading["exchange"].client()) as client:
        client.plan_fault(
            kind="error", count=0, method="POST", path="/fapi/v1/order", account=SHORT, status=400, code=-2019,
            message="Margin is insufficient.",
        )  # fmt: skip
        _to_pulse(trading, 1)
        _minutes(trading, 60, lambda: _standing().pair.phase is Phase.UNWINDING)
        assert _standing().pair.phase is Phase.UNWINDING, _story(trading)
        assert "leg b came to an end unfilled" in _standing().pair.reason
        assert _held(trading)[0] * 60_000 > 800, "the long leg stood alone"
        assert _minutes(trading, 10, lambda: _flat(trading)) <= 3
        client.clear_faults()
    assert _minutes(trading, 10, lambda: _standing().pair.phase is Phase.IDLE) <= 3
    _minutes(trading, 15)
    assert _flat(trading), "after an unwinding it rests, whatever the gap"
    _to_pulse(trading, 1, AFTER)
    assert _flat(trading), _story(trading)
    _books_agree(trading)


def test_a_leg_that_is_never_filled_has_both_taken_back(trading: dict[str, Any]) -> None:
    _to_pulse(trading, 2)
    with closing(trading["exchange"].client()) as client:
        client.plan_fault(kind="partial_fills", pairs=["WBTC/USDT"], max_fill=30.0, refill_ms=MINUTE)
        _minutes(trading, 60, lambda: _standing().pair.phase is Phase.OPENING)
        opened_ms = _standing().pair.asked_ms
        _minutes(trading, 10, lambda: _standing().pair.phase is not Phase.OPENING)
        assert client.now_ms() - opened_ms <= 5 * MINUTE, "three minutes and a loop"
        assert _standing().pair.phase is Phase.UNWINDING, _story(trading)
        assert "one leg was missing after 180000 ms" in _standing().pair.reason
        client.clear_faults()
    assert _minutes(trading, 15, lambda: _flat(trading)) <= 5, _story(trading)
    _to_pulse(trading, 2, AFTER)
    assert _flat(trading), _story(trading)
    _books_agree(trading)


def _kill_coordinator() -> None:
    """Kill -9, and wait until Ray has it back."""
    import ray

    pid = ray.get(_coordinator().ping.remote(), timeout=10)
    os.kill(pid, signal.SIGKILL)
    for _ in range(100):
        time.sleep(0.1)
        try:
            if ray.get(_coordinator().ping.remote(), timeout=10) != pid:
                return
        except ray.exceptions.RayError:
            continue
    pytest.fail("the coordinator did not come back")


def test_a_coordinator_killed_between_the_legs_goes_on_where_it_was(trading: dict[str, Any]) -> None:
    _to_pulse(trading, 3)
    _minutes(trading, 60, lambda: _standing().pair.phase is Phase.OPENING)
    assert _standing().pair.phase is Phase.OPENING, _story(trading)
    _kill_coordinator()
    assert _standing().pair.phase is Phase.OPENING, "it has read what it had written"
    _minutes(trading, 10, lambda: _standing().pair.phase is not Phase.OPENING)
    assert _standing().pair.phase is Phase.OPEN, _story(trading)
    coins, position = _held(trading)
    assert coins == pytest.approx(-position, rel=0.005)
    assert coins * 60_000 > 800


def test_a_coordinator_that_has_forgotten_everything_has_both_legs_closed(trading: dict[str, Any]) -> None:
    assert _standing().pair.phase is Phase.OPEN
    (trading["settings"].workspace.var / "legs" / "gap.json").unlink()
    _kill_coordinator()
    assert _standing().pair.phase is Phase.IDLE
    assert _minutes(trading, 15, lambda: _flat(trading)) <= 5, _story(trading)
    _to_pulse(trading, 3, AFTER)
    _books_agree(trading)


def test_a_killed_bot_takes_its_leg_up_again_and_a_flatten_closes_both(trading: dict[str, Any]) -> None:
    from cluster.stages import trade as stage

    fleet = trading["fleet"]
    _to_pulse(trading, 4)
    _minutes(trading, 60, lambda: _standing().pair.phase is Phase.OPEN)
    recovery = fleet.kill_and_recover(SHORT)
    assert recovery.trades_after == recovery.trades_before == (DEAR,)
    _minutes(trading, 3)
    assert _standing().pair.phase is Phase.OPEN, _story(trading)
    stage.flatten("tester", "to see both closed")
    assert _minutes(trading, 10, lambda: _flat(trading)) <= 2, _story(trading)
    _to_pulse(trading, 4, AFTER)
    assert _flat(trading), "nothing is opened until somebody resumes"
    stage.resume("tester", "enough seen")
    _books_agree(trading)


def test_without_a_coordinator_nothing_is_opened_and_what_is_held_is_closed(trading: dict[str, Any]) -> None:
    import ray

    _to_pulse(trading, 5)
    _minutes(trading, 60, lambda: _standing().pair.phase is Phase.OPEN)
    assert _standing().pair.phase is Phase.OPEN, _story(trading)
    ray.kill(_coordinator(), no_restart=True)
    assert 8 <= _minutes(trading, 20, lambda: _flat(trading)) <= 14, "closed when it was silent for ten minutes"
    before = {name: state.orders for name, state in trading["fleet"].status().items()}
    _minutes(trading, 20)
    assert _flat(trading), "the gap is as wide as it was, and nobody says so"
    assert {name: state.orders for name, state in trading["fleet"].status().items()} == before
    _books_agree(trading)
