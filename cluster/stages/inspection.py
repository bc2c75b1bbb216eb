"""A look at everything that is stored: series, the newest data set, and what about them is worth a person's time."""

from __future__ import annotations

import io
import re
import time
from dataclasses import dataclass, replace

import polars as pl

from cluster.settings import Settings
from cluster.stages.data import data_spec, open_store
from cluster.stages.findings import FeaturesReport, StoredSeries, findings
from observability.errors import StoreError
from observability.progress import Progress
from pipelines.adapters.exchange import SANDBOX
from pipelines.blobs import Blobs
from pipelines.candles import timeframe_ms
from pipelines.drift import inspect_features
from pipelines.enrich import ASSUMED
from pipelines.frames import read_spec
from pipelines.inspect import SlowReport, inspect_series, inspect_slow
from pipelines.spec import DatasetSpec
from pipelines.store import CandleStore, SeriesKey, pair_folder

HOUR_MS = 3_600_000
SAMPLE_ROWS = 200_000  # of all pairs together; distributions need no more, and memory stays bounded
_LATE_STEPS = 3  # a series that is more candles behind the newest one of its exchange is stale
_LONG_RUN = 12  # candles without a trade, or without a move, in one run


@dataclass(frozen=True)
class DataReport:
    """Everything in the store, the data set that the settings name if it is built, and findings in words.

    `age_hours`: since the newest candle of a real exchange closed, by this machine's clock; None if there is none.
    `page`: where the page was written.
    """

    root: str
    series: tuple[StoredSeries, ...]
    features: FeaturesReport | None = None
    findings: tuple[str, ...] = ()
    age_hours: float | None = None
    page: str = ""

    @property
    def candles(self) -> int:
        """Candles in all series."""
        return sum(item.rows for item in self.series if item.kind == "ohlcv")


def inspect(settings: Settings, progress: Progress, *, features: bool = False) -> DataReport:
    """Look at every stored series, and with `features` at the built data set.

    Raises:
        StoreError: if a series is damaged.
    """
    store, found = open_store(settings), []
    keys = store.keys()
    with progress.task("inspect", total=len(keys)) as task:
        for key in keys:
            found.append(_series(store, key))
            task.advance(1, str(key))
    newest: dict[tuple[str, ...], int] = {}
    for item in found:
        newest[item.alike] = max(newest.get(item.alike, 0), _known_until(item))
    series = tuple(replace(item, behind_hours=(newest[item.alike] - _known_until(item)) / HOUR_MS) for item in found)
    built = _features(settings, progress) if features else None
    # The sandbox exchange has a time of its own.
    ends = [_known_until(item) for item in series if item.kind == "ohlcv" and item.exchange != SANDBOX]
    age = time.time() * 1000 - max(ends) if ends else None
    report = DataReport(str(settings.workspace.data_raw), series, built, (), None if age is None else age / HOUR_MS)
    return replace(report, findings=tuple(findings(report.series, built)))


def _series(store: CandleStore, key: SeriesKey) -> StoredSeries:
    kept, table = store.manifest(key), store.read(key)
    report = inspect_series(table, key.timeframe) if key.timeframe else None
    slow = None if key.timeframe else inspect_slow(table)
    where, span = (key.exchange, key.kind, key.pair, key.timeframe), (kept.rows, kept.start_ms, kept.end_ms)
    delays = _delays(table, slow) if slow is not None else ()
    confirmed = sum(gap.missing for gap in kept.gaps) - sum(gap.missing for gap in kept.open_gaps)
    told = (confirmed, kept.known.listed_ms, kept.known.delisted_ms)
    return StoredSeries(*where, *span, kept.content_hash, report, slow, *told, delays=delays)


def _delays(table: pl.DataFrame, slow: SlowReport) -> tuple[tuple[float, ...], ...]:
    if "available_at" not in table.columns:
        return ()
    hours = (table["available_at"] - table["timestamp"]).dt.total_milliseconds() / HOUR_MS - slow.step_hours
    assumed = table[ASSUMED].fill_null(0.0) > 0 if ASSUMED in table.columns else pl.Series([False] * table.height)
    return tuple(hours.filter(~assumed).to_list()), tuple(hours.filter(assumed).to_list())


def _known_until(item: StoredSeries) -> int:
    return item.end_ms + (timeframe_ms(item.timeframe) if item.timeframe else 0)


def _features(settings: Settings, progress: Progress) -> FeaturesReport | None:
    """The data set that the settings name; None if it is not built."""
    try:
        spec = data_spec(settings)
        folder = Blobs.at(f"{settings.workspace.features}/{spec.hash}")
        read_spec(folder.root)
    except StoreError:
        return None
    files = {pair: _feature_files(folder, pair) for pair in spec.pairs}
    total = sum(len(names) for names in files.values())
    if not total:
        return None
    pieces, missing, rows, seen = [], dict.fromkeys(spec.columns, 0), 0, 0
    with progress.task("features", total=total) as task:
        for pair, names in files.items():
            for number, name in enumerate(names):
                table = _read(folder, name, spec)
                rows += table.height
                # Only a pair's first rows lack the history before them.
                warm = table.slice(spec.warmup) if number == 0 else table
                seen += warm.height
                for column in spec.columns:
                    missing[column] += warm[column].null_count()
                pieces.append(warm.gather_every(max(1, warm.height * total // SAMPLE_ROWS)))
                task.advance(1, f"{pair} {name}")
    whole = pl.concat(pieces)
    shares = {name: count / max(1, seen) for name, count in missing.items()}
    periods, reports = inspect_features(whole, spec.columns, shares)
    times = whole["timestamp"].dt.timestamp("ms").to_list() or [0]
    return FeaturesReport(
        spec.hash, spec.pairs, spec.timeframe, rows, min(times), max(times), spec.warmup, periods, reports
    )


def _read(folder: Blobs, name: str, spec: DatasetSpec) -> pl.DataFrame:
    try:
        return pl.read_parquet(io.BytesIO(folder.read(name)), columns=["timestamp", *spec.columns])
    except pl.exceptions.PolarsError as error:
        where = folder.path(name)
        raise StoreError("a feature file is damaged", where=where, todo="delete it, then data features") from error


def _feature_files(folder: Blobs, pair: str) -> list[str]:
    """A pair's files, the oldest first, however its time is cut into pieces."""
    mine = re.compile(rf"{re.escape(pair_folder(pair))}(/.*)?\.parquet")
    return [name for name in folder.names(".parquet") if mine.fullmatch(name)]
