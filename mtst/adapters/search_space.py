"""What a sweep may vary, as flat choices that Optuna understands, and how a choice becomes configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtst.model import MTSTConfig
    from mtst.training import TrainingConfig
    from pipelines.spec import DatasetSpec

PATCHES = ("8+32", "4+16", "16+48", "8+24+64")
SMALL_PATCHES = ("4+8", "4", "8")
AVERAGED = 0.98  # share of the averaged weights that a step keeps: few windows an epoch make single steps noisy
PERTURBED = ("lr", "weight_decay", "dropout")  # what may change while a network is trained
DEFAULT_CHOICE: dict[str, Any] = {
    "patches": "8+32",
    "d_model": 16,
    "n_layers": 1,
    "dropout": 0.3,
    "lr": 1e-3,
    "weight_decay": 0.01,
}


def search_space(lookback: int, *, small: bool = False) -> dict[str, Any]:
    """Ray Tune's space; patches longer than the look-back are left out. `small` is for tests and slow machines."""
    from ray import tune

    patches = [text for text in (SMALL_PATCHES if small else PATCHES) if max(patch_sizes(text)) <= lookback]
    return {
        "patches": tune.choice(patches),
        "d_model": tune.choice([8, 16] if small else [16, 32, 64]),
        "n_layers": tune.choice([1] if small else [1, 2]),
        "dropout": tune.uniform(0.1, 0.4),
        "lr": tune.loguniform(3e-4, 3e-3),
        "weight_decay": tune.loguniform(1e-3, 1e-1),
    }


def default_choice(lookback: int, *, small: bool = False) -> dict[str, Any]:
    """The configuration to try first, inside `search_space`."""
    space = SMALL_PATCHES if small else PATCHES
    patches = next((text for text in space if max(patch_sizes(text)) <= lookback), space[-1])
    return {**DEFAULT_CHOICE, "patches": patches, "d_model": 8 if small else DEFAULT_CHOICE["d_model"]}


def configs_of(
    choice: Mapping[str, Any], spec: DatasetSpec, sweep: Mapping[str, Any]
) -> tuple[MTSTConfig, TrainingConfig]:
    """Model and training configuration of one trial; `sweep` holds the fields of `SweepConfig`."""
    from mtst.model import MTSTConfig
    from mtst.training import TrainingConfig

    d_model = int(choice["d_model"])
    model = MTSTConfig(
        lookback=spec.lookback,
        n_channels=len(spec.columns),
        horizons=spec.horizons,
        patches=patch_sizes(choice["patches"]),
        n_layers=int(choice["n_layers"]),
        d_model=d_model,
        d_ff=2 * d_model,
        dropout=float(choice["dropout"]),
        drift=True,
    )
    training = TrainingConfig(
        lr=float(choice["lr"]),
        weight_decay=float(choice["weight_decay"]),
        epochs=int(sweep["epochs"]),
        seed=int(sweep["seed"]),
        max_windows=int(sweep["max_windows"]),
        max_valid=int(sweep["max_valid"]),
        ema=AVERAGED,
    )
    return model, training


def patch_sizes(text: str) -> tuple[int, ...]:
    """Patch lengths in candles from "8+32"."""
    return tuple(int(part) for part in text.split("+"))
