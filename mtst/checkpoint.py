"""A training run's whole state in one safetensors file: no pickle, written whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from observability.errors import TrainingError

FORMAT = "mtst-checkpoint-1"


@dataclass
class TrainingState:
    """What an epoch leaves behind. Random numbers need no place: every epoch seeds them from (seed, epoch)."""

    epoch: int
    best_epoch: int
    best_loss: float
    best: dict[str, Tensor]
    history: list[dict[str, float]]
    average: dict[str, Tensor] = field(default_factory=dict)  # empty when weights are not averaged


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState, fingerprint: str
) -> None:
    """Write model, optimizer and progress; `fingerprint` names the run (configs and data) that may resume from it.

    Raises:
        OSError: it cannot be written; the checkpoint before it stays.
    """
    tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in state.best.items()}
    tensors |= {f"average/{k}": v for k, v in state.average.items()}
    for number, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{slot}": value for slot, value in slots.items()}
    meta = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "progress": json.dumps([state.epoch, state.best_epoch, state.best_loss, state.history]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, temporary, metadata=meta)
        os.replace(temporary, path)
    except SafetensorError as error:  # what a full disk is told as
        raise OSError(f"{error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str) -> TrainingState:
    """Restore model and optimizer in place and return the progress.

    Raises:
        TrainingError: the file is damaged, not a checkpoint, or belongs to another run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            meta: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise TrainingError(
            f"the checkpoint cannot be read: {error}", where=str(path), todo="delete it to train from the start"
        ) from error
    if meta.get("format") != FORMAT or meta.get("fingerprint") != fingerprint:
        raise TrainingError(
            "the checkpoint belongs to another run (other settings or data)",
            where=str(path),
            todo="delete it or name another checkpoint file",
        )
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "average": {}, "optimizer": {}}
    for name, value in tensors.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = value
    slots: dict[int, dict[str, Any]] = {}
    for name, value in groups["optimizer"].items():
        number, _, slot = name.partition("/")
        slots.setdefault(int(number), {})[slot] = value
    model.load_state_dict(groups["model"])
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    epoch, best_epoch, best_loss, history = json.loads(meta["progress"])
    place = next(model.parameters()).device  # every step adds to the average; the best weights only wait
    average = {name: value.to(place) for name, value in groups["average"].items()}
    return TrainingState(epoch, best_epoch, best_loss, groups["best"], history, average)
