"""Enrichment: on-chain metrics from files into the store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cluster.settings import Settings
from cluster.stages.data import open_store
from observability.errors import SettingsError, SourceError
from observability.progress import Progress
from pipelines.adapters.onchain_files import OnchainImport, import_onchain


@dataclass(frozen=True)
class EnrichSummary:
    """On-chain tables that were imported, and why each other file was not."""

    imported: tuple[OnchainImport, ...]
    skipped: tuple[str, ...]


def enrich(settings: Settings, progress: Progress, *, assumed_delay: timedelta | None = None) -> EnrichSummary:
    """Import on-chain files (`BTC.parquet`, `ETH-2020.csv`, named after their asset) into the store.

    They are looked for in `market.onchain`, else in a folder `onchain` beside or above `market.replay`; without either
    nothing is imported. Files that tell no publication time are skipped unless `assumed_delay` is given.

    Raises:
        SettingsError: if `market.onchain` does not exist.
    """
    imported, skipped = [], []
    files = _onchain_files(settings)
    store = open_store(settings)
    with progress.task("on-chain metrics", total=len(files)) as task:
        for path in files:
            asset = path.stem.split("-")[0]
            try:
                imported.append(import_onchain(path, store, asset, assumed_delay=assumed_delay))
            except SourceError as error:
                skipped.append(str(error))
            task.advance(1, path.name)
    return EnrichSummary(tuple(imported), tuple(skipped))


def _onchain_files(settings: Settings) -> list[Path]:
    place, replay = settings.market.onchain, settings.market.replay
    if place is not None and not place.exists():
        raise SettingsError("the on-chain folder or file does not exist", where=str(place), todo="check market.onchain")
    if place is None and replay is not None:
        near = (replay / "onchain", replay.parent / "onchain", replay.parent.parent / "onchain")
        place = next((folder for folder in near if folder.is_dir()), None)
    if place is None:
        return []
    files = [place] if place.is_file() else sorted(place.iterdir())
    # An asset's name is in capitals; other files of such a folder (indices, notes) are not about one asset.
    return [file for file in files if re.fullmatch(r"[A-Z0-9]+(-.*)?\.(parquet|csv)", file.name)]
