"""`train promote` walked by the command line: a first champion, a better one, a worse one, and the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cluster.commands import train as command
from cluster.settings import Settings
from mtst.adapters.registry import Registry
from mtst.artifact import load_artifact
from mtst.promotion import PromotionPolicy
from observability.errors import RegistryError
from tests.unit.mtst.test_mtst_promotion import LOSSES, excellent, series
from tests.unit.mtst_serving.serving_kit import STEP_MS, small_artifact

CARD: dict[str, Any] = {
    "created": "2024-09-01T00:00:00+00:00",
    "code": {"hash": "abcd1234", "commit": ""},
    "fit": {"windows": 100, "start_ms": 0, "end_ms": 2000 * STEP_MS, "history": []},
    "recipe": {"model": {}, "training": {}},
    "data": {"sandbox/ohlcv/BTC_USDT/15m": {"sha256": "00ff" * 16, "rows": 2000, "start_ms": 0, "end_ms": STEP_MS}},
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings().changed(workspace={"root": tmp_path})
    made.workspace.make()
    return made


def judged(settings: Settings, name: str, better: float) -> None:
    """What `train evaluate` leaves behind: an artifact, its evaluation, and the note that it is the candidate."""
    folder = settings.workspace.models / name
    artifact = small_artifact(folder / "artifact", **CARD, nickname=name)
    noise = 0.0005 * np.random.default_rng(len(name)).standard_normal(len(LOSSES))
    evaluation = excellent(
        losses=tuple((LOSSES - better + noise).tolist()), rivals={"ewma": series(0.006), "lightgbm": series(0.003, 2)}
    )
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps(evaluation.to_dict()))
    candidate = {"folder": str(folder), "version": artifact.version, "run_id": ""}
    (settings.workspace.models / "candidate.json").write_text(json.dumps(candidate))


def walk(settings: Settings, *words: str) -> Any:
    result = CliRunner().invoke(command.app, ["promote", "--json", *words], obj=settings)
    assert result.exception is None, result.exception
    return json.loads(result.stdout[result.stdout.index("{") :])


def test_promotion_against_a_champion_and_the_way_back(settings: Settings) -> None:
    registry = Registry(settings.workspace.mlflow_uri)
    judged(settings, "first", 0.0)
    first = walk(settings)
    assert [first[key] for key in ("status", "number", "champion")] == ["champion", "1", "1"]
    judged(settings, "better", 0.01)
    second = walk(settings)
    assert [second[key] for key in ("status", "number", "champion")] == ["champion", "2", "2"]
    against = [reason["text"] for reason in second["reasons"] if reason["code"] == "BEATS_CHAMPION"]
    assert "beats the present champion" in against[0]
    page = Path(second["card"]).read_text()
    assert "It may trade" in page
    assert "<script" not in page
    assert "<link" not in page
    assert 'src="' not in page  # it loads nothing
    judged(settings, "worse", 0.005)
    third = walk(settings)
    assert [third[key] for key in ("status", "number", "champion")] == ["shadow", "3", "2"]
    assert "does not beat the present champion" in third["text"]
    assert "It may not trade" in Path(third["card"]).read_text()

    back = walk(settings, "--roll-back")
    assert [back[key] for key in ("status", "number", "champion")] == ["champion", "1", "1"]
    champion = registry.resolve("mtst", "champion")
    assert load_artifact(champion.artifact.path, champion.artifact.version).card["nickname"] == "first"
    assert registry.get("mtst", "2").status == "shadow"
    assert registry.resolve("mtst", "challenger").number == "3"
    again = CliRunner().invoke(command.app, ["promote", "--roll-back"], obj=settings)
    assert isinstance(again.exception, RegistryError)
    assert "replaced no other champion" in str(again.exception)


def test_one_setting_asks_that_every_baseline_is_beaten_and_the_card_says_so(settings: Settings) -> None:
    assert settings.promotion.rival_share == PromotionPolicy().rival_share
    judged(settings, "behind", -0.0035)  # between boosted trees and halfway from them to recent volatility
    usual = walk(settings)
    assert usual["status"] == "champion"
    assert "more than 50% be kept" in Path(usual["card"]).read_text()
    strict = walk(settings.changed(promotion={"rival_share": 1.0}))
    assert strict["status"] == "shadow"
    assert next(each["code"] for each in strict["reasons"] if not each["passed"]) == "HOLDS_AGAINST_RIVAL"
    assert "every baseline, the learning ones too, must be beaten" in Path(strict["card"]).read_text()


def test_the_card_is_kept_with_the_version(settings: Settings, tmp_path: Path) -> None:
    judged(settings, "first", 0.0)
    walk(settings)
    registry = Registry(settings.workspace.mlflow_uri)
    made = registry.resolve("mtst", "champion")
    kept = Path(registry.tracker.client.download_artifacts(made.run_id, "card/model_card.html", str(tmp_path)))
    assert "abcd1234" in kept.read_text()
