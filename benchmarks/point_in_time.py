"""Whether any slower row is seen before it could be known, on real tables, beside the join that most people write.

Every row's values are replaced by the row's number, so that each joined cell names the row it came from, and that row's
time of publication is compared with the candle's close. The peer joins by the time that a row describes.
"""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.figures import Figure, Figures
from observability.errors import SettingsError
from observability.progress import Progress
from pipelines.adapters.onchain_files import read_onchain
from pipelines.enrich import ASSUMED, FUNDING_LAG_MS, enrich_funding, enrich_mark, enrich_onchain, metrics_of
from pipelines.frames import feature_frame, read_enrichment
from pipelines.spec import default_spec
from pipelines.store import CandleStore, SeriesKey

PAIRS = ("BTC", "ETH", "SOL", "XRP", "DOGE", "LINK")
STEP = timedelta(hours=1)


def run(progress: Progress, data: Path | None = None, publications: int = 30) -> Figures:
    """Count cells that come from a row that was not known yet; `publications` are spoiled through the whole path."""
    folder = data or Path(os.environ.get("MTST_SHARED_DATA", "../shared/data"))
    if not (folder / "onchain" / "BTC.parquet").is_file():
        raise SettingsError("there is no real data here", where=str(folder), todo="give --data, or MTST_SHARED_DATA")
    with progress.task("point in time", total=len(PAIRS) + 2 + publications) as task:
        onchain = read_onchain(folder / "onchain" / "BTC.parquet")
        ours, peers, late = {"cells": 0, "early": 0}, {"cells": 0, "early": 0}, []
        for base in PAIRS:
            walk = pl.read_parquet(folder / "market" / "binance" / f"{base}_USDT-1h.parquet")
            for tally, seen in zip((ours, peers), _onchain_cells(walk, onchain), strict=True):
                tally["cells"] += seen.height
                tally["early"] += int((seen["early_h"] > 0).sum())
            late += seen.filter(pl.col("early_h") > 0)["early_h"].to_list()
            task.advance(1, base)
        figures = [_figure("on-chain cells seen early", ours, peers, "by day")]
        for name, pair in (("funding", _funding_cells), ("mark", _mark_cells)):
            figures.append(_figure(f"{name} cells seen early", *pair(folder / "market" / "binanceusdm")))
            task.advance(1, name)
        changed, compared = _spoiled(folder, onchain, publications, task)
        figures.append(Figure(
            "feature cells that later rows changed", changed, "cells", goal=0, at_most=True, goal_of="value",
            note=f"of {compared:,}, through the store, {publications} publications spoiled",
        ))  # fmt: skip
    facts = _facts(onchain, late)
    bound = (
        "the join by day shows an on-chain value {median:.1f} h too early in the median, {most:.0f} h at most".format(
            **facts["peer_early_h"]
        )
    )
    return Figures("Point in time, on real tables", tuple(figures), bound, facts)


