"""Layers, secrets and refusals of a bot's Freqtrade configuration."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import ccxt
import pytest

from observability.errors import SecretError, SettingsError
from trading.adapters.api_key import read_key
from trading.adapters.bot_spec import BotSpec
from trading.adapters.freqtrade_config import check_environment, layers, masked, merge, write_config

URL = "http://127.0.0.1:9"


@pytest.fixture
def spec(tmp_path: Path) -> BotSpec:
    key = tmp_path / "key.json"
    key.write_text(json.dumps({"key": "K" * 64, "secret": "S" * 64}))
    key.chmod(0o600)
    return BotSpec(
        name="swing", strategy="swing", account="swing", venue="sandbox", mode="live", pairs=("BTC/USDT", "ETH/USDT"),
        timeframe="15m", folder=str(tmp_path / "bot"), url=URL, key_file=str(key), virtual_clock=True,
    )  # fmt: skip


def _effective(spec: BotSpec) -> dict[str, Any]:
    from freqtrade.configuration.load_config import load_from_files

    return dict(load_from_files([str(path) for path in write_config(spec)]))


def test_our_merge_is_freqtrades(spec: BotSpec) -> None:
    theirs, parts = _effective(spec), layers(spec)
    ours = merge(parts)
    for volatile in ("api_server", "config_files"):
        theirs.pop(volatile, None)
        ours.pop(volatile, None)
    assert ours == theirs


def test_nothing_of_the_sandbox_leads_to_the_real_exchange(spec: BotSpec) -> None:
    exchange = _effective(spec)["exchange"]
    client = ccxt.binance(exchange["ccxt_config"])
    strays = [url for url in client.urls["api"].values() if not url.startswith(URL)]
    assert strays == []
    assert exchange["enable_ws"] is False


def test_what_protects_the_user_is_set(spec: BotSpec) -> None:
    config = _effective(spec)
    assert config["force_entry_enable"] is False
    assert config["cancel_open_orders_on_exit"] is True
    assert config["api_server"]["listen_ip_address"] == "127.0.0.1"
    assert len(config["api_server"]["password"]) >= 24
    assert config["api_server"]["enable_openapi"] is False
    assert config["api_server"]["CORS_origins"] == []
    assert isinstance(config["internals"]["process_throttle_secs"], int)


def test_dry_run_is_the_default_and_holds_no_key(spec: BotSpec) -> None:
    dry = replace(spec, venue="binance", mode="dry-run", key_file="", url="", virtual_clock=False)
    config = _effective(dry)
    assert config["dry_run"] is True
    assert config["exchange"]["key"] == ""
    assert "ccxt_config" not in config["exchange"]
    assert dry.risk_venue == "dry-run"


def test_live_without_a_key_is_refused(spec: BotSpec) -> None:
    with pytest.raises(SecretError, match="key file"):
        layers(replace(spec, key_file=""))


def test_dry_and_live_books_are_never_the_same_file(spec: BotSpec) -> None:
    assert spec.database != replace(spec, mode="dry-run").database


def test_only_the_last_layer_holds_secrets_and_only_its_owner_reads_it(spec: BotSpec) -> None:
    *open_files, private = write_config(spec)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    for path in open_files:
        assert "S" * 64 not in path.read_text()
        assert "password" not in path.read_text()


def test_masking_leaves_no_secret(spec: BotSpec) -> None:
    text = json.dumps(masked(merge(layers(spec))))
    for secret in ("S" * 64, "K" * 64, merge(layers(spec))["api_server"]["password"]):
        assert secret not in text
    assert '"secret": "***"' in text


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_file_open_to_others_is_refused(spec: BotSpec, mode: int) -> None:
    path = Path(spec.key_file)
    path.chmod(mode)
    with pytest.raises(SecretError, match="others can read"):
        read_key(path)


@pytest.mark.parametrize("text", ["", "{}", '{"key": "", "secret": "x"}', "[1]", '{"key": "x"}'])
def test_a_malformed_key_file_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(SecretError, match="not an exchange key file" if text else "is empty") as caught:
        read_key(path)
    assert '"x"' not in str(caught.value)


def test_variables_that_would_override_the_files_are_refused_or_cleared() -> None:
    names = {"FREQTRADE__DRY_RUN": "false", "PATH": "/bin"}
    with pytest.raises(SettingsError, match="FREQTRADE__DRY_RUN"):
        check_environment(names)
    check_environment(names, clear=True)
    assert names == {"PATH": "/bin"}
    check_environment(names)


def test_a_specification_survives_json_and_refuses_strangers(spec: BotSpec) -> None:
    assert BotSpec.from_json(spec.to_json()) == spec
    with pytest.raises(SettingsError):
        BotSpec.from_json(spec.to_json().replace('"account"', '"acount"'))
    assert "S" * 64 not in spec.to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../x"},
        {"strategy": "moon"},
        {"mode": "paper"},
        {"pairs": ()},
        {"pairs": ("BTC/USDT", "ETH/BTC")},
        {"url": ""},
    ],
)
def test_impossible_bots_are_refused(spec: BotSpec, change: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        replace(spec, **change)


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        ({}, 900),  # once a candle of 15 minutes
        ({"loop_s": 225}, 225),
        ({"loop_s": 10_000}, 900),  # never so seldom that a candle passes unseen
        ({"strategy": "gap"}, 60),  # a leg hears of its partner sooner
        ({"strategy": "gap", "loop_s": 30}, 30),
        ({"virtual_clock": False, "loop_s": 225}, 5),  # real time does not leap
    ],
)
def test_how_often_a_bot_looks_follows_its_clock(spec: BotSpec, change: dict[str, Any], seconds: int) -> None:
    spec = replace(spec, **change)
    assert merge(layers(spec))["internals"]["process_throttle_secs"] == seconds


@pytest.mark.parametrize("history", [100, 400, 700, 1500])
def test_the_history_needs_at_most_five_requests(spec: BotSpec, history: int) -> None:
    config = merge(layers(replace(spec, settings={"max_history": history})))
    limit = config["exchange"]["_ft_has_params"]["ohlcv_candle_limit"]
    assert config["startup_candle_count"] == history
    assert limit * 5 >= history + 1


def test_messages_come_from_a_closed_file_into_the_secret_layer_and_are_masked(spec: BotSpec, tmp_path: Path) -> None:
    file = tmp_path / "notify.json"
    told = {
        "telegram": {"enabled": True, "token": "12345:tg-secret", "chat_id": "7"},
        "discord": {"enabled": True, "webhook_url": "https://discord.invalid/dc-secret"},
        "webhook": {"enabled": True, "url": "https://hook.invalid/wh-secret", "format": "json"},
    }
    file.write_text(json.dumps(told))
    chatty = replace(spec, notify_file=str(file))
    with pytest.raises(SecretError):
        layers(chatty)
    file.chmod(0o600)
    parts = layers(chatty)
    merged = merge(parts)
    assert merged["telegram"]["token"] == "12345:tg-secret"
    assert merged["webhook"]["format"] == "json"
    assert "secret" not in json.dumps({name: part for name, part in parts.items() if name != "secrets"})
    assert "-secret" not in json.dumps(masked(merged))
    for bad in ('{"exchange": {"key": "x"}}', "[]", "no json", '{"telegram": 1}'):
        file.write_text(bad)
        with pytest.raises(SettingsError):
            layers(chatty)
