"""A real bot is killed, its orders are lost on the way, its risk manager dies: nothing doubles, nothing vanishes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from cluster.settings import Settings
from observability.progress import NullProgress

pytestmark = pytest.mark.slow
QUIET = NullProgress()
ORDER = {"method": "POST", "path": "/api/v3/order", "params": {"side": "BUY"}}
STOP = {"method": "POST", "path": "/api/v3/order", "params": {"type": "STOP"}}


@dataclass
class Stand:
    """A fleet of one bot on its exchange."""

    fleet: Any
    exchange: Any

    def orders(self) -> list[dict[str, Any]]:
        with closing(self.exchange.client()) as client:
            return list(client.ledger()["accounts"]["swing"]["orders"])

    def filled(self) -> list[dict[str, Any]]:
        return [order for order in self.orders() if float(order["filled"]) > 0]

    def plan(self, what: Mapping[str, Any] = ORDER, **fault: Any) -> None:
        with closing(self.exchange.client()) as client:
            client.plan_fault(**{**what, **fault})

    def resting(self) -> dict[str, int]:
        """Stops that rest on the exchange, by pair."""
        return dict(Counter(o["pair"] for o in self.orders() if o["status"] == "new" and o["side"] == "sell"))

    def planned(self) -> int:
        with closing(self.exchange.client()) as client:
            return len(client._ask("GET", "faults")["faults"])

    def run(self, candles: int) -> None:
        from cluster.stages import trade as stage

        assert stage.run_until(self.fleet, candles, QUIET, max_s=60).candles == candles

    def state(self) -> Any:
        return self.fleet.status()["swing"]

    def run_until(self, reached: Any, candles: int = 300) -> None:
        for _ in range(candles // 5):
            self.run(5)
            if reached():
                return
        pytest.fail(f"not reached in {candles} candles: {self.state()}")


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    from cluster.ray_local import ray_session
    from cluster.stages import trade as stage
    from cluster.stages.bots import Forecasts, bot_specs
    from cluster.stages.exchange import start_exchange

    settings = Settings().changed(
        workspace={"root": tmp_path_factory.mktemp("crash")},
        market={"trading_days": 25, "history_days": 10, "pairs": ("BTC/USDT", "ETH/USDT", "SOL/USDT", "DOGE/USDT")},
        trade={"strategies": ("swing",)},
        cluster={"dashboard": False},
    )
    settings.workspace.make()
    with ray_session(settings):
        handles = stage.prepare(settings)
        exchange = start_exchange(settings, QUIET, accounts=settings.trade.strategies)
        try:
            specs = bot_specs(settings, Forecasts(), exchange)
            fleet = stage.start_fleet(settings, QUIET, specs, handles=handles)
            try:
                yield Stand(fleet, exchange)
            finally:
                stage.stop_fleet(settings, fleet)
        finally:
            exchange.stop()


def _sound(stand: Stand) -> None:
    """Every order under an id of its own, and three books that agree."""
    ids = Counter(order["client_order_id"] for order in stand.orders())
    assert set(ids.values()) <= {1}
    books = stand.fleet.books()
    assert books.agree, books.by_bot["swing"].text


def test_a_bot_killed_with_open_positions_comes_back_with_them(stand: Stand) -> None:
    from cluster.stages import trade as stage

    stand.run_until(lambda: stand.state().open_trades)
    before = stand.filled()
    found = stage.kill_and_recover(stand.fleet, "swing", QUIET)
    assert found.trades_before == found.trades_after != ()
    assert found.new_pid != found.killed_pid
    assert psutil.Process(found.new_pid).nice() == psutil.Process().nice(), "no worse a claim to a core than before"
    assert stand.filled() == before, "coming back bought and sold nothing"
    _sound(stand)
    assert stand.resting() == dict.fromkeys(found.trades_after, 1), "its stops rested on the exchange meanwhile"
    loops = stand.state().loops
    stand.run(10)
    assert stand.state().loops >= loops + 9, "the clock goes on, candle by candle"
    _sound(stand)


def test_an_order_whose_answer_is_lost_is_found_and_not_repeated(stand: Stand) -> None:
    before = len(stand.filled())
    stand.plan(kind="timeout_after", count=1, hold_s=0.3)
    stand.run_until(lambda: stand.planned() == 0)
    stand.run(1)  # an answer that the gate could not find in time is found by the next loop
    assert len(stand.filled()) > before
    _sound(stand)
    stand.run(10)
    _sound(stand)


def test_an_order_that_never_arrived_is_given_up_and_its_pair_freed(stand: Stand) -> None:
    import ray

    stand.plan(kind="timeout_before", count=1, hold_s=0.3)
    stand.run_until(lambda: stand.planned() == 0)
    stand.run(5)
    assert ray.get(stand.fleet.risk.reservations.remote("swing")) == ()
    _sound(stand)


def test_an_order_sent_by_a_bot_that_died_before_it_could_book_it_is_adopted(stand: Stand) -> None:
    """Killed while the exchange, which has executed the order already, holds its answer back."""
    import ray

    from cluster.stages import trade as stage

    stage.flatten("tester", "so that the next order is an entry")
    stand.run(3)
    stage.resume("tester", "flat")
    assert stand.state().open_trades == ()
    bought = [order for order in stand.filled() if order["side"] == "buy"]
    stand.plan(kind="timeout_after", count=1, hold_s=20.0)
    for _ in range(300):
        stand.fleet.run_candles(1, QUIET, max_s=2.0, settle=False)
        if stand.planned() == 0:
            break
    after = [order for order in stand.filled() if order["side"] == "buy"]
    assert len(after) == len(bought) + 1
    found = stand.fleet.kill_and_recover("swing")
    assert after[-1]["pair"] in found.trades_after
    assert after[-1]["pair"] not in found.trades_before
    assert ray.get(stand.fleet.risk.reservations.remote("swing")) == ()
    stand.run(3)
    _sound(stand)
    assert len([order for order in stand.filled() if order["client_order_id"] == after[-1]["client_order_id"]]) == 1


def test_without_its_risk_manager_a_bot_only_waits_for_it(stand: Stand) -> None:
    import ray

    from cluster.stages import trade as stage

    pid = ray.get(stand.fleet.risk.ping.remote())["pid"]
    os.kill(pid, signal.SIGKILL)
    stand.run(10)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if ray.get(stand.fleet.risk.ping.remote(), timeout=5)["pid"] != pid:
                break
        except ray.exceptions.RayError:
            time.sleep(0.2)
    stand.run(10)
    assert stage.status(stand.fleet).state == "active"
    assert stand.state().phase == "running"
    assert stand.state().restarts == 0
    _sound(stand)


def test_an_exchange_that_fails_for_a_while_costs_candles_and_nothing_else(stand: Stand) -> None:
    account = {"method": "GET", "path": "/api/v3/account"}
    stand.plan(account, kind="error", count=12, status=503, code=-1001, message="down")
    stand.run(5)
    with closing(stand.exchange.client()) as client:
        client.clear_faults()
    stand.run(10)
    assert stand.state().phase == "running"
    _sound(stand)


def test_the_kill_switch_works_while_the_risk_manager_is_wedged(stand: Stand) -> None:
    import ray

    home = stand.fleet.config.switch.parent.parent

    def command(*words: str) -> dict[str, Any]:
        program = [sys.executable, "-m", "cluster", "--workspace", str(home), "trade", *words, "--who", "ann", "--json"]
        done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
        return dict(json.loads(done.stdout))

    pid = ray.get(stand.fleet.risk.ping.remote())["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        told = command("flatten", "--reason", "all is wedged")
        assert "risk" in told["silent"], told
        before = [order for order in stand.filled() if order["side"] == "buy"]
        stand.run(3)
        assert stand.state().open_trades == ()
        assert [order for order in stand.filled() if order["side"] == "buy"] == before
    finally:
        os.kill(pid, signal.SIGCONT)
    told = command("resume", "--wait", "20")
    assert told["silent"] == {}, "everybody has seen it"
    stand.run(2)
    told = command("resume", "--wait", "20")
    assert set(told["acknowledged"]) >= {"risk"}
    assert ray.get(stand.fleet.risk.state.remote()).who in ("ann", "system")
    _sound(stand)


def test_a_refused_stop_sells_nothing_and_closes_the_account_to_entries_until_it_rests(stand: Stand) -> None:
    stand.plan(STOP, kind="error", count=0, for_ms=100 * 900_000, status=400, code=-1013, message="Filter failure")
    stand.run_until(lambda: any(pair not in stand.resting() for pair in stand.state().open_trades))
    bare = {pair for pair in stand.state().open_trades if pair not in stand.resting()}
    before = stand.filled()
    stand.run(5)
    assert [order for order in stand.filled()[len(before) :] if order["side"] == "buy"] == []
    assert len([order for order in stand.filled()[len(before) :] if order["pair"] in bare]) <= len(bare), "no churn"
    with closing(stand.exchange.client()) as client:
        client.clear_faults()
    stand.run(3)
    assert stand.resting() == dict.fromkeys(stand.state().open_trades, 1)
    _sound(stand)


def test_a_stop_placed_by_a_bot_that_died_before_it_could_book_it_is_replaced_by_one_that_it_knows(
    stand: Stand,
) -> None:
    stand.run_until(lambda: not stand.state().open_trades, 400)
    stand.plan(STOP, kind="timeout_after", count=1, hold_s=20.0)
    for _ in range(300):
        stand.fleet.run_candles(1, QUIET, max_s=2.0, settle=False)
        if stand.planned() == 0:
            break
    (lost,) = [order for order in stand.orders() if order["status"] == "new"]
    found = stand.fleet.kill_and_recover("swing")
    stand.run(2)
    assert found.trades_after == (lost["pair"],)
    if stand.state().open_trades:
        (known,) = [order for order in stand.orders() if order["status"] == "new"]
        assert known["order_id"] != lost["order_id"]
    assert stand.resting() == dict.fromkeys(stand.state().open_trades, 1)
    _sound(stand)


def test_stops_execute_on_the_exchange_while_the_bot_is_away_and_the_books_agree(stand: Stand) -> None:
    stopped = [order for order in stand.filled() if order["client_order_id"].startswith("s-")]
    for _ in range(60):
        if stopped:
            break
        stand.run(10)
        stopped = [order for order in stand.filled() if order["client_order_id"].startswith("s-")]
    assert stopped, "in weeks of trading some stop is met"
    _sound(stand)
