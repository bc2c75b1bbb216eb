"""Data in and out: Freqtrade's data folder and plain files."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from cluster.settings import Settings
from cluster.stages.data import open_store
from observability.progress import Progress
from pipelines.adapters.freqtrade_data import (
    ExportedFile,
    ImportSummary,
    Rules,
    export_folder,
    import_folder,
)


@dataclass(frozen=True)
class ExportSummary:
    """Freqtrade's data folder and the files that were written into it."""

    folder: Path
    files: tuple[ExportedFile, ...]


def import_data(
    settings: Settings, progress: Progress, place: Path, *, zone: str = "", repair: bool = False, replace: bool = False
) -> ImportSummary:
    """Read candle files into the store under the name `market.exchange`.

    Raises:
        SourceError: nothing is there, a file cannot be read, or contradicts what is stored.
        CandleError: a file's rows break their contract; names file, pair and time.
    """
    rules = Rules(int(time.time() * 1000), zone, repair, replace)
    return import_folder(place, open_store(settings), settings.market.exchange, rules, progress)


def export_data(
    settings: Settings,
    progress: Progress,
    folder: Path,
    *,
    pairs: tuple[str, ...] = (),
    timeframe: str = "",
    fmt: str = "feather",
) -> ExportSummary:
    """Write what is stored of `market.exchange` as Freqtrade's data folder; no pairs, no timeframe: all there is.

    Raises:
        SourceError: nothing of that is stored.
        StoreError: a series is damaged.
    """
    store = open_store(settings)
    stored = store.keys()
    keys = [
        key
        for key in stored
        if key.exchange == settings.market.exchange
        and (not pairs or key.pair in pairs or key.pair.split(":")[0] in pairs)
        and (not timeframe or key.kind != "ohlcv" or key.timeframe == timeframe)
    ]
    return ExportSummary(folder.absolute(), export_folder(store, keys, folder, fmt, progress))
