"""Train an MTST on a panel: pinball loss in units of recent volatility, and trust in what validation bears out.

Same seed, data, settings and thread count: same weights, whether or not the run was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mtst.blocks import block_metrics
from mtst.checkpoint import TrainingState
from mtst.inference import Windows, chunks, predict
from mtst.linear import fit_ridge
from mtst.loop import Loop, OnEpoch, TrainingConfig, device_of, precision
from mtst.model import MTST, MTSTConfig
from mtst.panel import Array, Panel, Scaler, Split
from mtst.share import Share
from mtst.threads import threads
from observability.errors import TrainingError

__all__ = ["OnEpoch", "PanelTask", "TrainResult", "TrainingConfig", "pinball", "predict", "train"]

Z_CLIP = 6.0  # a mean is fitted on clipped targets: one crash must not decide it
PERTURBED = ("lr", "weight_decay", "dropout", "head_dropout")
TRUST_GRID = tuple(i / 20 for i in range(21))


@dataclass(frozen=True)
class TrainResult:
    """The best epoch's model in eval mode, its scaler, one dictionary of numbers an epoch, and the time it took."""

    model: MTST
    scaler: Scaler
    history: tuple[dict[str, float], ...]
    seconds: float
    best_epoch: int
    best_loss: float


def train(  # noqa: PLR0917 - all six are named in the contract between rooms
    model_config: MTSTConfig,
    training_config: TrainingConfig,
    panel: Panel,
    split: Split,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
    *,
    share: Share | None = None,
) -> TrainResult:
    """Train on `split.train`, stop early on `split.valid`; `split.test` is not looked at.

    Args:
        on_epoch: called after each epoch (numbered from 1) with train_loss, valid_loss, base_loss (the untrained
            "EWMA + residual quantiles" forecast on the same windows), skill = 1 - valid_loss / base_loss, lr and
            windows_per_second; return False to stop.
        checkpoint: written after each epoch; if it exists, training goes on from it, to the same result.
        share: this process's part, where several train one model; all of them give the same result.

    Raises:
        TrainingError: nothing to train on, shapes that do not fit, a loss or gradient that is not finite.
    """
    _check(model_config, panel, split)
    started = time.perf_counter()
    with threads(training_config.n_threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(training_config.seed)
        task = PanelTask(model_config, training_config, panel, split)
        state = Loop(task, training_config, share).run(on_epoch, checkpoint)
        best_loss = task.set_trust(state)
    seconds = time.perf_counter() - started
    model = task.model.cpu().eval()
    return TrainResult(model, task.scaler, tuple(state.history), seconds, state.best_epoch, best_loss)


def pinball(levels: Tensor, forecast: Tensor, target: Tensor) -> Tensor:
    """Quantile loss of forecast [B, H, Q] on target [B, H]: max(q * e, (q - 1) * e) with e = target - forecast."""
    error = target[:, :, None] - forecast
    return torch.maximum(levels * error, (levels - 1.0) * error)


class PanelTask:
    """Learning a panel's labels, in units of recent volatility."""

    def __init__(self, model_config: MTSTConfig, config: TrainingConfig, panel: Panel, split: Split) -> None:
        self.config = config
        device = device_of(config)
        self.rows, self.valid = split.train, _spread(split.valid, config.max_valid)
        self.scaler = Scaler.fit(panel.features[split.train], panel.columns)
        self.windows = Windows(panel, self.scaler, model_config, device)
        self.target = torch.from_numpy(panel.z_labels()).to(device)
        self.levels = torch.tensor(model_config.levels, device=device)
        self.model = MTST(model_config).to(device)
        base = residual_quantiles(panel.z_labels()[split.train], model_config)
        self.model.set_base(torch.from_numpy(base).to(device))
        # With peers all windows of a moment are learned together, and a moment counts as one.
        edges = np.cumsum(np.unique(panel.timestamps[self.rows], return_counts=True)[1])[:-1]
        by_time = self.rows[np.argsort(panel.timestamps[self.rows], kind="stable")]
        self._moments = np.split(by_time, edges) if model_config.peers else []
        self.n_windows = len(self._moments) or len(self.rows)
        self.valid_times = panel.timestamps[self.valid]
        self.details: dict[str, float] = {}
        self.base_loss = float(self._loss(self.model.base.expand(len(self.valid), -1, -1), self.valid))
        if model_config.drift:
            self._set_drift(panel.z_labels(), split)
        self.fingerprint = _fingerprint(model_config, config, self.scaler, split)

    def _set_drift(self, z: Array, split: Split) -> None:
        """Fit the linear start on all training windows; the residuals' quantiles are what is left to begin from."""
        with torch.inference_mode():
            x, held = (
                torch.cat([self.model.summary(self.windows.inputs(p)) for p in chunks(rows)]).cpu().double().numpy()
                for rows in (split.train, self.valid)
            )
        y = np.clip(z[split.train].astype(np.float64), -Z_CLIP, Z_CLIP)
        linear = fit_ridge((x, y), (held, z[self.valid].astype(np.float64)))
        bias = linear.intercept - y.mean(0)  # the base forecast holds the mean already
        self.model.set_drift(torch.from_numpy(linear.weights.T.copy()), torch.from_numpy(bias))
        residual = z[split.train] - (x @ linear.weights + bias)
        self.model.set_base(torch.from_numpy(residual_quantiles(residual, self.model.config)))

    def loss(self, network: nn.Module, chosen: Array) -> Tensor:
        """Pinball loss (squares for a point head) of these training windows."""
        rows = np.concatenate([self._moments[i] for i in chosen]) if self._moments else self.rows[chosen]
        return self._loss(self.windows.forecast(network, rows), rows)

    def validate(self, network: nn.Module) -> float:
        """Mean loss over the validation windows; by block of time in `details`, see `blocks`."""
        with torch.inference_mode():
            parts = [
                self._score(self.windows.forecast(network, p), self._target(p)).mean((1, 2)) for p in chunks(self.valid)
            ]
        losses = torch.cat(parts).float().cpu().numpy()
        self.details = block_metrics(losses, self.valid_times)
        return float(losses.mean(dtype=np.float64))

    def set_trust(self, state: TrainingState) -> float:
        """Load the best weights and keep, by horizon, the share of their correction that validation bears out.

        Returns are mostly noise: a correction that helped in training is often too bold later. A share of 0 leaves the
        EWMA forecast as it is. Returns the loss of the best shares.
        """
        self.model.load_state_dict(state.best)
        self.model.eval()
        base, target = self.model.base, self._target(self.valid)
        with torch.inference_mode(), precision(self.config, self.model):
            forecast = torch.cat([self.windows.forecast(self.model, p) for p in chunks(self.valid)])
            losses = torch.stack(
                [self._score(base + share * (forecast - base), target).mean((0, 2)) for share in TRUST_GRID]
            )
            best = losses.argmin(0)
            self.model.trust.copy_(torch.tensor(TRUST_GRID, device=best.device)[best])
        return float(losses.gather(0, best[None]).mean())

    def _loss(self, forecast: Tensor, rows: Array) -> Tensor:
        return self._score(forecast, self._target(rows)).mean()

    def _target(self, rows: Array) -> Tensor:
        return self.target[torch.from_numpy(rows).to(self.target.device)]

    def _score(self, forecast: Tensor, target: Tensor) -> Tensor:
        """Loss by window, horizon and output, [B, H, Q]."""
        if self.model.config.head == "point":
            return (forecast - target[:, :, None]).square()
        return pinball(self.levels, forecast, target)


def residual_quantiles(z: Array, config: MTSTConfig) -> Array:
    """Empirical quantiles [H, Q] of z on training rows, made strictly ascending; the mean for a point head."""
    if config.head == "point":
        mean: Array = z.mean(0, keepdims=True).T.astype(np.float32)
        return mean
    base = np.quantile(z.astype(np.float64), config.levels, axis=0).T
    steps = np.maximum(np.diff(base, axis=1), 1e-4)  # a gap of 0 could never be widened by a factor
    middle = len(config.levels) // 2
    cumulated = np.concatenate([np.zeros((len(base), 1)), steps.cumsum(1)], 1)
    ordered: Array = (base[:, middle : middle + 1] + cumulated - cumulated[:, middle : middle + 1]).astype(np.float32)
    return ordered


def _check(model_config: MTSTConfig, panel: Panel, split: Split) -> None:
    problem = ""
    if len(panel.columns) != model_config.n_channels:
        problem = f"the panel has {len(panel.columns)} features, the model {model_config.n_channels} channels"
    elif panel.horizons != model_config.horizons:
        problem = f"the panel has horizons {panel.horizons}, the model {model_config.horizons}"
    elif model_config.forecast != "target":
        problem = "a panel has one target, the model forecasts every channel"
    elif len(split.train) < 2 or not len(split.valid):
        problem = f"{len(split.train)} training and {len(split.valid)} validation windows are too few"
    elif not np.isfinite(panel.z_labels()[np.concatenate([split.train, split.valid])]).all():
        problem = "a label or scale of a training or validation window is missing or not finite"
    if problem:
        raise TrainingError(f"cannot train: {problem}", where="train", todo="make panel, split and model agree")


def _fingerprint(model_config: MTSTConfig, config: TrainingConfig, scaler: Scaler, split: Split) -> str:
    free = {"device", *(PERTURBED if config.perturbed else ())}  # what a checkpoint may differ in
    settings = [{k: v for k, v in each.to_dict().items() if k not in free} for each in (model_config, config)]
    return fingerprint((*settings, scaler.to_dict()), (split.train, split.valid))


def fingerprint(settings: Iterable[object], arrays: Iterable[Array]) -> str:
    """SHA-256 of JSON-able settings and arrays."""
    digest = hashlib.sha256(json.dumps(list(settings), sort_keys=True).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _spread(rows: Array, most: int) -> Array:
    return rows if not most or len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
