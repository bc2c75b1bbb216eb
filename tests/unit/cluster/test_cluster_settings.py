"""Settings: precedence, refusal in words, and secrets that others cannot read."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.settings import load_settings
from observability.errors import SettingsError


def test_environment_wins_over_file_and_file_over_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "s.toml"
    file.write_text('[market]\ntimeframe = "1h"\nseed = 9\n')
    monkeypatch.setenv("MTST__MARKET__SEED", "11")
    settings = load_settings(file)
    assert (settings.market.timeframe, settings.market.seed, settings.trade.mode) == ("1h", 11, "dry-run")


def test_changed_validates_what_the_user_typed(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.changed(market={"timeframe": "5m"}).market.timeframe == "5m"
    assert settings.market.timeframe == "15m"
    with pytest.raises(SettingsError, match="pairs look like BTC/USDT"):
        settings.changed(market={"pairs": ("BTCUSDT",)})
    with pytest.raises(SettingsError, match="trial"):
        settings.changed(sweep={"trials": 0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[market\n", "not valid TOML"),
        ('[market]\ntimefame = "1h"\n', "timefame"),
        ('[trade]\nmode = "life"\n', "mode"),
        ("[serve]\nport = 70000\n", "port"),
        ("[promotion]\nrival_share = 1.5\n", "rival_share"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_it(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings(file)
    assert "s.toml" in str(caught.value)


def test_a_missing_file_is_refused_but_the_default_one_may_be_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings().trade.mode == "dry-run"
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings(tmp_path / "none.toml")


def test_live_mode_is_never_the_default_and_never_guessed() -> None:
    assert load_settings().trade.mode == "dry-run"
    with pytest.raises(SettingsError):
        load_settings().changed(trade={"mode": "LIVE"})


def test_everything_written_lies_below_the_workspace(tmp_path: Path) -> None:
    workspace = load_settings().changed(workspace={"root": tmp_path}).workspace
    workspace.make()
    names = [name for name, kind in vars(type(workspace)).items() if isinstance(kind, property)]
    paths = [getattr(workspace, name) for name in names if name != "mlflow_uri"]
    assert len(paths) >= 9
    assert all(path.is_relative_to(tmp_path) for path in paths)
    assert (workspace.secrets.stat().st_mode & 0o077) == 0
