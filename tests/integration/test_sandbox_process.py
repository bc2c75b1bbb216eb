"""The exchange as a process: its command line, its refusals, its other modes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import ccxt
import httpx
import pytest

from cluster.settings import Settings
from cluster.stages.exchange import market_config, start_exchange
from observability.errors import SecretError, SettingsError, StartError
from observability.ports import free_port
from observability.progress import NullProgress
from tests import books_kit
from trading.adapters.api_key import read_key
from trading.adapters.sandbox.__main__ import serve
from trading.adapters.sandbox.accounts import make_accounts
from trading.adapters.sandbox.client import ccxt_urls
from trading.adapters.sandbox.config import ReplayConfig, SandboxConfig, SimulatedConfig, load_config, save_config
from trading.adapters.sandbox.orders import RefusalError
from trading.adapters.sandbox.venue import open_venue

SMALL = SimulatedConfig(pairs=("BTC/USDT",), history_days=2, trading_days=1)


def _cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_starts_finds_and_stops_it(tmp_path: Path) -> None:
    here = ("--workspace", str(tmp_path), "exchange")
    up = _cli(*here, "up", "--detach", "--account", "me", "--seed", "3", "--json")
    try:
        assert up.returncode == 0, up.stderr
        told = json.loads(up.stdout)
        assert httpx.get(f"{told['url']}/sandbox/health").json()["seed"] == 3
        found = _cli(*here, "status", "--json")
        assert json.loads(found.stdout)["health"]["pid"] == told["pid"]
        assert list(told["key_files"]) == ["me"]
    finally:
        books_kit.workspace_balances(tmp_path)
        down = _cli(*here, "down", "--json")
    assert json.loads(down.stdout) == {"stopped": True}
    assert not list((tmp_path / "var" / "targets").glob("*.json")), "a target is left behind"


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "wrong"), ('{"mode": "warp"}', "mode"), ('{"market": {"kind": "replay"}}', "folder"), ('{"x": 1}', "x")],
)
def test_a_wrong_configuration_names_what_is_wrong(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "exchange.json"
    path.write_text(content)
    with pytest.raises(SettingsError, match=words):
        load_config(path)


def test_a_failed_start_is_one_sentence_and_code_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trading.adapters.sandbox", "--config", str(tmp_path / "none.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cannot read" in done.stderr


def test_it_never_listens_beyond_this_machine() -> None:
    with pytest.raises(StartError, match="loopback"):
        serve(SandboxConfig(host="0.0.0.0", market=SMALL))


@pytest.mark.parametrize("names", [["a/b"], [".."], [""], ["a", "a"], ["a" * 65]])
def test_a_name_that_cannot_be_an_account_is_told(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(SettingsError, match="cannot name an account"):
        make_accounts(tmp_path, names, {"USDT": 5})
    assert list(tmp_path.iterdir()) == []


def test_keys_are_kept_and_must_stay_closed(tmp_path: Path) -> None:
    (first,) = make_accounts(tmp_path, ["a"], {"USDT": 5})
    key = read_key(first.key_file)
    assert make_accounts(tmp_path, ["a"], {"USDT": 5}) == (first,)
    assert read_key(first.key_file) == key
    first.key_file.chmod(0o640)
    with pytest.raises(SecretError, match="others can read"):
        make_accounts(tmp_path, ["a"], {"USDT": 5})
    first.key_file.chmod(0o600)
    first.key_file.write_text('{"key": 1}')
    with pytest.raises(SecretError, match="not an exchange key file"):
        read_key(first.key_file)


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    accounts = make_accounts(tmp_path, ["a", "b"], {"USDT": "10", "BTC": 0.5})
    config = SandboxConfig(port=1234, market=ReplayConfig(folder=tmp_path), accounts=accounts, mode="wall")
    save_config(config, tmp_path / "c.json")
    assert load_config(tmp_path / "c.json") == config
    with pytest.raises(SettingsError, match="cannot read"):
        load_config(tmp_path / "none.json")
    bad = SandboxConfig(market=SMALL, accounts=(accounts[0].model_copy(update={"balances": {"USDT": "lots"}}),))
    with pytest.raises(SettingsError, match="a balance is wrong"):
        open_venue(bad)


def test_request_weight_can_be_limited_per_virtual_minute() -> None:
    venue = open_venue(SandboxConfig(market=SMALL, weight_limit=50))
    assert venue.traffic.weigh(50, venue.now_ms) == 50
    with pytest.raises(RefusalError, match="Too much request weight") as caught:
        venue.traffic.weigh(1, venue.now_ms)
    assert caught.value.status == 429
    venue.clock.advance(venue.now_ms + 60_000)
    assert venue.traffic.weigh(20, venue.now_ms) == 20


def test_settings_choose_the_market(tmp_path: Path) -> None:
    simulated = market_config(Settings().changed(market={"edge": 2.0, "timeframe": "1h"}))
    assert isinstance(simulated, SimulatedConfig)
    assert (simulated.edge, simulated.timeframe) == (0.1, "1h")
    replayed = market_config(Settings().changed(market={"replay": tmp_path}))
    assert isinstance(replayed, ReplayConfig)
    assert replayed.folder == tmp_path.resolve()


def test_on_the_wall_clock_a_plain_client_needs_no_time_machine(tmp_path: Path) -> None:
    settings = Settings().changed(
        workspace={"root": tmp_path}, market={"pairs": ("BTC/USDT",), "history_days": 3.0, "trading_days": 1.0}
    )
    exchange = start_exchange(settings, NullProgress(), mode="wall", port=free_port())
    try:
        key = read_key(exchange.key_files["trader"])
        keys = {"apiKey": key.key, "secret": key.secret}
        api = ccxt.binance({**keys, "enableRateLimit": False, "urls": {"api": ccxt_urls(exchange.url)}})
        assert api.fetch_balance()["USDT"]["free"] == 10_000
        before = api.fetch_time()
        assert abs(before - time.time() * 1000) < 60_000
        time.sleep(0.5)
        assert 300 < api.fetch_time() - before < 60_000
        asked = time.time() * 1000
        newest = api.fetch_ohlcv("BTC/USDT", "15m", limit=1)[0]
        assert newest[0] <= time.time() * 1000
        assert newest[0] + 900_000 > asked
    finally:
        exchange.stop()


@pytest.mark.realdata
def test_real_candles_reach_a_client_unchanged_and_end_at_t0(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "market" / "binance"
    exchange = start_exchange(
        Settings().changed(workspace={"root": tmp_path}, market={"replay": folder}), NullProgress()
    )
    try:
        api = ccxt.binance({"enableRateLimit": False, "urls": {"api": ccxt_urls(exchange.url)}})
        rows = api.fetch_ohlcv("BTC/USDT", "15m", since=exchange.first_ms, limit=2)
        assert rows[0] == [1704067200000, 42283.58, 42488.09, 42261.02, 42488.0, 431.71082]
        last = api.fetch_ohlcv("BTC/USDT", "15m", limit=1)[0]
        assert last[0] == exchange.open_ms
        assert exchange.end_ms - exchange.open_ms == 3 * 86_400_000
        assert api.fetch_ohlcv("BTC/USDT", "15m", since=exchange.open_ms + 1) == []
        assert [name for name in api.symbols if ":" in name] == [], "no funding in the folder, so no perpetuals"
    finally:
        exchange.stop()
