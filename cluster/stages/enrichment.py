"""Enrichment: on-chain metrics from files and from Glassnode into the store."""

from __future__ import annotations

import re
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from cluster.settings import Settings
from cluster.stages.data import open_store
from observability.errors import SettingsError, SourceError
from observability.files import read_secret
from observability.progress import Progress
from pipelines.adapters.glassnode import GlassnodeWish, update_onchain
from pipelines.adapters.glassnode_client import Glassnode
from pipelines.adapters.onchain_files import OnchainImport, import_onchain, summary_of
from pipelines.enrich import SOURCES
from pipelines.frames import enrichment_keys
from pipelines.spec import DatasetSpec

DAY_MS = 86_400_000
# A feature compares with the week before, and the slowest publication took another.
_BEFORE_MS = 21 * DAY_MS


@dataclass(frozen=True)
class EnrichSummary:
    """On-chain tables that were imported, and why each other file was not."""

    imported: tuple[OnchainImport, ...]
    skipped: tuple[str, ...]


def enrich(
    settings: Settings, progress: Progress, *, asset: str = "", assumed_delay: timedelta | None = None
) -> EnrichSummary:
    """Bring on-chain metrics into the store: from files (`BTC.parquet`, `ETH-2020.csv`), and from Glassnode with a key.

    Files are looked for in `market.onchain`, else in a folder `onchain` beside or above `market.replay`. Those that
    tell no publication time are skipped unless `assumed_delay` is given. Without files and without `glassnode.key_file`
    nothing happens.

    Args:
        settings: `market.onchain`, `market.replay` and `glassnode`.
        progress: where progress is shown.
        asset: for one file: whose metrics they are, when its name does not say so.
        assumed_delay: from the start of a day to its publication, for files that tell none.

    Raises:
        SettingsError: if `market.onchain` does not exist.
        SecretError: if the key file is missing, empty or readable by others.
        SourceError: if Glassnode refuses, or fails for long.
    """
    imported, skipped = [], []
    files = _onchain_files(settings, asset)
    store = open_store(settings)
    with progress.task("on-chain metrics", total=len(files)) as task:
        for path in files:
            try:
                imported.append(import_onchain(path, store, asset or _asset_of(path), assumed_delay=assumed_delay))
            except SourceError as error:
                if path == settings.market.onchain:
                    raise  # somebody named this very file
                skipped.append(str(error))
            task.advance(1, path.name)
    return EnrichSummary((*imported, *_from_glassnode(settings, progress)), tuple(skipped))


def enrichment_facts(settings: Settings, spec: DatasetSpec) -> dict[str, dict[str, Any]]:
    """Of each source whether a data set uses it, for the model's card: its series and how honest their times are.

    `assumed` is the share of on-chain rows whose time of publication was declared and not measured: their values may
    hold revisions that were made later.
    """
    store, facts = open_store(settings), dict[str, dict[str, Any]]()
    for source in SOURCES:
        if source not in spec.sources:
            facts[source] = {"status": "absent"}
            continue
        keys = {enrichment_keys(spec, settings.market.exchange, pair)[source] for pair in spec.pairs}
        found = [summary_of(store, key) for key in sorted(keys)]
        rows = sum(item.rows for item in found)
        facts[source] = {
            "status": "present",
            "series": [str(key) for key in sorted(keys)],
            "rows": rows,
            "assumed": round(sum(item.assumed for item in found) / max(1, rows), 4),
        }
    return facts


def _from_glassnode(settings: Settings, progress: Progress) -> list[OnchainImport]:
    wanted = settings.glassnode
    if wanted.key_file is None:
        return []
    now_ms = int(time.time() * 1000)
    since_ms = (now_ms - int(settings.market.history_days * DAY_MS) - _BEFORE_MS) // DAY_MS * DAY_MS
    delay = timedelta(hours=wanted.delay_hours)
    key = read_secret(wanted.key_file, "Glassnode's key")
    with closing(Glassnode(key, wanted.url)) as client:
        return [
            update_onchain(
                client,
                open_store(settings),
                GlassnodeWish(asset, wanted.metrics, since_ms, wanted.resolution, delay, wanted.point_in_time),
                now_ms,
                progress,
            )
            for asset in wanted.assets
        ]


def _asset_of(path: Path) -> str:
    return path.stem.split("-")[0].replace("_", "-").upper()


def _onchain_files(settings: Settings, asset: str) -> list[Path]:
    place, replay = settings.market.onchain, settings.market.replay
    if place is not None and not place.exists():
        raise SettingsError("the on-chain folder or file does not exist", where=str(place), todo="check market.onchain")
    if place is None and replay is not None:
        near = (replay / "onchain", replay.parent / "onchain", replay.parent.parent / "onchain")
        place = next((folder for folder in near if folder.is_dir()), None)
    if place is None:
        return []
    if place.is_file():
        return [place]
    if asset:
        raise SettingsError("a folder's files name their assets", where=str(place), todo="give one file with --asset")
    # An asset's name is in capitals; other files of such a folder (indices, notes) are not about one asset.
    return [file for file in sorted(place.iterdir()) if re.fullmatch(r"[A-Z0-9]+(-.*)?\.(parquet|csv)", file.name)]
