"""From the sandbox exchange by unmodified ccxt into the store, and from there to features on a real Ray cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest
from typer.testing import CliRunner

from cluster.commands import data as command
from cluster.ray_local import ray_session
from cluster.settings import Settings
from cluster.stages import data as stage
from cluster.stages import enrichment
from cluster.stages.exchange import start_exchange
from observability.errors import ClusterError, SpecError, StoreError
from observability.metrics import Meters
from observability.priority import BACKGROUND
from observability.progress import NullProgress
from pipelines.adapters.ray_features import build_features, standing
from pipelines.frames import read_enrichment, read_features, read_spec, training_frame
from pipelines.spec import default_spec
from pipelines.store import CandleStore, SeriesKey
from tests.unit.pipelines.pipelines_makers import Walk, candles

PAIRS = ("BTC/USDT", "ETH/USDT")
QUIET = NullProgress()
DAY_MS = 86_400_000


def settings_at(root: Path) -> Settings:
    settings = Settings().changed(
        workspace={"root": root}, market={"pairs": PAIRS, "history_days": 12.0, "trading_days": 1.0}
    )
    settings.workspace.make()
    return settings


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Settings:
    """A workspace that was filled from the sandbox exchange."""
    settings = settings_at(tmp_path_factory.mktemp("pipelines"))
    running = start_exchange(settings, QUIET)
    try:
        meters = Meters("pipeline")
        summary = stage.backfill(settings, QUIET, base_url=running.url, meters=meters)
        again = stage.backfill(settings, QUIET)
    finally:
        running.stop()
    assert {item.pair: item.rows for item in summary.series if item.kind == "ohlcv"} == dict.fromkeys(PAIRS, 12 * 96)
    assert [item.new_rows for item in again.series] == [0] * 4
    counted = {"exchange": "sandbox", "kind": "ohlcv", "pair": "BTC/USDT"}
    assert meters.value("mtst_candles_stored_total", **counted) == 12 * 96
    assert 0 <= (meters.value("mtst_data_age_seconds", pair="BTC/USDT") or 0) < 900
    # T0 is the exchange's present: nothing after it was to be had.
    store = stage.open_store(settings)
    for pair in PAIRS:
        assert store.manifest(SeriesKey("sandbox", "ohlcv", pair, "15m")).end_ms + 900_000 <= running.open_ms
    return settings


@pytest.fixture(scope="module")
def ray(filled) -> Iterator[None]:
    with ray_session(filled.changed(cluster={"num_cpus": 2, "dashboard": False})):
        yield


def test_features_without_ray_say_so(tmp_path):
    store, spec = CandleStore(str(tmp_path / "raw")), default_spec(PAIRS[:1], "15m")
    store.write(SeriesKey("x", "ohlcv", PAIRS[0], "15m"), candles(Walk(seed=1, rows=300)))
    with pytest.raises(ClusterError, match="Ray is not running"):
        build_features(str(tmp_path / "raw"), "x", spec, str(tmp_path / "out"), QUIET)


@pytest.mark.slow
def test_features_on_ray_equal_the_plain_function_and_are_reused(filled, ray):
    summary = stage.build(filled, QUIET)
    spec, store = read_spec(summary.path), stage.open_store(filled)
    assert spec == stage.data_spec(filled)
    assert (summary.rows, summary.pairs, summary.reused, summary.spec_hash) == (2 * 12 * 96, 2, 0, spec.hash)
    for facts in summary.files:
        frame = read_features(summary.path, facts.pair)
        assert frame.columns == ["timestamp", "close", *spec.columns, *spec.labels, "next_open"]
        source = store.read(SeriesKey("sandbox", "ohlcv", facts.pair, "15m"))
        assert frame.equals(training_frame(source, spec, read_enrichment(store, spec, "sandbox", facts.pair)))
        assert facts.complete == frame.drop_nulls().height > 500
    assert stage.build(filled, QUIET).reused == 2


@pytest.mark.slow
def test_who_builds_features_yields_to_trading_and_nobody_else_does(filled, ray, tmp_path):
    import ray as ray_api

    settings = settings_at(tmp_path)
    stage.open_store(settings).write(
        key := SeriesKey("sandbox", "ohlcv", PAIRS[0], "15m"), stage.open_store(filled).read(key)
    )
    stage.build(settings.changed(market={"pairs": PAIRS[:1]}), QUIET)
    own = psutil.Process().nice()
    builders = [each for each in psutil.Process().children(recursive=True) if each.environ().get("POLARS_MAX_THREADS")]
    assert {each.nice() for each in builders} == {min(19, own + BACKGROUND)}
    plain = ray_api.remote(num_cpus=0)(lambda: psutil.Process().nice())
    assert set(ray_api.get([plain.remote() for _ in range(6)])) == {own}, "none of theirs is given to others"


@pytest.mark.slow
def test_only_what_changed_is_built_again(filled, ray, tmp_path):
    settings = settings_at(tmp_path)
    store, source = stage.open_store(settings), stage.open_store(filled)
    keys = {pair: SeriesKey("sandbox", "ohlcv", pair, "15m") for pair in PAIRS}
    for key in keys.values():
        store.write(key, source.read(key)[:900])
    first = stage.build(settings, QUIET)
    store.write(keys["ETH/USDT"], source.read(keys["ETH/USDT"]))
    assert [facts.reused for facts in stage.build(settings, QUIET).files] == [True, False]
    (damaged,) = (Path(first.path) / "BTC_USDT").glob("*.parquet")
    damaged.write_bytes(damaged.read_bytes()[:100])
    mended = stage.build(settings, QUIET)
    assert [facts.reused for facts in mended.files] == [False, True]
    assert mended.files[0].file_hash == first.files[0].file_hash


@pytest.mark.slow
def test_errors_come_back_from_workers_as_ours(ray, tmp_path):
    store, spec = CandleStore(str(tmp_path / "raw")), default_spec(PAIRS, "15m", lookback=8)
    keys = [SeriesKey("sandbox", "ohlcv", pair, "15m") for pair in PAIRS]
    roots = (str(tmp_path / "raw"), "sandbox", spec, str(tmp_path / "features"))
    store.write(keys[0], candles(Walk(seed=1, rows=300)))
    with pytest.raises(StoreError, match="no series sandbox ohlcv ETH/USDT 15m"):
        build_features(*roots, QUIET)
    store.write(keys[1], candles(Walk(seed=2, rows=50)))
    with pytest.raises(SpecError, match=r"no row of \['ETH/USDT'\] has every feature"):
        build_features(*roots, QUIET)
    store.write(keys[1], candles(Walk(seed=2, rows=300)))
    (path,) = (tmp_path / "raw/sandbox/ohlcv/ETH_USDT/15m").glob("*.parquet")
    path.write_bytes(b"half")
    with pytest.raises(StoreError, match="half-written"):
        build_features(*roots, QUIET)
    assert not standing(*roots).is_current


def test_commands_print_tables_and_json(filled):
    runner = CliRunner()
    shown = runner.invoke(command.app, ["inspect", "--json"], obj=filled)
    series = json.loads(shown.stdout)["series"]
    assert {(item["kind"], item["pair"]) for item in series} == {(k, p) for k in ("ohlcv", "funding") for p in PAIRS}
    assert all(item["report"]["coverage"] == 1.0 for item in series if item["kind"] == "ohlcv")
    assert "100.00%" in runner.invoke(command.app, ["inspect"], obj=filled, env={"COLUMNS": "200"}).stdout
    assert "No on-chain files found" in runner.invoke(command.app, ["enrich"], obj=filled).stdout


@pytest.mark.realdata
def test_onchain_files_are_found_beside_the_replay(filled, shared_data, tmp_path):
    settings = settings_at(tmp_path).changed(market={"replay": shared_data / "market" / "binance"})
    summary = enrichment.enrich(settings, QUIET)
    assert [item.asset for item in summary.imported] == ["BTC"]
    assert "when a row became available" in summary.skipped[0]
    store, walk = stage.open_store(settings), pl.read_parquet(shared_data / "market/binance/BTC_USDT-15m.parquet")
    for pair in PAIRS:
        store.write(SeriesKey("sandbox", "ohlcv", pair, "15m"), walk[-1000:])
    assert stage.data_spec(settings).sources == {"onchain"}
    assert stage.data_spec(settings, onchain=False).sources == frozenset()
