"""Whether features still look as they did: missing shares, distributions, and each period against the first one.

Two measures of drift, from 0 (the same) upwards:

- PSI, the population stability index: sum of (q - p) ln(q / p) over ten bins that hold a tenth of the first period
  each. By the usual reading (Siddiqi 2006) below 0.1 is calm, above 0.25 another distribution.
- KS, the Kolmogorov-Smirnov distance: the largest difference of the two distribution functions, in [0, 1]. Its p-value
  is left out: it supposes independent draws, which rows of a time series are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import ks_2samp

CALM, ANOTHER = 0.1, 0.25
BINS = 10
HISTOGRAM_BINS = 40
LEAST_ROWS = 200  # in a period, else its figures are noise
_FLOOR = 1e-4  # share of an empty bin; a zero would make the index infinite
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FeatureReport:
    """One feature over all pairs.

    `missing` is the share of rows without a value, once the warm-up has passed. `edges` and `counts` are a histogram of
    what lies between the 0.5 % and the 99.5 % quantile. `psi` and `ks` hold one value a period, None where it has too
    few rows; the first is the reference.
    """

    name: str
    missing: float
    mean: float
    deviation: float
    quantiles: tuple[float, ...]
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    psi: tuple[float | None, ...]
    ks: tuple[float | None, ...]

    @property
    def worst_psi(self) -> float:
        """Largest of the periods."""
        return max((value for value in self.psi if value is not None), default=0.0)

    @property
    def worst_ks(self) -> float:
        """Largest of the periods."""
        return max((value for value in self.ks if value is not None), default=0.0)


LEVELS = (0.01, 0.25, 0.5, 0.75, 0.99)


def psi(reference: Floats, current: Floats, bins: int = BINS) -> float:
    """Population stability index of `current` against `reference`, by quantile bins of the reference."""
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, bins + 1)[1:-1]))
    p, q = (_shares(values, edges) for values in (reference, current))
    return float(np.sum((q - p) * np.log(q / p)))


def ks(reference: Floats, current: Floats) -> float:
    """Kolmogorov-Smirnov distance of two samples."""
    return float(ks_2samp(reference, current, method="asymp").statistic)


def periods_of(times: pl.Series) -> pl.Series:
    """The period of each time: months where there are at least two and a half, else weeks, else days."""
    days = (times.max() - times.min()).total_seconds() / 86_400 if times.len() else 0  # type: ignore[operator,union-attr]
    every = "1mo" if days >= 75 else "1w" if days >= 14 else "1d"
    return times.dt.truncate(every)


def inspect_features(
    table: pl.DataFrame, columns: Sequence[str], missing: dict[str, float]
) -> tuple[tuple[str, ...], tuple[FeatureReport, ...]]:
    """Periods, and a report a feature.

    Args:
        table: `timestamp` and the features of all pairs below each other; a sample is enough.
        columns: features to look at.
        missing: share of rows without a value, a feature.
    """
    period = periods_of(table["timestamp"])
    names = period.unique().sort()
    groups = [table.filter(period == each) for each in names]
    labels = tuple(f"{each:%Y-%m-%d}" for each in names)
    months = bool(names.len()) and all(each.day == 1 for each in names) and names.len() > 1
    reports = tuple(_feature(name, table[name], [group[name] for group in groups], missing[name]) for name in columns)
    return tuple(label[:7] for label in labels) if months else labels, reports


def _feature(name: str, values: pl.Series, periods: Sequence[pl.Series], missing: float) -> FeatureReport:
    whole = _clean(values)
    parts = [_clean(each) for each in periods]
    reference = next((part for part in parts if len(part) >= LEAST_ROWS), None)
    usable = [part if reference is not None and len(part) >= LEAST_ROWS else None for part in parts]
    counts, edges = np.histogram(whole, HISTOGRAM_BINS, _middle(whole))
    return FeatureReport(
        name=name,
        missing=missing,
        mean=float(whole.mean()) if len(whole) else 0.0,
        deviation=float(whole.std()) if len(whole) else 0.0,
        quantiles=tuple(float(q) for q in np.quantile(whole, LEVELS)) if len(whole) else (0.0,) * len(LEVELS),
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
        psi=tuple(None if part is None or reference is None else psi(reference, part) for part in usable),
        ks=tuple(None if part is None or reference is None else ks(reference, part) for part in usable),
    )


def _middle(values: Floats) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    low, high = np.quantile(values, (0.005, 0.995))
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def _shares(values: Floats, edges: Floats) -> Floats:
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    shares: Floats = np.maximum(counts / max(1, len(values)), _FLOOR)
    shares /= shares.sum()
    return shares


def _clean(values: pl.Series) -> Floats:
    return values.drop_nulls().drop_nans().to_numpy().astype(np.float64)
