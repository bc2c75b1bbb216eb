"""A look at everything that is stored."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.settings import Settings
from cluster.stages.data import open_store
from observability.progress import Progress
from pipelines.inspect import SeriesReport, inspect_series


@dataclass(frozen=True)
class StoredSeries:
    """One stored series; `report` only for candles, times in ms."""

    exchange: str
    kind: str
    pair: str
    timeframe: str
    rows: int
    start_ms: int
    end_ms: int
    content_hash: str
    report: SeriesReport | None


@dataclass(frozen=True)
class DataReport:
    """Everything in the store."""

    root: str
    series: tuple[StoredSeries, ...]


def inspect(settings: Settings, progress: Progress) -> DataReport:
    """Coverage, gaps and outliers of every stored series.

    Raises:
        StoreError: if a series is damaged.
    """
    store, found = open_store(settings), []
    keys = store.keys()
    with progress.task("inspect", total=len(keys)) as task:
        for key in keys:
            kept = store.manifest(key)
            report = inspect_series(store.read(key), key.timeframe) if key.timeframe else None
            where = (key.exchange, key.kind, key.pair, key.timeframe)
            found.append(StoredSeries(*where, kept.rows, kept.start_ms, kept.end_ms, kept.content_hash, report))
            task.advance(1, str(key))
    return DataReport(str(settings.workspace.data_raw), tuple(found))
