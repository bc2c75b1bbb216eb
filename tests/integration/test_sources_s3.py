"""The same store on an object store: merging, spans, a killed writer, and mending, on an S3 server of its own."""

from __future__ import annotations

import subprocess
import sys
import uuid

import polars as pl
import pytest

from pipelines.blobs import Blobs
from pipelines.store import CandleStore, SeriesKey
from tests.unit.pipelines.pipelines_makers import Walk, candles

pytestmark = pytest.mark.slow
KEY = SeriesKey("sandbox", "ohlcv", "BTC/USDT", "15m")
TABLE = candles(Walk(seed=1, rows=200)).with_columns(pl.col("timestamp") + pl.duration(days=30))

WRITER = """
import os, signal, sys
import polars as pl
from pipelines.blobs import Blobs
from pipelines.store import CandleStore, SeriesKey

real, calls = Blobs.write, 0

def counted(self, name, data):
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, name, data)

Blobs.write = counted
CandleStore(sys.argv[1]).write(SeriesKey("sandbox", "ohlcv", "BTC/USDT", "15m"), pl.read_parquet(sys.argv[2]))
"""


@pytest.fixture
def store(bucket: str) -> CandleStore:
    return CandleStore(f"{bucket}/{uuid.uuid4().hex[:8]}")


def test_a_series_is_merged_read_and_named_as_on_a_disk(store, tmp_path):
    local = CandleStore(str(tmp_path)).write(KEY, TABLE)
    assert not store.exists(KEY)
    store.write(KEY, TABLE[:120])
    assert store.write(KEY, TABLE[80:]) == local
    assert store.keys() == (KEY,)
    assert store.read(KEY).equals(TABLE)
    assert store.read(KEY, since_ms=store.parts(KEY)[1].start_ms).equals(TABLE[96:])
    assert store.write(KEY, TABLE[5:9]) == local


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_writer_killed_before_any_put_leaves_the_old_series(store, tmp_path, repo_root, call):
    store.write(KEY, TABLE[:150])
    later = TABLE[50:].with_columns(volume=pl.lit(2.0))
    later.write_parquet(tmp_path / "new.parquet")
    argv = [sys.executable, "-c", WRITER, store.root, str(tmp_path / "new.parquet"), str(call)]
    assert subprocess.run(argv, cwd=repo_root, timeout=60, check=False).returncode < 0
    assert store.read(KEY).equals(TABLE[:150])
    assert store.mend(KEY, thorough=True) == ()
    store.write(KEY, later)
    assert store.read(KEY).equals(pl.concat([TABLE[:50], later]))
    named = {f"{KEY.folder}/{part.file}" for part in store.parts(KEY)}
    assert set(Blobs.at(store.root).names(".parquet")) == named, "orphans are left"


def test_damage_is_set_aside_and_fetched_again(store):
    whole = store.write(KEY, TABLE)
    blobs = Blobs.at(store.root)
    name = f"{KEY.folder}/{whole.parts[0].file}"
    blobs.write(name, blobs.read(name)[:100])
    assert len(store.mend(KEY)) == 1
    assert blobs.exists(name + ".damaged")
    assert store.read(KEY).equals(TABLE[96:])
    assert store.write(KEY, TABLE[:96]).content_hash == whole.content_hash
