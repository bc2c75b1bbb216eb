"""One coin bought at the cheap exchange and sold short at the dear one: two exchanges, both by the wall clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.settings import Settings
from observability.errors import SettingsError
from observability.progress import NullProgress
from tests.integration.planted import write_pair

pytestmark = pytest.mark.slow
LONG, SHORT = "gap-long", "gap-short"
ROWS, GAP = 480, 0.015


def _settings(root: Path, name: str, log_close: Any) -> Settings:
    """A workspace whose exchange replays these closes."""
    candles = root / name / "candles"
    candles.mkdir(parents=True)
    write_pair(candles, "BTC/USDT", log_close)
    market = {"replay": candles, "pairs": ("BTC/USDT",), "trading_days": 20 / 96}
    options = {"gap": {"short_workspace": str(root / "dear" / "space")}}
    settings = Settings().changed(
        workspace={"root": root / name / "space"},
        market=market,
        trade={"strategies": ("gap",), "options": options},
        cluster={"dashboard": False},
    )
    settings.workspace.make()
    return settings


def _wait(what: Callable[[], bool], seconds: float = 90.0) -> bool:
    """Wait by the wall until something is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.5)
    return False


def _ledger(exchange: Any) -> dict[str, Any]:
    with closing(exchange.client()) as client:
        found = client.ledger()
    assert found["problems"] == []
    return dict(found)


def test_a_leg_on_each_exchange_is_held_against_the_other_and_both_are_closed_together(tmp_path: Path) -> None:
    from cluster.ray_local import ray_session
    from cluster.stages import trade as stage
    from cluster.stages.bots import Forecasts, bot_names, bot_specs
    from cluster.stages.exchange import start_exchange

    log_close = np.log(60_000.0) + np.cumsum(np.random.default_rng(3).normal(0.0, 0.0005, ROWS))
    cheap, dear = _settings(tmp_path, "cheap", log_close), _settings(tmp_path, "dear", log_close + GAP)
    with ExitStack() as stack:
        stack.enter_context(ray_session(cheap))
        handles = stage.prepare(cheap)
        exchanges = {}
        for name, settings in (("cheap", cheap), ("dear", dear)):
            running = start_exchange(settings, NullProgress(), accounts=tuple(bot_names(settings)), mode="wall")
            stack.callback(running.stop)
            exchanges[name] = running
        with pytest.raises(SettingsError, match="two virtual clocks"):
            bot_specs(cheap, Forecasts(), exchanges["cheap"])
        specs = bot_specs(cheap, Forecasts(), exchanges["cheap"], virtual=False)
        assert [(spec.name, spec.url) for spec in specs] == [
            (LONG, exchanges["cheap"].url), (SHORT, exchanges["dear"].url),
        ]  # fmt: skip
        fleet = stage.start_fleet(cheap, NullProgress(), specs, handles=handles)
        stack.callback(lambda: stage.stop_fleet(cheap, fleet))
        assert _wait(lambda: stage.status(fleet).legs == {"gap": "open"}), stage.status(fleet)
        coins = float(_ledger(exchanges["cheap"])["accounts"][LONG]["balances"]["BTC"]["total"])
        (position,) = _ledger(exchanges["dear"])["futures"][SHORT]["positions"]
        assert coins == pytest.approx(-float(position["amount"]), rel=0.005)
        assert coins * 60_000 > 800
        stage.flatten("tester", "to see both closed")
        assert _wait(lambda: all(not state.open_trades for state in fleet.status().values())), stage.status(fleet)
        assert _ledger(exchanges["dear"])["futures"][SHORT]["positions"] == []
        assert {name: state.doubts for name, state in fleet.status().items()} == {LONG: {}, SHORT: {}}