def _onchain_cells(walk: pl.DataFrame, onchain: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`early_h`: hours from the close to the publication of the row that a cell came from; ours, and by day."""
    metrics = metrics_of(onchain)
    row = pl.int_range(pl.len()).cast(pl.Float64)
    marked = onchain.with_columns(pl.when(pl.col(name).is_not_null()).then(row).alias(name) for name in metrics)
    ours = enrich_onchain(walk, marked, timeframe="1h")
    by_day = walk.join_asof(marked.sort("timestamp").drop("available_at"), on="timestamp")
    columns = [*metrics, *(f"{name}_7d_ago" for name in metrics)]
    return _early(ours, columns, marked["available_at"]), _early(by_day, metrics, marked["available_at"])


def _early(joined: pl.DataFrame, columns: list[str], known: pl.Series) -> pl.DataFrame:
    cells = joined.select("timestamp", *columns).unpivot(index="timestamp").drop_nulls()
    at = known.gather(cells["value"].cast(pl.Int64))
    return pl.DataFrame({"early_h": (at - (cells["timestamp"] + STEP)).dt.total_seconds() / 3600})


def _funding_cells(folder: Path) -> tuple[dict[str, int], dict[str, int], str]:
    return _cells(folder, "funding", "funding_rate", "funding_rate", timedelta(milliseconds=FUNDING_LAG_MS))


def _mark_cells(folder: Path) -> tuple[dict[str, int], dict[str, int], str]:
    return _cells(folder, "mark-8h", "close", "mark_close", timedelta(hours=8))


def _cells(
    folder: Path, kind: str, column: str, seen: str, after: timedelta
) -> tuple[dict[str, int], dict[str, int], str]:
    totals: dict[str, dict[str, int]] = {"ours": {"cells": 0, "early": 0}, "peer": {"cells": 0, "early": 0}}
    for base in ("BTC", "ETH", "SOL", "XRP"):
        walk = pl.read_parquet(folder / f"{base}_USDT-15m.parquet")
        slow = pl.read_parquet(folder / f"{base}_USDT-{kind}.parquet").sort("timestamp")
        slow = slow.with_columns(pl.int_range(pl.len()).cast(pl.Float64).alias(column))
        ours = enrich_funding(walk, slow) if kind == "funding" else enrich_mark(walk, slow, mark_timeframe="8h")
        # As one writes it: the newest row that is stamped with a time up to the close.
        close = walk.with_columns(_close=pl.col("timestamp") + timedelta(minutes=15))
        peer = close.join_asof(
            slow.select("timestamp", pl.col(column).alias("_peer")), left_on="_close", right_on="timestamp"
        )
        for name, table, cell in (("ours", ours, seen), ("peer", peer, "_peer")):
            rows = table.select("timestamp", cell).drop_nulls()
            known = slow["timestamp"].gather(rows[cell].cast(pl.Int64)) + after
            totals[name]["cells"] += rows.height
            totals[name]["early"] += int((known > rows["timestamp"] + timedelta(minutes=15)).sum())
    return totals["ours"], totals["peer"], "by stamp"


def _spoiled(folder: Path, onchain: pl.DataFrame, publications: int, task: Any) -> tuple[int, int]:
    """Double every row from a publication on, and count features up to the close before it that changed."""
    walk = pl.read_parquet(folder / "market" / "binance" / "BTC_USDT-1h.parquet")
    spec = default_spec(["BTC/USDT"], "1h", onchain=True)
    inside = onchain.filter(pl.col("available_at").is_between(walk["timestamp"][400], walk["timestamp"][-1]))
    changed = compared = 0
    with tempfile.TemporaryDirectory(prefix="mtst-pit-") as root:
        whole = _features(f"{root}/whole", walk, onchain, spec)
        for number, published in enumerate(inside["available_at"].sample(publications, seed=1).sort()):
            later = pl.col("available_at") >= published
            spoiled = onchain.with_columns(
                pl.when(later).then(pl.col(name) * 2).otherwise(name).alias(name) for name in metrics_of(onchain)
            )
            before = walk["timestamp"] + STEP < published
            one, two = whole.filter(before), _features(f"{root}/{number}", walk, spoiled, spec).filter(before)
            compared += one.height * len(spec.columns)
            changed += sum(int((~one[name].eq_missing(two[name])).sum()) for name in spec.columns)
            task.advance(1, f"{published:%Y-%m-%d}")
    return changed, compared


def _features(root: str, walk: pl.DataFrame, onchain: pl.DataFrame, spec: Any) -> pl.DataFrame:
    store = CandleStore(root)
    store.write(SeriesKey("x", "ohlcv", "BTC/USDT", "1h"), walk)
    store.write(SeriesKey("file", "onchain", "BTC"), onchain)
    return feature_frame(walk, spec, read_enrichment(store, spec, "x", "BTC/USDT"))


def _figure(name: str, ours: dict[str, int], peer: dict[str, int], peer_name: str) -> Figure:
    return Figure(
        name, ours["early"], "cells", peer_name, peer["early"], goal=0, at_most=True, goal_of="value",
        note=f"of {ours['cells']:,}; the peer's of {peer['cells']:,}",
    )  # fmt: skip


def _facts(onchain: pl.DataFrame, late: list[float]) -> dict[str, Any]:
    delays = (onchain["available_at"] - onchain["timestamp"]).dt.total_seconds() / 3600 - 24
    measured = delays.filter(onchain[ASSUMED] == 0)
    hours = pl.Series(late)
    return {
        "days": onchain.height,
        "assumed_days": int(onchain[ASSUMED].sum()),
        "measured_delay_h": {"least": measured.min(), "median": measured.median(), "most": measured.max()},
        "peer_early_h": {"median": hours.median(), "most": hours.max()},
    }
