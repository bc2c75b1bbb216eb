"""The training loop: AdamW, one cycle of the learning rate, averaged weights, early stopping, exact resume.

What is learned from what is the task's business (`training.py`: a market; `series.py`: plain multivariate series).
Every epoch draws its windows, order and dropout from (seed, epoch) alone, so a checkpoint needs no random state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mtst.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from mtst.model import MTST
from mtst.panel import Array
from mtst.share import Share
from observability.errors import TrainingError
from observability.logging import get_logger

OnEpoch = Callable[[int, dict[str, float]], bool]
WARM_UP = 0.2  # share of all steps in which the learning rate rises


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How to train.

    Attributes:
        max_windows: windows drawn anew for each epoch (0: all of them); bounds an epoch's time, not the data seen.
        max_valid: validation windows, evenly spaced (0: all).
        patience: epochs without a better validation loss before stopping.
        clip: largest norm of a step's gradient.
        n_threads: torch threads; fixed because sums depend on it.
        ema: share of the averaged weights that a step keeps; validated and kept are the averaged ones (0: none).
        precision: of the matrix products; "bf16" halves their time on processors that know it.
        device: "cpu", "cuda", or "auto" (cuda where there is one).
        compile: let torch compile the network; pays after minutes only.
        perturbed: a checkpoint may come from another learning rate, weight decay or dropout, as population-based
            training changes these on the way.
    """

    lr: float = 1e-3
    batch: int = 256
    epochs: int = 4
    patience: int = 3
    seed: int = 0
    weight_decay: float = 0.01
    n_threads: int = 1
    max_windows: int = 8_192
    max_valid: int = 4_096
    clip: float = 1.0
    ema: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False
    perturbed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainingConfig:
        """Rebuild from `to_dict`; unknown names raise TrainingError."""
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            raise TrainingError(f"unknown training settings {unknown}", where="TrainingConfig")
        return cls(**data)


class Task(Protocol):
    """What is learned: a model, how many training windows there are, and what a forecast of some of them costs."""

    model: MTST
    n_windows: int
    base_loss: float  # validation loss of the forecast that an untrained model gives
    details: dict[str, float]  # what else the last validation told; kept in the history beside the loss
    fingerprint: str  # names settings and data, so that a checkpoint is not taken for another run's

    def loss(self, network: nn.Module, chosen: Array) -> Tensor:
        """Mean loss of these training windows (positions below `n_windows`) as the network forecasts them."""

    def validate(self, network: nn.Module) -> float:
        """Mean loss over the validation windows."""


