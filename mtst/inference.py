"""Forecasts from a trained model: windows gathered from a panel, batch by batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mtst.covariates import Moments, known_covariates
from mtst.model import MTST, MTSTConfig
from mtst.panel import Array, Panel, Scaler


def predict(model: MTST, scaler: Scaler, panel: Panel, rows: Array, batch: int = 2048) -> Array:
    """Quantiles of the forward log-return for the windows that end at `rows`. float32 [n, H, Q]; model in eval mode."""
    windows = Windows(panel, scaler, model.config, next(model.parameters()).device)
    with torch.inference_mode():
        parts = [windows.forecast(model, part, scaled=True).cpu().numpy() for part in chunks(rows, batch)]
    shape = (0, len(model.config.horizons), model.config.n_outputs)
    return np.concatenate(parts) if parts else np.empty(shape, dtype=np.float32)


class Windows:
    """Scaled features once in memory; windows are a strided view of them, and only a batch is gathered."""

    def __init__(self, panel: Panel, scaler: Scaler, config: MTSTConfig, device: torch.device | str = "cpu") -> None:
        features = torch.from_numpy(scaler.transform(panel.features)).to(device)
        self._view = features.unfold(0, config.lookback, 1)  # [N - L + 1, C, L]
        self._first = config.lookback - 1
        self._scale = torch.from_numpy(panel.scale).to(device)
        self._panel, self._config = panel, config
        self._moments = Moments(panel, config.lookback) if config.peers else None

    def forecast(self, network: nn.Module, rows: Array, *, scaled: bool = False) -> Tensor:
        """[n, H, Q], in units of recent volatility, or log-returns when `scaled`."""
        if self._moments is None:
            out: Tensor = network(self.inputs(rows), self._unit(rows, scaled), self.known(rows))
            return out
        every, present, at = self._moments.gather(rows)
        there = torch.from_numpy(present).to(self._scale.device)
        out = network(self.inputs(every), self._unit(every, scaled), self.known(every), there)
        return out[torch.from_numpy(at).to(out.device)]

    def known(self, rows: Array) -> Tensor | None:
        """[B, H, K], known covariates, or None where the network takes none."""
        if not self._config.known:
            return None
        return torch.from_numpy(known_covariates(self._panel, rows, self._config)).to(self._scale.device)

    def inputs(self, rows: Array) -> Tensor:
        """[B, L, C], oldest candle first, ending at `rows`."""
        return self._view[self._at(rows - self._first)].transpose(1, 2)

    def scale(self, rows: Array) -> Tensor:
        """[B], volatility a candle at `rows`."""
        return self._scale[self._at(rows)]

    def _unit(self, rows: Array, scaled: bool) -> Tensor | None:
        return self.scale(rows) if scaled else None

    def _at(self, rows: Array) -> Tensor:
        return torch.from_numpy(rows).to(self._scale.device)


def chunks(rows: Array, size: int = 2048) -> list[Array]:
    """Rows in pieces of at most `size`, so that a forecast of a whole test set needs a batch's memory."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]
