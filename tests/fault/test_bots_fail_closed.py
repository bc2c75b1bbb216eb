"""Whatever is wrong with the risk manager or the forecasts: no entry, and every exit, in dry runs and live."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.settings import Settings
from observability.progress import NullProgress
from tests.fault.fail_closed_driver import FORECASTS, SCENARIOS

pytestmark = pytest.mark.slow


SOME = ("risk: dead", "risk: slow", "risk: NaN", "risk: old epoch", "inference: dead", "inference: NaN")


@pytest.mark.parametrize(("mode", "scenarios"), [("live", SCENARIOS), ("dry-run", SOME)], ids=["live", "dry"])
def test_no_entry_and_every_exit_whatever_misbehaves(
    mode: str, scenarios: tuple[str, ...], tmp_path: Path, repo_root: Path
) -> None:
    from cluster.stages.exchange import start_exchange

    settings = Settings().changed(
        workspace={"root": tmp_path},
        market={"trading_days": 20, "history_days": 10, "pairs": ("BTC/USDT", "ETH/USDT", "SOL/USDT", "DOGE/USDT")},
        trade={"strategies": ("nn",)},
    )
    settings.workspace.make()
    exchange = start_exchange(settings, NullProgress(), accounts=("nn",))
    try:
        key = str(exchange.key_files["nn"]) if mode == "live" else ""
        words = [str(tmp_path / "bot"), exchange.url, key, ",".join(exchange.pairs), ",".join(scenarios)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fault.fail_closed_driver", *words],
            cwd=repo_root, env={**os.environ, "PYTHONPATH": str(repo_root)}, capture_output=True, text=True,
            timeout=280, check=False,
        )  # fmt: skip
    finally:
        exchange.stop()
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told["scenarios"]) == set(scenarios)
    for name, found in told["scenarios"].items():
        assert found["held"] > 0, f"{name}: nothing was open, so nothing is shown; {told}"
        assert found["entries"] == 0, f"{name}: {found}"
        assert found["left"] == 0, f"{name}: {found}"
        if name not in FORECASTS:  # without a forecast the strategy does not even ask
            assert found["wanted"] > 0, f"{name}: {found}"
    assert told["restarts"] == 0, told["error"]
