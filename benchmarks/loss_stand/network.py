"""Sealed networks that learned nothing: what is measured is how they are asked, not what they know."""

from __future__ import annotations

from pathlib import Path

from mtst.config import MTSTConfig
from pipelines.spec import DatasetSpec


def untrained(folder: Path, spec: DatasetSpec, *, follows: str = "", **shape: object) -> Path:
    """An artifact of a network as it is drawn, with features taken as they are; `shape` are fields of its config.

    Its median keeps to one side of zero, so it always or never wishes to enter; the median of one that `follows` a
    column of [-1, 1] has the sign of that column's newest value.
    """
    import torch

    from mtst.artifact import save_artifact
    from mtst.model import MTST
    from mtst.panel import Scaler

    torch.manual_seed(1)
    width = len(spec.columns)
    config = MTSTConfig(
        lookback=spec.lookback, n_channels=width, horizons=spec.horizons, drift=bool(follows), **shape  # type: ignore[arg-type]
    )  # fmt: skip
    model = MTST(config).eval()
    if follows:
        weights = torch.zeros_like(model.drift_weight)
        weights[:, spec.columns.index(follows)] = 1.0  # the newest row comes first in the summary
        model.set_drift(weights, torch.zeros_like(model.drift_bias))
    scaler = Scaler(spec.columns, (0.0,) * width, (1.0,) * width)
    save_artifact(folder, model, scaler, spec, {"name": "mtst", "absent": ["funding", "onchain"]})
    return folder
