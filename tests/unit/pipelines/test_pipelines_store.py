"""The store: merging, atomicity, damage, concurrent and killed writers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.errors import CandleError, StoreError
from pipelines.blobs import Blobs
from pipelines.candles import find_gaps
from pipelines.store import CandleStore, Known, SeriesKey, content_hash
from tests.unit.pipelines.pipelines_makers import Walk, candles, onchain

KEY = SeriesKey("sandbox", "ohlcv", "BTC/USDT", "15m")
# From 2024-01-31 00:00 to 2024-02-02 02:00: two calendar months, 96 and 104 rows.
TABLE = candles(Walk(seed=1, rows=200)).with_columns(pl.col("timestamp") + pl.duration(days=30))


def only_file(folder, pattern="*.parquet"):
    (found,) = folder.rglob(pattern)
    return found


def test_layout_and_round_trip(tmp_path):
    store = CandleStore(str(tmp_path))
    assert not store.exists(KEY)
    manifest = store.write(KEY, TABLE)
    folder = tmp_path / "sandbox" / "ohlcv" / "BTC_USDT" / "15m"
    assert {path.parent for path in tmp_path.rglob("*.parquet")} == {folder}
    assert store.read(KEY).equals(TABLE)
    assert store.manifest(KEY) == manifest
    assert manifest.rows == 200
    assert store.exists(KEY)


def test_parts_are_calendar_months_and_spans_read_only_theirs(tmp_path):
    store = CandleStore(str(tmp_path))
    store.write(KEY, TABLE)
    january, february = store.parts(KEY)
    assert [(part.month, part.rows) for part in (january, february)] == [("2024-01", 96), ("2024-02", 104)]
    assert january.content_hash == content_hash(TABLE[:96])
    next(tmp_path.rglob("2024-01*.parquet")).write_bytes(b"damaged")
    assert store.read(KEY, since_ms=february.start_ms).equals(TABLE[96:])
    assert store.read(KEY, february.start_ms + 900_000, february.start_ms + 4 * 900_000).equals(TABLE[97:100])
    assert store.read(KEY, since_ms=february.end_ms + 1).schema == TABLE.schema
    with pytest.raises(StoreError, match="2024-01"):
        store.read(KEY, until_ms=february.start_ms)
    # A month that is not touched is not even read: extending goes on beside the damage, and mending finds it.
    store.write(KEY, TABLE[96:].with_columns(volume=pl.lit(7.0)))
    with pytest.raises(StoreError, match="2024-01"):
        store.write(KEY, TABLE[:5].with_columns(volume=pl.lit(7.0)))


@pytest.mark.parametrize("thorough", [False, True])
def test_mending_sets_damage_aside_and_loses_nothing_else(tmp_path, thorough):
    store = CandleStore(str(tmp_path))
    whole = store.write(KEY, TABLE)
    assert store.mend(KEY, thorough=True) == ()
    path = next(tmp_path.rglob("2024-01*.parquet"))
    damaged = path.read_bytes()[:-1] + (b"\x00" if thorough else b"")
    path.write_bytes(damaged)
    (text,) = store.mend(KEY, thorough=thorough)
    assert str(path) in text
    assert path.with_name(path.name + ".damaged").read_bytes() == damaged
    assert store.read(KEY).equals(TABLE[96:])
    assert store.write(KEY, TABLE[:96]).content_hash == whole.content_hash
    next(tmp_path.rglob("2024-02*.parquet")).unlink()
    assert len(store.mend(KEY)) == 1
    assert store.read(KEY).equals(TABLE[:96])


def test_a_damaged_manifest_is_made_again_from_the_files(tmp_path):
    store = CandleStore(str(tmp_path))
    whole = store.write(KEY, TABLE)
    manifest = only_file(tmp_path, "manifest.json")
    manifest.write_text(manifest.read_text()[:100])
    (text,) = store.mend(KEY)
    assert "made again from 2 file(s)" in text
    assert store.manifest(KEY) == whole
    assert store.read(KEY).equals(TABLE)


def test_gaps_cross_the_ends_of_months_and_can_be_confirmed(tmp_path):
    store = CandleStore(str(tmp_path))
    manifest = store.write(KEY, pl.concat([TABLE[:90], TABLE[100:150], TABLE[152:]]))
    assert manifest.gaps == find_gaps(store.read(KEY), "15m")
    assert [gap.missing for gap in manifest.gaps] == [10, 2]
    known = store.note(KEY, Known(confirmed=manifest.gaps[:1], listed_ms=5))
    assert known.open_gaps == manifest.gaps[1:]
    assert store.manifest(KEY).known.listed_ms == 5
    assert store.write(KEY, TABLE[150:152]).open_gaps == ()
    assert store.manifest(KEY).rows == 190


def test_any_fsspec_root_works():
    store = CandleStore(f"memory://store-{os.getpid()}")
    store.write(KEY, TABLE[:100])
    store.write(KEY, TABLE[50:])
    assert store.read(KEY).equals(TABLE)
    assert store.keys() == (KEY,)


def test_unknown_protocols_are_named():
    with pytest.raises(StoreError, match="cannot open the root"):
        CandleStore("nope://bucket")


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 199), st.integers(1, 80)), min_size=1, max_size=5), st.integers(0, 99))
def test_merging_overlaps_equals_the_union_with_new_rows_winning(tmp_path_factory, spans, seed):
    store, expected = CandleStore(str(tmp_path_factory.mktemp("store"))), {}
    for number, (start, size) in enumerate(spans):
        part = TABLE[start : start + size].with_columns(volume=pl.lit(float(number + seed)))
        store.write(KEY, part)
        expected.update({row[0]: row for row in part.iter_rows()})
    rows = [expected[at] for at in sorted(expected)]
    assert store.read(KEY).rows() == rows
    assert store.manifest(KEY).rows == len(rows)
    span = (rows[-1][0] - rows[0][0]).total_seconds() // 900 + 1
    assert sum(gap.missing for gap in store.manifest(KEY).gaps) == span - len(rows)


def test_the_content_hash_knows_values_not_chunks(tmp_path):
    whole = CandleStore(str(tmp_path / "a")).write(KEY, TABLE)
    parts = CandleStore(str(tmp_path / "b"))
    parts.write(KEY, TABLE[100:])
    assert parts.write(KEY, TABLE[:100]).content_hash == whole.content_hash
    changed = TABLE.with_columns(volume=pl.col("volume") + 1e-9)
    assert content_hash(changed) != whole.content_hash


def test_writing_the_same_again_touches_nothing(tmp_path):
    store = CandleStore(str(tmp_path))
    store.write(KEY, TABLE)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("[!.]*.*")}
    store.write(KEY, TABLE[20:50])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("[!.]*.*")} == before
    assert len(before) == 3


def test_bad_rows_never_reach_the_disk(tmp_path):
    store = CandleStore(str(tmp_path))
    store.write(KEY, TABLE[:50])
    with pytest.raises(CandleError):
        store.write(KEY, TABLE[50:].with_columns(high=pl.lit(0.5)))
    assert store.read(KEY).equals(TABLE[:50])


def test_damage_is_named(tmp_path):
    store = CandleStore(str(tmp_path))
    with pytest.raises(StoreError, match="no series sandbox ohlcv BTC/USDT 15m is stored"):
        store.read(KEY)
    store.write(KEY, TABLE)
    path = next(tmp_path.rglob("2024-02*.parquet"))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:-1] + b"\x00"):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match="half-written or changed by other hands"):
            store.read(KEY)
    path.unlink()
    with pytest.raises(StoreError, match="a data file that the manifest names is missing"):
        store.read(KEY)
    manifest = only_file(tmp_path, "manifest.json")
    whole_manifest = json.loads(manifest.read_text())
    manifest.write_text(manifest.read_text()[:20])
    with pytest.raises(StoreError, match="manifest is damaged"):
        store.read(KEY)
    manifest.write_text(json.dumps({"rows": 1}))
    with pytest.raises(StoreError, match="manifest is damaged"):
        store.manifest(KEY)
    body = {**whole_manifest, "parts": whole_manifest["parts"][:1]}
    manifest.write_text(json.dumps(body))
    with pytest.raises(StoreError, match="does not belong to the parts"):
        store.manifest(KEY)


# Kills itself just before the n-th call of one of the steps that a write is made of.
WRITER = """
import os, pathlib, signal, sys
import polars as pl
from pipelines.blobs import Blobs
from pipelines.store import CandleStore, SeriesKey

