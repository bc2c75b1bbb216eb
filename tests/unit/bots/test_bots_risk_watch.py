"""The risk actor's watch, without Ray: the kill switch, the limits file and the market's estimate, all by itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipelines.store import CandleStore, SeriesKey
from tests.unit.trading.trading_makers import LIMITS, NOW, intent, report
from trading.adapters.risk_actor import RiskActor, RiskActorConfig
from trading.clock import FixedClock
from trading.journal import Journal
from trading.kill_switch import RISK, KillSwitch
from trading.orders import Refused
from trading.state import TradingState


def soon(reached: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if reached():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def config(tmp_path: Path) -> RiskActorConfig:
    KillSwitch(tmp_path / "switch.jsonl").install()
    return RiskActorConfig(
        tmp_path / "journal.db", LIMITS, FixedClock(NOW), None, tmp_path / "switch.jsonl", tmp_path / "risk.toml"
    )


@pytest.fixture
def actor(config: RiskActorConfig) -> Iterator[RiskActor]:
    made = RiskActor(config)
    for account in ("acc", "toy"):
        made.acquire_lease(account, "nn")
        made.report(report(account))
    yield made
    made.close()


def test_it_obeys_and_acknowledges_while_nobody_asks_anything(actor: RiskActor, config: RiskActorConfig) -> None:
    assert config.switch is not None
    switch = KillSwitch(config.switch)
    command = switch.order("halt", "ann", "a drill")
    assert soon(lambda: switch.acknowledged()[RISK].command == command.id)
    assert switch.acknowledged()[RISK].state == "halted"
    assert actor.state().who == "ann"
    switch.order("resume", "ann", "over")
    assert soon(lambda: actor.state().state is TradingState.ACTIVE)


def test_a_changed_limits_file_counts_at_once_and_a_bad_one_does_not(actor: RiskActor, config: RiskActorConfig) -> None:
    assert config.limits_file is not None
    config.limits_file.write_text("max_notional = 100.0\n")

    def refused() -> bool:
        decision = actor.decide(intent(intent_id=f"i-{time.monotonic_ns()}"))
        if isinstance(decision, Refused):
            return decision.code == "NOTIONAL_MAX"
        actor.settle(decision.reservation_id, "cancelled")
        return False

    assert soon(refused)
    config.limits_file.write_text("max_notional = nonsense\n")

    def noted() -> int:
        journal = Journal(config.journal, read_only=True)
        found = len(list(journal.read("limit_refused")))
        journal.close()
        return found

    assert soon(lambda: noted() == 1)
    assert refused(), "the limits before it stay"
    actor.close()
    again = RiskActor(config)
    try:
        for account in ("acc", "toy"):
            lease = again.acquire_lease(account, "nn")
            again.report(report(account, lease_epoch=lease.epoch))
        epoch = again.book().leases["acc"].epoch
        decision = again.decide(intent(intent_id="after", lease_epoch=epoch))
        assert isinstance(decision, Refused)
        assert decision.code == "NOTIONAL_MAX", "over a restart, too"
    finally:
        again.close()


def test_correlations_come_out_of_the_candle_store(tmp_path: Path, config: RiskActorConfig) -> None:
    store, dice, rows = CandleStore(str(tmp_path / "raw")), np.random.default_rng(3), 1_000
    shared = dice.standard_normal(rows)
    start = datetime.fromtimestamp(NOW / 1000, tz=UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=12)
    for pair, own in (("BTC/USDT", 0.1), ("ETH/USDT", 0.5)):
        close = 100 * np.exp(np.cumsum(0.004 * (shared + own * dice.standard_normal(rows))))
        times = [start + timedelta(minutes=15 * number) for number in range(rows)]
        prices = dict.fromkeys(("open", "high", "low", "close"), close)
        at = pl.Series(times, dtype=pl.Datetime("ms", "UTC"))
        frame = pl.DataFrame({"timestamp": at, **prices, "volume": np.ones(rows)})
        store.write(SeriesKey("binance", "ohlcv", pair, "15m"), frame)
    actor = RiskActor(replace(config, candles=str(tmp_path / "raw"), exchange="binance"))
    try:
        assert soon(lambda: bool(actor.book().market.rows))
        market = actor.book().market
        low, high = market.correlation["BTC|ETH"]
        assert 0.75 < low < 1 / math.sqrt(1.01 * 1.25) < high < 0.95
        assert market.sigma["BTC"] == pytest.approx(0.004 * math.sqrt(1.01 * 96), rel=0.1)
    finally:
        actor.close()
