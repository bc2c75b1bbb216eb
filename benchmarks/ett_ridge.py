"""Ridge regression on instance-normalised windows, in closed form: what every network of this field has to beat."""

from __future__ import annotations

import numpy as np

from mtst.panel import Array
from mtst.series import Series

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)  # shares of the number of training windows; chosen on validation
CHUNK = 512


def ridge(series: Series, lookback: int, horizon: int) -> dict[str, Array]:
    """Forecasts [n, H, C] of the validation and test windows by the penalty that validates best (squared error).

    Each channel's window is shifted and scaled to mean 0 and deviation 1, all channels share one linear map.
    """
    gram, cross, count = np.zeros((lookback, lookback)), np.zeros((lookback, horizon)), 0
    starts = series.starts("train", lookback, horizon)
    for part in np.array_split(starts, max(1, len(starts) // CHUNK)):
        past, future, _, _ = _windows(series, part, lookback, horizon)
        gram += past.T @ past
        cross += past.T @ future
        count += len(past)
    best: tuple[float, Array] | None = None
    valid = series.starts("valid", lookback, horizon)
    for penalty in PENALTIES:
        weights = np.linalg.solve(gram + penalty * count * np.eye(lookback), cross)
        error = _forecast(series, valid, weights) - truth(series, valid + lookback, horizon)
        loss = float(np.square(error).mean())
        if best is None or loss < best[0]:
            best = (loss, weights)
    assert best is not None
    parts = {part: series.starts(part, lookback, horizon) for part in ("valid", "test")}
    return {part: _forecast(series, starts, best[1]) for part, starts in parts.items()}


def truth(series: Series, starts: Array, horizon: int) -> Array:
    """The H rows from each start on, [n, H, C]."""
    view = np.lib.stride_tricks.sliding_window_view(series.values, horizon, axis=0)[starts]
    rows: Array = view.transpose(0, 2, 1)
    return rows


def _windows(series: Series, starts: Array, lookback: int, horizon: int) -> tuple[Array, Array, Array, Array]:
    whole = truth(series, starts, lookback + horizon).transpose(0, 2, 1).reshape(-1, lookback + horizon)
    past = whole[:, :lookback].astype(np.float64)
    mean, width = past.mean(1, keepdims=True), np.sqrt(past.var(1, keepdims=True) + 1e-5)
    return (past - mean) / width, (whole[:, lookback:] - mean) / width, mean, width


def _forecast(series: Series, starts: Array, weights: Array) -> Array:
    lookback, horizon = weights.shape
    parts = []
    for part in np.array_split(starts, max(1, len(starts) // CHUNK)):
        past, _, mean, width = _windows(series, part, lookback, horizon)
        flat = (past @ weights * width + mean).astype(np.float32)
        parts.append(flat.reshape(len(part), -1, horizon).transpose(0, 2, 1))
    return np.concatenate(parts)
