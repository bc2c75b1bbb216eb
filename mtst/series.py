"""Plain multivariate series, as the benchmarks of the field have them: every channel forecast from its own past.

The market's own path is `training.py`; this one exists to measure the network beside published work, by the same loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss, smooth_l1_loss

from mtst.loop import Loop, OnEpoch, TrainingConfig, device_of, precision
from mtst.model import MTST, MTSTConfig
from mtst.panel import Array
from mtst.threads import threads
from mtst.training import fingerprint
from observability.errors import TrainingError

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mae": l1_loss, "mse": mse_loss, "smooth": smooth_l1_loss}


@dataclass(frozen=True)
class Series:
    """Standardised values [N, C] and the borders of its parts.

    A window belongs to a part when its whole future lies inside; its past may reach back into the part before.
    """

    values: Array
    train_end: int
    valid_end: int
    test_end: int

    def starts(self, part: str, lookback: int, horizon: int) -> Array:
        """First rows of all windows of "train", "valid" or "test"."""
        begin, end = {
            "train": (0, self.train_end),
            "valid": (self.train_end - lookback, self.valid_end),
            "test": (self.valid_end - lookback, self.test_end),
        }[part]
        first = np.arange(max(begin, 0), end - lookback - horizon + 1)
        if not len(first):
            raise TrainingError(f"the {part} part is too short", where=f"look-back {lookback}, horizon {horizon}")
        return first


@dataclass(frozen=True)
class SeriesResult:
    """The best epoch's model in eval mode."""

    model: MTST
    history: tuple[dict[str, float], ...]
    seconds: float
    best_epoch: int


def train_series(  # noqa: PLR0917 - as `train`
    model_config: MTSTConfig,
    config: TrainingConfig,
    series: Series,
    loss: str = "mae",
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
) -> SeriesResult:
    """Train on the series' first part, stop early on its second. `model_config` forecasts channels, with a point head.

    Raises:
        TrainingError: a part is too short, or training diverged.
    """
    started = time.perf_counter()
    with threads(config.n_threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        task = SeriesTask(model_config, config, series, loss)
        state = Loop(task, config).run(on_epoch, checkpoint)
        task.model.load_state_dict(state.best)
    model = task.model.cpu().eval()
    return SeriesResult(model, tuple(state.history), time.perf_counter() - started, state.best_epoch)


class SeriesTask:
    """Learning the next H rows of all channels."""

    def __init__(
        self, model_config: MTSTConfig, config: TrainingConfig, series: Series, loss: str, *, judge_start: bool = True
    ) -> None:
        device = device_of(config)
        self.config, self._measure = config, LOSSES[loss]
        self.model = MTST(model_config).to(device)
        self._windows = SeriesWindows(series, model_config.lookback, len(model_config.horizons), device)
        self._train, self._valid = self._windows.starts("train"), self._windows.starts("valid")
        self.n_windows = len(self._train)
        self.details: dict[str, float] = {}
        self.fingerprint = fingerprint((model_config.to_dict(), config.to_dict(), loss), (series.values,))
        self.base_loss = math.nan
        if judge_start:  # the untrained network forecasts about the window's mean
            self.base_loss = self._mean(lambda x, _: x.mean(1, keepdim=True).expand(-1, len(model_config.horizons), -1))

    def loss(self, network: nn.Module, chosen: Array) -> Tensor:
        """Mean loss of these training windows."""
        x, y = self._windows.pairs(self._train[chosen])
        return self._measure(forecast_channels(network, x), y)

    def validate(self, network: nn.Module) -> float:
        """Mean loss over all validation windows."""
        return self._mean(lambda x, _: forecast_channels(network, x))

    def _mean(self, forecast: Callable[[Tensor, Tensor], Tensor]) -> float:
        total = 0.0
        with torch.inference_mode():
            for i in range(0, len(self._valid), 256):
                x, y = self._windows.pairs(self._valid[i : i + 256])
                total += self._measure(forecast(x, y), y).item() * len(x)
        return total / len(self._valid)


class SeriesWindows:
    """Pasts and futures as views over one tensor."""

    def __init__(self, series: Series, lookback: int, horizon: int, device: torch.device | str = "cpu") -> None:
        self._series, self._lookback, self._horizon = series, lookback, horizon
        values = torch.from_numpy(np.ascontiguousarray(series.values.T, dtype=np.float32)).to(device)  # [C, N]
        self._past = values.unfold(1, lookback, 1).transpose(0, 1)  # [N - L + 1, C, L]
        self._future = values.unfold(1, horizon, 1).transpose(0, 1)

    def starts(self, part: str) -> Array:
        """First rows of all windows of a part."""
        return self._series.starts(part, self._lookback, self._horizon)

    def pairs(self, starts: Array) -> tuple[Tensor, Tensor]:
        """Pasts [B, L, C] and futures [B, H, C]."""
        at = torch.from_numpy(starts).to(self._past.device)
        return self._past[at].transpose(1, 2), self._future[at + self._lookback].transpose(1, 2)


def forecast_channels(network: nn.Module, x: Tensor) -> Tensor:
    """Point forecasts [B, H, C] of windows [B, L, C]."""
    out: Tensor = network(x)
    return out[..., 0].transpose(1, 2)


def forecast_series(result: SeriesResult, series: Series, part: str, config: TrainingConfig, batch: int = 256) -> Array:
    """Forecasts [n, H, C] of all windows of a part, in order."""
    c = result.model.config
    windows = SeriesWindows(series, c.lookback, len(c.horizons))
    starts = windows.starts(part)
    with threads(config.n_threads), torch.inference_mode(), precision(config, result.model):
        parts = [
            forecast_channels(result.model, windows.pairs(starts[i : i + batch])[0]).float().numpy()
            for i in range(0, len(starts), batch)
        ]
    return np.concatenate(parts)