step, number = sys.argv[3], int(sys.argv[4])
steps = {"fsync": (os, "fsync"), "rename": (pathlib.Path, "replace"), "clean": (Blobs, "remove")}
owner, name = steps[step]
real, calls = getattr(owner, name), 0

def counted(*args, **kwargs):
    global calls
    calls += 1
    if calls == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)

setattr(owner, name, counted)
key = SeriesKey("sandbox", "ohlcv", "BTC/USDT", "15m")
CandleStore(sys.argv[1]).write(key, pl.read_parquet(sys.argv[2]))
"""
# Two months: sync, rename, sync of the folder each; the same for the manifest, whose rename is the commit; cleaning.
STEPS = [
    ("fsync", 1, False),
    ("rename", 1, False),
    ("fsync", 3, False),
    ("rename", 2, False),
    ("fsync", 5, False),
    ("rename", 3, False),
    ("fsync", 6, True),
    ("clean", 1, True),
    ("clean", 2, True),
]


@pytest.mark.parametrize(("step", "number", "committed"), STEPS)
def test_a_writer_killed_at_any_step_leaves_the_old_or_the_new_series(tmp_path, repo_root, step, number, committed):
    root, source = tmp_path / "store", tmp_path / "source.parquet"
    store = CandleStore(str(root))
    store.write(KEY, TABLE[:150])
    later = TABLE[50:].with_columns(volume=pl.lit(2.0))
    later.write_parquet(source)
    argv = [sys.executable, "-c", WRITER, str(root), str(source), step, str(number)]
    assert subprocess.run(argv, cwd=repo_root, timeout=60, check=False).returncode == -signal.SIGKILL
    assert store.read(KEY).equals(pl.concat([TABLE[:50], later]) if committed else TABLE[:150])
    assert store.mend(KEY, thorough=True) == ()
    # The next writer is not blocked, and clears what the killed one left.
    later = TABLE.with_columns(volume=pl.lit(1.0))
    store.write(KEY, later)
    assert store.read(KEY).equals(later)
    files = sorted(path.name for path in root.rglob("*") if path.is_file())
    assert files == sorted([".lock", "manifest.json", *(part.file for part in store.parts(KEY))])


def test_readers_never_see_a_half_replaced_series(tmp_path):
    store = CandleStore(str(tmp_path))
    versions = [TABLE.with_columns(volume=pl.lit(float(n))) for n in range(40)]
    store.write(KEY, versions[0])
    errors, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                assert store.read(KEY)["volume"].n_unique() == 1
            except Exception as error:  # noqa: BLE001 - handed to the main thread
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for version in versions:
        store.write(KEY, version)
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []


def test_two_writers_lose_nothing(tmp_path):
    halves = [list(range(0, 200, 20)), list(range(10, 200, 20))]

    def write(starts: list[int]) -> None:
        store = CandleStore(str(tmp_path))
        for start in starts:
            store.write(KEY, TABLE[start : start + 10])

    writers = [threading.Thread(target=write, args=(half,)) for half in halves]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert CandleStore(str(tmp_path)).read(KEY).equals(TABLE)


def test_keys_and_their_folders(tmp_path):
    store = CandleStore(str(tmp_path))
    funding = TABLE.select("timestamp", funding_rate=pl.lit(1e-4))[::32]
    keys = {
        KEY: TABLE,
        SeriesKey("binance", "mark", "BTC/USDT:USDT", "8h"): TABLE[::32].drop("volume"),
        SeriesKey("sandbox", "funding", "BTC/USDT"): funding,
        SeriesKey("file", "onchain", "BTC"): onchain([(0, 30, 1.0)]),
    }
    for key, table in keys.items():
        assert SeriesKey.of_folder(key.folder) == key
        store.write(key, table)
    assert store.keys() == tuple(sorted(keys))
    assert store.keys("funding") == (SeriesKey("sandbox", "funding", "BTC/USDT"),)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "manifest.json").write_text("{}")
    assert len(store.keys()) == 4


@pytest.mark.parametrize(
    "parts",
    [
        ("..", "ohlcv", "BTC/USDT", "15m"),
        ("sandbox", "trades", "BTC/USDT", "15m"),
        ("sandbox", "ohlcv", "../USDT", "15m"),
        ("sandbox", "ohlcv", "BTC/USDT", ""),
        ("sandbox", "funding", "BTC/USDT", "8h"),
        ("sandbox", "ohlcv", "", "15m"),
    ],
)
def test_names_that_could_leave_the_root_are_refused(parts):
    with pytest.raises(StoreError):
        SeriesKey(*parts)


def test_funding_and_onchain_rows_are_checked(tmp_path):
    store, key = CandleStore(str(tmp_path)), SeriesKey("x", "funding", "BTC/USDT")
    rates = TABLE.select("timestamp", funding_rate=pl.lit(float("nan")))
    with pytest.raises(StoreError, match="not finite"):
        store.write(key, rates)
    with pytest.raises(StoreError, match="before their time"):
        store.write(SeriesKey("file", "onchain", "BTC"), onchain([(0, -1, 1.0)]))


def test_both_versions_of_a_revised_day_are_kept(tmp_path):
    store, key = CandleStore(str(tmp_path)), SeriesKey("file", "onchain", "BTC")
    store.write(key, onchain([(0, 30, 1.0), (1, 30, 2.0)]))
    store.write(key, onchain([(0, 90, 1.5)]))
    assert store.read(key)["tx_count"].to_list() == [1.0, 1.5, 2.0]


def test_blobs_remove_what_is_gone_already(tmp_path):
    blobs = Blobs.at(str(tmp_path))
    blobs.remove("nothing.parquet")
    blobs.write("a/b.parquet", b"x")
    assert blobs.names(".parquet") == ["a/b.parquet"]
    blobs.remove("a/b.parquet")
    assert not blobs.exists("a/b.parquet")
    assert blobs.url == f"file://{tmp_path}"
