"""What is known of a forecast beside its window: the calendar of the moment ahead, and which series it is."""

from __future__ import annotations

import numpy as np

from mtst.config import MTSTConfig
from mtst.panel import Array, Panel

HOUR_MS = 3_600_000
PERIODS_MS = (24 * HOUR_MS, 168 * HOUR_MS)


def known_covariates(panel: Panel, rows: Array, config: MTSTConfig) -> Array:
    """float32 [n, H, K]: sine and cosine of hour and weekday h candles ahead, then one number a named series."""
    steps = np.asarray(config.horizons, dtype=np.int64) * panel.timeframe_ms
    times = panel.timestamps[rows][:, None] + steps
    parts = []
    if config.calendar:
        for period in PERIODS_MS:
            angle = times % period * (2 * np.pi / period)
            parts += [np.sin(angle), np.cos(angle)]
    pair = panel.pair_index[rows]
    for name in config.series:
        number = panel.pairs.index(name) if name in panel.pairs else -1
        parts.append(np.broadcast_to((pair == number)[:, None], times.shape))
    return np.stack(parts, -1).astype(np.float32)


class Moments:
    """The windows of all series at each moment, for networks in which they attend to each other."""

    def __init__(self, panel: Panel, lookback: int) -> None:
        rows = panel.rows(lookback, labelled=False)
        self._times = np.unique(panel.timestamps)
        self._of_row = np.searchsorted(self._times, panel.timestamps)
        self._pair = panel.pair_index.astype(np.int64)
        self._rows = np.full((len(self._times), len(panel.pairs)), -1, dtype=np.int64)
        self._rows[self._of_row[rows], self._pair[rows]] = rows

    def gather(self, rows: Array) -> tuple[Array, Array, Array]:
        """The moments of these rows: all their rows [T * G], which are present [T, G], and where the asked ones are.

        Absent series stand as one of the asked rows, and are not attended to.
        """
        moments, at = np.unique(self._of_row[rows], return_inverse=True)
        table = self._rows[moments]
        present = table >= 0
        filled = np.where(present, table, rows[0])
        return filled.ravel(), present, at * table.shape[1] + self._pair[rows]
