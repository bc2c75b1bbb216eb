"""A validation loss by block of time: what a trial leaves, so that choosing among many can be judged later.

The contract with the sweep: every trial leaves `BLOCKS` numbers, its mean validation loss in as many blocks of time of
equal length (`block_losses`), whether it ran to its end or not. They travel as metrics `block_00`.. of its MLflow run
and as `TrialRow.blocks`. What they say is `mtst.selection`'s business; a training process needs none of its statistics.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mtst.panel import Array

BLOCKS = 12  # 12 over 6 is 924 ways to halve the past; each block keeps some hundred windows
BLOCK_NAMES = tuple(f"block_{number:02d}" for number in range(BLOCKS))


def block_losses(losses: Array, times: Array, blocks: int = BLOCKS) -> Array:
    """Mean loss in blocks of time of equal length, [blocks]; NaN in a block without windows."""
    start, end = int(times.min()), int(times.max()) + 1
    at = (times.astype(np.int64) - start) * blocks // (end - start)
    counts = np.bincount(at, minlength=blocks)
    sums = np.bincount(at, losses.astype(np.float64), minlength=blocks)
    means: Array = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


def block_metrics(losses: Array, times: Array) -> dict[str, float]:
    """`block_losses` under the names that travel as metrics; blocks without windows are left out."""
    found = block_losses(losses, times)
    return {name: float(loss) for name, loss in zip(BLOCK_NAMES, found, strict=True) if np.isfinite(loss)}


def blocks_of(metrics: Mapping[str, float]) -> tuple[float, ...]:
    """A trial's blocks from its metrics; empty where it has not left them all."""
    return tuple(float(metrics[name]) for name in BLOCK_NAMES) if set(BLOCK_NAMES) <= set(metrics) else ()
