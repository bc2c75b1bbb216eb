"""What Freqtrade would see is printed masked, and nothing from the environment can change it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli import mount
from cluster.settings import Settings
from cluster.stages.arbitrage import coordinators
from cluster.stages.backtest import BacktestOptions, backtest, series_file
from cluster.stages.bots import Forecasts, bot_specs, check_bots, risk_limits
from cluster.stages.trade import effective_configs
from observability.errors import SecretError, SettingsError, StartError
from observability.progress import NullProgress
from trading.arbitrage.carry import CarryPolicy


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    key = tmp_path / "key.json"
    key.write_text(json.dumps({"key": "K" * 40, "secret": "S" * 40}))
    key.chmod(0o600)
    trade = {"strategies": ("nn_predictor",), "key_file": key, "mode": "live"}
    return Settings().changed(workspace={"root": tmp_path}, market={"exchange": "binance"}, trade=trade)


def test_a_live_configuration_shows_no_secret(settings: Settings) -> None:
    text = json.dumps(effective_configs(settings))
    assert '"dry_run": false' in text
    assert "K" * 40 not in text
    assert "S" * 40 not in text
    assert json.loads(text)["nn_predictor"]["exchange"]["secret"] == "***"


def test_a_dry_run_carries_no_key_at_all(settings: Settings) -> None:
    found = effective_configs(settings.changed(trade={"mode": "dry-run"}))["nn_predictor"]
    assert found["dry_run"] is True
    assert found["exchange"]["key"] == ""


def test_a_variable_that_would_go_live_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREQTRADE__DRY_RUN", "false")
    with pytest.raises(SettingsError, match="FREQTRADE__DRY_RUN"):
        effective_configs(settings.changed(trade={"mode": "dry-run"}))


def test_a_key_open_to_others_is_refused(settings: Settings) -> None:
    assert settings.trade.key_file is not None
    settings.trade.key_file.chmod(0o644)
    with pytest.raises(SecretError, match="others can read"):
        effective_configs(settings)


def _key(folder: Path, letter: str) -> Path:
    path = folder / f"{letter}.json"
    path.write_text(json.dumps({"key": letter * 40, "secret": "S" * 40}))
    path.chmod(0o600)
    return path


def test_live_each_of_several_bots_has_the_key_of_its_own_account(settings: Settings, tmp_path: Path) -> None:
    keys = {"carry-long": _key(tmp_path, "A"), "carry-short": _key(tmp_path, "B"), "swing": _key(tmp_path, "C")}
    several = settings.changed(trade={"strategies": ("carry", "swing"), "key_files": keys})
    specs = {spec.name: spec for spec in bot_specs(several, Forecasts())}
    assert {name: spec.key_file for name, spec in specs.items()} == {name: str(path) for name, path in keys.items()}
    assert len({spec.account for spec in specs.values()}) == 3
    assert {spec.mode for spec in specs.values()} == {"live"}
    assert (specs["carry-short"].futures, specs["carry-long"].futures) == (True, False)
    assert {spec.key_file for spec in bot_specs(several.changed(trade={"mode": "dry-run"}), Forecasts())} == {""}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"swing": "A"}, "lack a key of their own: scalp"),
        ({"swing": "A", "scalp": "A"}, "swing and scalp have the same key"),
        ({"swing": "A", "scalp": "B", "sving": "C"}, "no bot is called sving"),
    ],
)
def test_live_keys_that_do_not_fit_the_bots_are_refused(
    settings: Settings, tmp_path: Path, keys: dict[str, str], words: str
) -> None:
    files = {name: _key(tmp_path, letter) for name, letter in keys.items()}
    several = settings.changed(trade={"strategies": ("swing", "scalp"), "key_files": files})
    with pytest.raises(SettingsError, match=words):
        bot_specs(several, Forecasts())


def test_a_sandbox_that_does_not_run_is_said(settings: Settings) -> None:
    with pytest.raises(StartError, match="exchange up"):
        effective_configs(settings.changed(market={"exchange": "sandbox"}))


def test_live_trading_asks_before_anything_starts(settings: Settings) -> None:
    file = settings.workspace.root / "settings.toml"
    file.write_text(f'[trade]\nkey_file = "{settings.trade.key_file}"\nstrategies = ["swing"]\n')
    arguments = ["--workspace", str(settings.workspace.root), "--config", str(file), "trade", "up"]
    said = CliRunner().invoke(mount(), [*arguments, "--exchange", "binance", "--mode", "live"])
    assert isinstance(said.exception, Exception)
    assert "not confirmed" in str(said.exception) or "doctor" in str(said.exception)
    assert '"dry_run": false' in said.output
    assert "S" * 40 not in said.output


def test_a_statistical_pair_trades_two_perpetuals_and_may_sell(settings: Settings) -> None:
    asked = settings.changed(trade={"mode": "dry-run", "strategies": ("stat_arb", "swing")})
    pair, swing = bot_specs(asked, Forecasts())
    assert pair.pairs == ("BTC/USDT:USDT", "ETH/USDT:USDT")
    assert swing.pairs == asked.market.pairs
    config = effective_configs(asked)["stat_arb"]
    assert (config["trading_mode"], config["margin_mode"]) == ("futures", "isolated")
    limits = risk_limits(asked, (pair, swing))
    assert limits.short_venues == {"dry-run"}
    assert risk_limits(asked, (swing,)).short_venues == frozenset()


def test_options_reach_their_strategy_and_unknown_ones_are_refused(settings: Settings) -> None:
    given = {"legs": ["SOL/USDT", "XRP/USDT:USDT"], "policy": {"window": 240}}
    asked = settings.changed(trade={"mode": "dry-run", "strategies": ("stat_arb",), "options": {"stat_arb": given}})
    (spec,) = bot_specs(asked, Forecasts())
    assert spec.pairs == ("SOL/USDT:USDT", "XRP/USDT:USDT")
    assert spec.settings is not None
    assert spec.settings["policy"] == {"window": 240}
    for wrong in ({"windows": 3}, {"policy": {"windows": 3}}):
        with pytest.raises(SettingsError, match="windows"):
            bot_specs(settings.changed(trade={"strategies": ("swing",), "options": {"swing": wrong}}), Forecasts())


def test_an_arbitrage_is_two_bots_on_accounts_of_their_own_and_a_coordinator(settings: Settings) -> None:
    given = {"policy": {"hold": 30}, "silence_s": 300, "stake_fraction": 0.05}
    asked = settings.changed(trade={"mode": "dry-run", "strategies": ("carry",), "options": {"carry": given}})
    long, short = bot_specs(asked, Forecasts())
    assert (long.name, long.pairs, short.name, short.pairs) == (
        "carry-long", ("BTC/USDT",), "carry-short", ("BTC/USDT:USDT",),
    )  # fmt: skip
    assert long.account != short.account
    assert long.settings is not None
    assert (long.settings["leg"], long.settings["silence_ms"], long.settings["stake_fraction"]) == ("a", 300_000, 0.05)
    configs = effective_configs(asked)
    assert {name: config["trading_mode"] for name, config in configs.items()} == {
        "carry-long": "spot", "carry-short": "futures",
    }  # fmt: skip
    assert {config["strategy"] for config in configs.values()} == {"ArbitrageLeg"}
    (coordinator,) = coordinators(asked)
    assert (coordinator.plan.policy, coordinator.plan.silence_ms) == (CarryPolicy(hold=30), 300_000)
    limits = risk_limits(asked, (long, short))
    assert limits.rule_bots == {"carry-long", "carry-short"}
    assert limits.short_venues == {"dry-run"}


def test_two_legs_with_real_money_would_need_two_accounts_and_are_refused(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="one account serves exactly one bot"):
        bot_specs(settings.changed(trade={"strategies": ("gap",)}), Forecasts())


def test_two_legs_on_one_book_are_refused(settings: Settings) -> None:
    given = {"strategies": ("gap",), "mode": "dry-run", "options": {"gap": {"long": "ETH/USDT:USDT"}}}
    with pytest.raises(SettingsError, match="one book"):
        bot_specs(settings.changed(trade=given), Forecasts())


def test_what_is_wrong_is_told_before_anything_starts(settings: Settings) -> None:
    rules = settings.changed(trade={"strategies": ("swing", "nope")})
    with pytest.raises(SettingsError, match=r"no strategy is called 'nope' .*use one of nn_predictor, swing"):
        check_bots(rules, Forecasts())
    with pytest.raises(SettingsError, match="'nope'"):
        backtest(settings, BacktestOptions("nope"), NullProgress())
    with pytest.raises(SettingsError, match="no model is served"):
        check_bots(settings, Forecasts())
    swing = settings.changed(trade={"strategies": ("swing",)})
    check_bots(swing, Forecasts())
    settings.workspace.risk_file.write_text("max_drawdwn = 0.1")
    with pytest.raises(SettingsError, match=r"max_drawdwn \[.*risk\.toml\]"):
        check_bots(swing, Forecasts())


def test_an_arbitrage_cannot_be_tried_on_the_past(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="two books"):
        backtest(settings, BacktestOptions("gap"), NullProgress())


def test_a_backtest_of_a_perpetual_reads_its_own_candles_where_there_are_some(tmp_path: Path) -> None:
    assert series_file(tmp_path, "BTC/USDT:USDT", "15m").name == "BTC_USDT-15m.parquet"
    (tmp_path / "BTC_USDT-perpetual-15m.parquet").touch()
    assert series_file(tmp_path, "BTC/USDT:USDT", "15m").name == "BTC_USDT-perpetual-15m.parquet"
    assert series_file(tmp_path, "BTC/USDT", "15m").name == "BTC_USDT-15m.parquet"
    assert series_file(tmp_path, "BTC/USDT:USDT", "funding").name == "BTC_USDT-funding.parquet"
