"""A trained model as a folder that anyone can read: weights, a card in JSON, the network as ONNX, and their SHA-256.

    weights.safetensors   tensors only; nothing in it can run code
    model.onnx            the same network for other runtimes (not of one whose pairs attend to each other)
    card.json             configuration, data-set specification, scaler, folds, scores, data hashes, code version
    SHA256SUMS            as `sha256sum -c` reads it; its own hash is the artifact's version

Written whole or not at all, verified on every load, readable without MLflow.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mtst.model import MTST, MTSTConfig
from mtst.onnx_export import write_onnx
from mtst.panel import Scaler
from observability.errors import ArtifactError, MtstError
from observability.files import sync
from pipelines.spec import DatasetSpec

FORMAT = "mtst-artifact-1"
WEIGHTS, CARD, ONNX, SUMS = "weights.safetensors", "card.json", "model.onnx", "SHA256SUMS"
OWN_FIELDS = ("format", "model", "spec", "spec_hash", "scaler")
VERSION_DIGITS = 12


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk; `version` is the beginning of the hash of its SHA256SUMS, so it names the content."""

    path: Path
    version: str


@dataclass(frozen=True)
class LoadedArtifact:
    """A verified artifact: the model in eval mode, its scaler and specification, and everything else that it tells."""

    model: MTST
    scaler: Scaler
    spec: DatasetSpec
    card: dict[str, Any]
    artifact: Artifact

    @property
    def name(self) -> str:
        """The model's name, from the card."""
        return str(self.card.get("name", "mtst"))


def save_artifact(folder: Path, model: MTST, scaler: Scaler, spec: DatasetSpec, card: Mapping[str, Any]) -> Artifact:
    """Write an artifact; it appears under its name only when it is complete and on disk.

    Args:
        folder: must not exist yet, or be empty.
        card: anything JSON can hold (NaN becomes null); the fields `OWN_FIELDS` are written by this function.

    Raises:
        ArtifactError: the folder is taken, the parts do not fit each other, a weight is not finite, or the card is not
            JSON.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError("an artifact is never overwritten", where=str(folder), todo="choose another folder")
    clash = sorted(set(card) & set(OWN_FIELDS))
    if clash:
        raise ArtifactError(f"the card may not set {clash}: they are derived", where=str(folder))
    _check_parts(model.config, scaler, spec, str(folder))
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    _check_finite(weights, str(folder))
    own = {
        "format": FORMAT,
        "model": model.config.to_dict(),
        "spec": json.loads(spec.to_json()),
        "spec_hash": spec.hash,
        "scaler": scaler.to_dict(),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        save_file(weights, building / WEIGHTS, metadata={"format": "pt"})
        (building / CARD).write_text(_to_json({**_without_nan(dict(card)), **own}, str(folder)))
        names = [CARD, WEIGHTS]
        if not model.config.peers:
            write_onnx(model, building / ONNX)
            names.append(ONNX)
        sums = "".join(f"{_sha256(building / name)}  {name}\n" for name in names)
        (building / SUMS).write_text(sums)
        for name in (*names, SUMS):
            sync(building / name)
        building.chmod(0o755)
        os.replace(building, folder)
        sync(folder.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return Artifact(folder, _version(sums))


def verify_artifact(folder: Path, version: str = "") -> Artifact:
    """Check that the files are all there, whole, and (when given) of that version, without loading the model.

    Raises:
        ArtifactError: a file is missing, changed or unknown, or the version differs.
    """
    where = str(folder)
    todo = "fetch it again from the registry, or train again"
    try:
        sums = (folder / SUMS).read_text(encoding="ascii")
        lines = [line.split("  ", 1) for line in sums.splitlines()]
        listed = {name: digest for digest, name in lines}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"not a readable artifact: {error}", where=where, todo=todo) from error
    if set(listed) - {ONNX} != {WEIGHTS, CARD}:
        raise ArtifactError(f"{SUMS} lists {sorted(listed)}, expected {CARD} and {WEIGHTS}", where=where, todo=todo)
    for name, expected in listed.items():
        if not (folder / name).is_file():
            raise ArtifactError(f"{name} is missing", where=where, todo=todo)
        if _sha256(folder / name) != expected:
            raise ArtifactError(
                f"{name} does not match its SHA-256: it is damaged or was changed", where=where, todo=todo
            )
    artifact = Artifact(folder, _version(sums))
    if version and artifact.version != version:
        raise ArtifactError(f"version is {artifact.version}, expected {version}", where=where, todo=todo)
    return artifact


def load_artifact(folder: Path, version: str = "") -> LoadedArtifact:
    """Verify and load.

    Args:
        folder: what `save_artifact` wrote.
        version: the version that is expected, when the caller knows it (the registry does).

    Raises:
        ArtifactError: damaged, incomplete, of another format, or its parts do not fit each other or this code.
    """
    artifact = verify_artifact(folder, version)
    where = str(folder)
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text())
        if card.get("format") != FORMAT:
            raise ArtifactError(f"format is {card.get('format')!r}, this code reads {FORMAT!r}", where=where)
        spec = DatasetSpec.from_json(json.dumps(card["spec"]))
        config = MTSTConfig.from_dict(card["model"])
        scaler = Scaler.from_dict(card["scaler"])
        if spec.hash != card["spec_hash"]:
            raise ArtifactError(f"its specification hashes to {spec.hash}, not {card['spec_hash']}", where=where)
        weights = load_file(folder / WEIGHTS)
        model = MTST(config)
        model.load_state_dict(weights, strict=True)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(f"not a usable artifact: {error!r}"[:500], where=where, todo="train again") from error
    except ArtifactError:
        raise
    except MtstError as error:
        raise ArtifactError(f"this code cannot run it: {error.what}", where=where, todo=error.todo) from error
    _check_parts(config, scaler, spec, where)
    _check_finite(weights, where)
    return LoadedArtifact(model.eval(), scaler, spec, card, artifact)


def _check_parts(config: MTSTConfig, scaler: Scaler, spec: DatasetSpec, where: str) -> None:
    if config.head != "quantile":
        raise ArtifactError("a point forecast has no quantiles to trade on", where=where, todo="train a quantile head")
    pairs_of = {
        "feature columns": (scaler.columns, spec.columns),
        "channels": (config.n_channels, len(spec.columns)),
        "horizons": (config.horizons, spec.horizons),
        "look-back": (config.lookback, spec.lookback),
    }
    for what, (own, wanted) in pairs_of.items():
        if own != wanted:
            raise ArtifactError(f"{what} {own} do not fit the specification's {wanted}", where=where)


def _check_finite(weights: Mapping[str, torch.Tensor], where: str) -> None:
    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ArtifactError(f"weight {name} is not finite", where=where, todo="train again")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _to_json(card: Mapping[str, Any], where: str) -> str:
    try:
        return json.dumps(card, indent=1, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"the card is not JSON: {error}", where=where) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(sums: str) -> str:
    return hashlib.sha256(sums.encode()).hexdigest()[:VERSION_DIGITS]
