"""Sealed networks that learned nothing: what is measured is how they are asked, not what they know."""

from __future__ import annotations

from pathlib import Path

from mtst.config import MTSTConfig
from pipelines.spec import DatasetSpec


def untrained(folder: Path, spec: DatasetSpec, **shape: object) -> Path:
    """An artifact of a network as it is drawn, with features taken as they are; `shape` are fields of its config."""
    import torch

    from mtst.artifact import save_artifact
    from mtst.model import MTST
    from mtst.panel import Scaler

    torch.manual_seed(1)
    width = len(spec.columns)
    config = MTSTConfig(lookback=spec.lookback, n_channels=width, horizons=spec.horizons, **shape)  # type: ignore[arg-type]
    scaler = Scaler(spec.columns, (0.0,) * width, (1.0,) * width)
    save_artifact(folder, MTST(config).eval(), scaler, spec, {"name": "mtst", "absent": ["funding", "onchain"]})
    return folder
