"""All pairs' features and labels as a few contiguous arrays, and windows as row numbers into them.

A window is named by its last row: `row` stands for rows row-L+1 .. row of one pair, so tens of thousands of windows
cost one integer each, and only a batch is ever gathered. Label and scale of a window sit at the same row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from observability.errors import DataError, SpecError
from pipelines.blobs import Blobs
from pipelines.candles import timeframe_ms
from pipelines.frames import read_features
from pipelines.labels import NEXT_OPEN

if TYPE_CHECKING:
    from pipelines.folds import Fold
    from pipelines.spec import DatasetSpec

Array = np.ndarray[Any, Any]

VOLATILITY_HALFLIFE = 24  # candles; on six 15m pairs 12 to 48 lose about the same
VOLATILITY_FLOOR = 1e-6  # log-return a candle: a constant price has a scale of a hundredth of a basis point, not zero
SCALER_CLIP = 10.0  # standard units


def recent_volatility(close: Array, window: int, halflife: float = VOLATILITY_HALFLIFE) -> Array:
    """Causal volatility of one candle's log-return: root of an exponentially weighted mean of squared returns.

    The memory is cut at `window` returns, so `window + 1` closes give exactly what a long history gives: training on
    months and serving from a few hundred candles agree.

    Args:
        close: closes of ONE pair, oldest first, without gaps.
        window: returns looked back on (the data set's look-back).
        halflife: candles after which a squared return weighs half.

    Returns:
        float64, as long as `close`; the first `window` values, and all that touch a missing close, are NaN.
    """
    close = np.asarray(close, dtype=np.float64)
    out = np.full(len(close), np.nan)
    if len(close) <= window:
        return out
    squares = np.diff(np.log(close)) ** 2
    weights = 0.5 ** (np.arange(window) / halflife)  # newest first, as convolution wants it
    out[window:] = np.sqrt(np.convolve(squares, weights / weights.sum(), mode="valid"))
    floored: Array = np.maximum(out, VOLATILITY_FLOOR)
    return floored


@dataclass(frozen=True)
class Panel:
    """Rows of all pairs, pair after pair, each pair in time order.

    Attributes:
        timestamps: int64 [N], open time in ms; pair_index: int16 [N], position in `pairs`.
        features: float32 [N, C], unscaled, NaN where missing; columns: their C names.
        labels: float32 [N, H], forward log-returns over `horizons` candles, NaN where the future is not known.
        scale: float32 [N], `recent_volatility` of the pair at the row, NaN in the warm-up.
        close: float64 [N], for baselines that look at prices only.
        fill: float64 [N], the next candle's open, at which an order of the row can be filled; the close if unknown.
    """

    pairs: tuple[str, ...]
    timeframe_ms: int
    columns: tuple[str, ...]
    horizons: tuple[int, ...]
    timestamps: Array
    pair_index: Array
    features: Array
    labels: Array
    scale: Array
    close: Array
    fill: Array

    def __len__(self) -> int:
        return len(self.timestamps)

    def rows(self, lookback: int, *, labelled: bool = True) -> Array:
        """Every row that ends a whole window: one pair, no time gap, no missing feature, known scale (and labels)."""
        complete = np.isfinite(self.features).all(1)
        whole = np.convolve(complete, np.ones(lookback), mode="full")[: len(self)] > lookback - 0.5
        good: Array = whole & np.isfinite(self.scale)
        first = np.arange(len(self)) - (lookback - 1)
        start = np.maximum(first, 0)
        good &= (first >= 0) & (self.pair_index[start] == self.pair_index)
        good &= self.timestamps - self.timestamps[start] == (lookback - 1) * self.timeframe_ms
        if labelled:
            good &= np.isfinite(self.labels).all(1)
        return np.flatnonzero(good)

    def z_labels(self) -> Array:
        """Labels in the model's unit, scale * sqrt(h). float32 [N, H]."""
        roots = np.sqrt(np.asarray(self.horizons, dtype=np.float32))
        z: Array = self.labels / (self.scale[:, None] * roots)
        return z


@dataclass(frozen=True)
class Scaler:
    """Per-column centre and width, fitted on training rows only: median and a robust deviation, then a clip.

    Missing values become 0, the centre. `to_dict`/`from_dict` go into the model card.
    """

    columns: tuple[str, ...]
    centre: tuple[float, ...]
    width: tuple[float, ...]

    @classmethod
    def fit(cls, features: Array, columns: Sequence[str]) -> Scaler:
        """From rows [n, C]. Width is the quartile distance / 1.349, the deviation where quartiles meet, 1 if constant.

        Raises:
            DataError: no rows, or columns do not match.
        """
        if features.ndim != 2 or features.shape[1] != len(columns) or not len(features):
            raise DataError(
                f"cannot fit a scaler of {len(columns)} columns on an array of shape {features.shape}",
                where="Scaler.fit",
            )
        low, centre, high = np.nanpercentile(features.astype(np.float64), (25, 50, 75), axis=0)
        robust, plain = (high - low) / 1.349, np.nanstd(features.astype(np.float64), axis=0)
        width = np.where(robust > 1e-12, robust, np.where(plain > 1e-12, plain, 1.0))
        return cls(tuple(columns), tuple(centre.tolist()), tuple(width.tolist()))

    def transform(self, features: Array) -> Array:
        """Any array [..., C] in standard units, clipped to ±10, missing as 0. A new float32 array."""
        z = (features - np.asarray(self.centre)) / np.asarray(self.width)
        z = np.nan_to_num(z, nan=0.0, posinf=SCALER_CLIP, neginf=-SCALER_CLIP)
        return np.ascontiguousarray(np.clip(z, -SCALER_CLIP, SCALER_CLIP), dtype=np.float32)

    def to_dict(self) -> dict[str, list[Any]]:
        """JSON-able; floats keep every bit."""
        return {"columns": list(self.columns), "centre": list(self.centre), "width": list(self.width)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scaler:
        """Rebuild from `to_dict`. Raises DataError on missing or unequal lists or a width that is not positive."""
        try:
            scaler = cls(tuple(data["columns"]), tuple(map(float, data["centre"])), tuple(map(float, data["width"])))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not a scaler: {error!r}", where="Scaler.from_dict") from error
        if not len(scaler.columns) == len(scaler.centre) == len(scaler.width) or min(scaler.width, default=0) <= 0:
            raise DataError("a scaler's lists differ in length, or a width is not positive", where="Scaler.from_dict")
        return scaler


@dataclass(frozen=True)
class Split:
    """Rows (window ends) to train on, to stop early on, and to score on."""

    train: Array
    valid: Array
    test: Array


def split_fold(panel: Panel, fold: Fold, lookback: int) -> Split:
    """Rows of a fold; purged: no training or validation label reaches into the part that comes after it.

    Raises:
        DataError: one of the three parts is empty.
    """
    rows = panel.rows(lookback)
    t = panel.timestamps[rows]
    known = t + max(panel.horizons) * panel.timeframe_ms  # when the longest label is known
    split = Split(
        train=rows[(t < fold.train_end_ms) & (known < fold.valid_start_ms)],
        valid=rows[(t >= fold.valid_start_ms) & (t < fold.valid_end_ms) & (known < fold.test_start_ms)],
        test=rows[(t >= fold.test_start_ms) & (t < fold.test_end_ms)],
    )
    for name, part in (("training", split.train), ("validation", split.valid), ("test", split.test)):
        if not len(part):
            raise DataError(
                f"fold {fold.index} has no complete {name} window",
                where=f"{len(rows)} windows of {lookback} candles in all",
                todo="use more history, fewer folds or a shorter look-back",
            )
    return split


def make_panel(
    frames: Mapping[str, pl.DataFrame], columns: Sequence[str], horizons: Sequence[int], timeframe: str, lookback: int
) -> Panel:
    """Panel from feature frames (timestamp, close, columns, fwd_h...), one a pair; missing fwd_h become NaN labels.

    Raises:
        SpecError: a frame lacks a column or has no rows.
    """
    parts: list[tuple[Array, ...]] = []
    for number, (pair, frame) in enumerate(frames.items()):
        lacking = [c for c in ("timestamp", "close", *columns) if c not in frame.columns]
        if lacking or frame.is_empty():
            raise SpecError(
                f"the features lack {lacking}" if lacking else "there are no features",
                where=pair,
                todo="build the features again with this data-set specification",
            )
        labels = [
            frame[f"fwd_{h}"].to_numpy() if f"fwd_{h}" in frame.columns else np.full(frame.height, np.nan)
            for h in horizons
        ]
        close = frame["close"].to_numpy()
        fill = frame[NEXT_OPEN].to_numpy() if NEXT_OPEN in frame.columns else close
        parts.append(
            (
                frame["timestamp"].dt.epoch("ms").to_numpy(),
                np.full(frame.height, number, dtype=np.int16),
                frame.select(pl.col(columns).cast(pl.Float32)).to_numpy(),
                np.stack(labels, 1).astype(np.float32),
                recent_volatility(close, lookback).astype(np.float32),
                close,
                np.where(np.isfinite(fill), fill, close),
            )
        )
    joined = [np.ascontiguousarray(np.concatenate(arrays)) for arrays in zip(*parts, strict=True)]
    return Panel(tuple(frames), timeframe_ms(timeframe), tuple(columns), tuple(horizons), *joined)


def load_panel(path: Path | str, spec: DatasetSpec) -> Panel:
    """Panel from feature files `<path>/<PAIR>/<period>.parquet` (or `<path>/<spec hash>/...`), PAIR as BTC_USDT.

    Raises:
        SpecError: a pair's file is missing or lacks columns of the specification.
    """
    folder = str(path)
    if Blobs.at(folder).names(".parquet", spec.hash):
        folder = f"{folder}/{spec.hash}"
    frames: dict[str, pl.DataFrame] = {}
    for pair in spec.pairs:
        frames[pair] = read_features(folder, pair)
        if frames[pair].is_empty():
            raise SpecError(
                f"no features of {pair}", where=folder, todo="build the features of this specification first"
            )
    return make_panel(frames, spec.columns, spec.horizons, spec.timeframe, spec.lookback)