class Loop:
    """One training run of a task; with a `share`, one process's part of it."""

    def __init__(self, task: Task, config: TrainingConfig, share: Share | None = None) -> None:
        self.task, self.config, self.share = task, config, share or Share()
        model = task.model
        network = self.share.around(model)
        self.network: nn.Module = torch.compile(network) if config.compile else network  # type: ignore[assignment]
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.per_epoch = min(config.max_windows or task.n_windows, task.n_windows)

    def run(self, on_epoch: OnEpoch | None = None, checkpoint: Path | None = None) -> TrainingState:
        """Train to the end, to lost patience or until `on_epoch` returns False; the best weights are in the state."""
        state = self.start(checkpoint)
        while state.epoch < self.config.epochs and state.epoch - state.best_epoch < self.config.patience:
            metrics = self.epoch(state)
            if checkpoint is not None and self.share.rank == 0:
                self._save(state, checkpoint)
            if on_epoch is not None and not on_epoch(state.epoch, metrics):
                break
        return state

    def _save(self, state: TrainingState, checkpoint: Path) -> None:
        """A checkpoint insures against a crash: where the disk is full, training goes on with the one before."""
        try:
            save_checkpoint(checkpoint, self.task.model, self.optimizer, state, self.task.fingerprint)
        except OSError as error:
            get_logger(__name__).warning("no checkpoint", epoch=state.epoch, file=str(checkpoint), error=str(error))

    def start(self, checkpoint: Path | None) -> TrainingState:
        """Where the checkpoint left off, or the beginning."""
        if checkpoint is not None and checkpoint.exists():
            return load_checkpoint(checkpoint, self.task.model, self.optimizer, self.task.fingerprint)
        average = weights_of(self.task.model) if self.config.ema else {}
        return TrainingState(0, 0, math.inf, weights_of(self.task.model), [], average)

    def epoch(self, state: TrainingState) -> dict[str, float]:
        """Train one epoch, validate, and write the outcome into `state`."""
        began = time.perf_counter()
        seed = self.config.seed * 1_000_003 + state.epoch + 1
        torch.manual_seed(seed)
        order = torch.randperm(self.task.n_windows)[: self.per_epoch].numpy()
        self.share.reseed(seed)
        batches = [order[i : i + self.config.batch] for i in range(0, len(order), self.config.batch)]
        # BatchNorm cannot learn from a single window, and no process from none.
        batches = [b for b in batches if len(b) >= max(2, self.share.world)] or batches
        self.network.train()
        losses = [self.step(state, chosen, number / len(batches)) for number, chosen in enumerate(batches)]
        spent = time.perf_counter() - began
        with averaged(self.task.model, state.average), precision(self.config, self.task.model):
            self.network.eval()
            valid_loss = self.share.agreed(self.task.validate(self.network))
            state.epoch += 1
            if valid_loss < state.best_loss:
                state.best_loss, state.best_epoch, state.best = valid_loss, state.epoch, weights_of(self.task.model)
        metrics = {
            "train_loss": float(np.mean(losses)),
            "valid_loss": valid_loss,
            "base_loss": self.task.base_loss,
            "skill": 1.0 - valid_loss / self.task.base_loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "windows_per_second": len(order) / spent,
            **self.task.details,
        }
        state.history.append({"epoch": float(state.epoch), **metrics})
        return metrics

    def step(self, state: TrainingState, chosen: Array, within: float) -> float:
        """One step on a batch at `within` of the epoch. Returns its loss.

        Raises:
            TrainingError: loss or gradient is not finite; the weights are left as they were.
        """
        lr = self.config.lr * one_cycle((state.epoch + within) / self.config.epochs)
        self.optimizer.param_groups[0]["lr"] = lr
        with precision(self.config, self.task.model):
            loss = self.task.loss(self.network, self.share.of(chosen)) * self.share.weight(chosen)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.task.model.parameters(), self.config.clip)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise TrainingError(
                f"training diverged: loss {loss.item():g}, gradient norm {norm.item():g}",
                where=f"epoch {state.epoch + 1}, learning rate {lr:g}",
                todo="lower the learning rate, or look for absurd values in features and labels",
            )
        self.optimizer.step()
        if self.config.ema:
            self._average(state)
        return loss.item()

    def _average(self, state: TrainingState) -> None:
        steps = self.optimizer.state[next(self.task.model.parameters())]["step"].item()
        keep = min(self.config.ema, steps / (steps + 10))  # the first steps' weights are soon forgotten
        with torch.no_grad():
            for name, value in self.task.model.state_dict().items():
                if value.is_floating_point():
                    state.average[name].lerp_(value, 1 - keep)
                else:
                    state.average[name].copy_(value)


def one_cycle(progress: float) -> float:
    """Factor on the learning rate at `progress` in [0, 1]: linear from 0.1 to 1, then a half cosine down to 0.01."""
    if progress < WARM_UP:
        return 0.1 + 0.9 * progress / WARM_UP
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and persistent buffers."""
    return {k: v.detach().clone() for k, v in model.state_dict().items()}


@contextmanager
def averaged(model: nn.Module, average: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with these weights inside the block, with its own again behind it; nothing happens without any."""
    if not average:
        yield
        return
    own = weights_of(model)
    model.load_state_dict(average)
    try:
        yield
    finally:
        model.load_state_dict(own)


@contextmanager
def precision(config: TrainingConfig, model: nn.Module) -> Iterator[None]:
    """Matrix products in the configured precision."""
    device = next(model.parameters()).device.type
    with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16"):
        yield


def device_of(config: TrainingConfig) -> torch.device:
    """Where to train."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)
