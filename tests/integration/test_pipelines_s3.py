"""The same build on an object store: candles and features in buckets of a real S3 protocol server on loopback."""

from __future__ import annotations

import polars as pl
import pytest

from cluster.ray_local import ray_session
from cluster.settings import Settings
from observability.progress import NullProgress
from pipelines.adapters.ray_features import build_features, standing
from pipelines.frames import Enrichment, read_features, read_spec, training_frame
from pipelines.spec import default_spec
from pipelines.store import CandleStore, SeriesKey
from tests.unit.pipelines.pipelines_makers import STEP, Walk, candles

pytestmark = pytest.mark.slow
PAIRS = ("BTC/USDT", "ETH/USDT")


def test_candles_and_features_live_in_buckets(bucket, tmp_path):
    raw, out, spec = f"{bucket}/raw", f"{bucket}/features", default_spec(PAIRS, "15m")
    store = CandleStore(raw)
    for number, pair in enumerate(PAIRS):
        table = candles(Walk(seed=number, rows=2_000)).with_columns(
            pl.col("timestamp") - pl.duration(milliseconds=1_000 * STEP)
        )
        store.write(SeriesKey("x", "ohlcv", pair, "15m"), table)
    settings = Settings().changed(workspace={"root": tmp_path}, cluster={"num_cpus": 2, "dashboard": False})
    settings.workspace.make()
    with ray_session(settings):
        first = build_features(raw, "x", spec, out, NullProgress())
        again = build_features(raw, "x", spec, out, NullProgress())
    assert (first.rows, len(first.files), first.reused, again.reused) == (4_000, 4, 0, 4)
    assert standing(raw, "x", spec, out).is_current
    assert read_spec(f"{out}/{spec.hash}") == spec
    for pair in PAIRS:
        source = store.read(SeriesKey("x", "ohlcv", pair, "15m"))
        assert read_features(f"{out}/{spec.hash}", pair).equals(training_frame(source, spec, Enrichment()))
