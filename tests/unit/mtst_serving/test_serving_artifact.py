from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mtst.artifact import CARD, ONNX, SUMS, WEIGHTS, load_artifact, save_artifact, verify_artifact
from mtst.panel import Scaler
from observability.errors import ArtifactError
from pipelines.frames import feature_frame
from tests.unit.mtst_serving.serving_kit import candles, small_artifact, small_model, small_spec


def reseal(folder: Path) -> None:
    """What a careless person does after editing a file: new sums, so that only the content can betray it."""
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in (CARD, WEIGHTS, ONNX)]
    (folder / SUMS).write_text("".join(lines))


def edit_card(folder: Path, **changes: object) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **changes}))
    reseal(folder)


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    spec = small_spec()
    model = small_model(spec)
    features = feature_frame(candles(300), spec).drop_nulls().select(spec.columns).to_numpy()
    scaler = Scaler.fit(features, spec.columns)
    saved = save_artifact(tmp_path / "a", model, scaler, spec, {"name": "mtst", "folds": [1, 2], "p": math.nan})
    loaded = load_artifact(tmp_path / "a", saved.version)
    assert loaded.artifact == saved
    assert loaded.spec == spec
    assert loaded.scaler == scaler
    assert loaded.card["folds"] == [1, 2]
    assert loaded.card["p"] is None
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name])
    assert not loaded.model.training


def test_the_folder_holds_four_readable_files_and_no_leftovers(tmp_path: Path) -> None:
    small_artifact(tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted([WEIGHTS, CARD, ONNX, SUMS])
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    for line in (tmp_path / "a" / SUMS).read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / "a" / name).read_bytes()).hexdigest() == digest


def test_an_artifact_is_never_overwritten(tmp_path: Path) -> None:
    small_artifact(tmp_path / "a")
    before = (tmp_path / "a" / SUMS).read_text()
    with pytest.raises(ArtifactError, match="never overwritten"):
        small_artifact(tmp_path / "a")
    assert (tmp_path / "a" / SUMS).read_text() == before


@pytest.mark.parametrize("name", [WEIGHTS, CARD, ONNX])
def test_a_flipped_bit_is_refused(tmp_path: Path, name: str) -> None:
    small_artifact(tmp_path / "a")
    data = bytearray((tmp_path / "a" / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a" / name).write_bytes(data)
    with pytest.raises(ArtifactError, match="SHA-256"):
        load_artifact(tmp_path / "a")


@pytest.mark.parametrize("name", [WEIGHTS, CARD, ONNX, SUMS])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    small_artifact(tmp_path / "a")
    (tmp_path / "a" / name).unlink()
    with pytest.raises(ArtifactError):
        load_artifact(tmp_path / "a")


def test_sums_that_name_other_files_are_refused(tmp_path: Path) -> None:
    small_artifact(tmp_path / "a")
    with (tmp_path / "a" / SUMS).open("a") as file:
        file.write(f"{'0' * 64}  ../../etc/passwd\n")
    with pytest.raises(ArtifactError, match="lists"):
        verify_artifact(tmp_path / "a")


def test_resealed_content_has_another_version(tmp_path: Path) -> None:
    version = small_artifact(tmp_path / "a").version
    edit_card(tmp_path / "a", name="other")
    verify_artifact(tmp_path / "a")
    with pytest.raises(ArtifactError, match="expected"):
        verify_artifact(tmp_path / "a", version)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "mtst-artifact-0"}, "format"),
        ({"spec_hash": "0" * 16}, "hashes to"),
        ({"model": {"lookback": 16}}, "usable|cannot run|do not fit"),
        ({"model": {"unknown": 1}}, "cannot run"),
        ({"scaler": {"columns": ["x"], "centre": [0.0], "width": [1.0]}}, "feature columns"),
        ({"scaler": {"columns": ["x"]}}, "cannot run"),
        ({"spec": {"format": 1}}, "cannot run"),
        ({"spec": []}, "usable|cannot run"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    small_artifact(tmp_path / "a")
    edit_card(tmp_path / "a", **changes)
    with pytest.raises(ArtifactError, match=words):
        load_artifact(tmp_path / "a")


@pytest.mark.parametrize("damage", ["nan", "shape", "missing", "extra", "garbage"])
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, damage: str) -> None:
    small_artifact(tmp_path / "a")
    file = tmp_path / "a" / WEIGHTS
    weights = load_file(file)
    name = next(key for key, value in weights.items() if value.ndim == 2)
    if damage == "nan":
        weights[name] = torch.full_like(weights[name], math.nan)
    elif damage == "shape":
        weights[name] = weights[name].flatten()
    elif damage == "missing":
        del weights[name]
    else:
        weights["more"] = torch.zeros(1)
    if damage == "garbage":
        file.write_bytes(b"\x80\x04not tensors")
    else:
        save_file(weights, file)
    reseal(tmp_path / "a")
    with pytest.raises(ArtifactError):
        load_artifact(tmp_path / "a")


def test_parts_that_do_not_fit_are_not_saved(tmp_path: Path) -> None:
    spec = small_spec()
    scaler = Scaler(("x",), (0.0,), (1.0,))
    with pytest.raises(ArtifactError, match="feature columns"):
        save_artifact(tmp_path / "a", small_model(spec), scaler, spec, {})
    assert not list(tmp_path.iterdir())


def test_a_card_may_not_set_what_is_derived(tmp_path: Path) -> None:
    spec = small_spec()
    scaler = Scaler(spec.columns, (0.0,) * 4, (1.0,) * 4)
    with pytest.raises(ArtifactError, match="derived"):
        save_artifact(tmp_path / "a", small_model(spec), scaler, spec, {"spec_hash": "x"})
    with pytest.raises(ArtifactError, match="not JSON"):
        save_artifact(tmp_path / "a", small_model(spec), scaler, spec, {"what": object()})
    assert not list(tmp_path.iterdir())
