"""Ridge regression in closed form, its penalty chosen on held-out rows: where linear forecasts come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtst.panel import Array

PENALTIES = (1e2, 1e3, 1e4, 1e5, 1e6)


@dataclass(frozen=True)
class LinearFit:
    """`predict(x)` = intercept [H] + x [n, D] @ weights [D, H]."""

    intercept: Array
    weights: Array

    def predict(self, x: Array) -> Array:
        """[n, H]."""
        forecast: Array = self.intercept + x @ self.weights
        return forecast


def fit_ridge(fit: tuple[Array, Array], held: tuple[Array, Array], penalties: Sequence[float] = PENALTIES) -> LinearFit:
    """Least squares with the penalty that, target by target, has the smallest squared error on the held-out rows.

    Args:
        fit, held: inputs [n, D] and targets [n, H]; inputs of about unit size, or the penalty is unfair to some.
    """
    x, y = fit
    middle, mean = x.mean(0), y.mean(0)
    values, vectors = np.linalg.eigh((x - middle).T @ (x - middle))
    moment = vectors.T @ ((x - middle).T @ (y - mean))
    best, lowest = np.zeros((x.shape[1], y.shape[1])), np.full(y.shape[1], np.inf)
    for penalty in penalties:
        weights = vectors @ (moment / (np.maximum(values, 0.0) + penalty)[:, None])
        error = ((held[1] - mean - (held[0] - middle) @ weights) ** 2).mean(0)
        better = error < lowest
        best[:, better], lowest = weights[:, better], np.minimum(error, lowest)
    return LinearFit(mean - middle @ best, best)
