"""What of Glassnode's answers is stored, from when on each value counts, and the command that asks for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from cluster.commands import data
from cluster.settings import Settings
from cluster.stages.data import data_spec, open_store
from cluster.stages.enrichment import enrichment_facts
from observability.errors import SecretError, SourceError
from pipelines.adapters.glassnode import PATHS
from pipelines.adapters.glassnode_client import Point
from pipelines.enrich import enrich_onchain
from pipelines.frames import Enrichment, feature_frame
from pipelines.store import CandleStore, SeriesKey
from tests.integration.glassnode_kit import (
    ACTIVE,
    ACTIVE_PIT,
    DAY,
    FIRST,
    KEY,
    NOW,
    SERIES,
    Api,
    client,
    glassnode_server,
    points,
    update,
    versions,
)
from tests.unit.pipelines.pipelines_makers import START, Walk, candles


@pytest.fixture
def server() -> Iterator[tuple[Api, str]]:
    with glassnode_server() as found:
        yield found


def test_a_recorded_answer_becomes_points_and_the_request_is_as_documented(server):
    api, url = server
    found = client(url).metric("addresses/active_count_pit", "BTC", "24h", FIRST, NOW)
    assert found[0] == Point(FIRST, 729981.0, 1_790_985_731_000)
    assert [point.value for point in found] == [729981, 631346, 555361]
    ((path, query),) = api.asked
    assert path == ACTIVE_PIT
    assert query == {"a": "BTC", "i": "24h", "s": "1790899200", "u": "1791162000", "f": "json"}


def test_an_interval_that_has_not_ended_is_left_out(server):
    api, url = server
    api.values[ACTIVE] = points(1, 2, 3, 4)
    assert [p.value for p in client(url).metric("addresses/active_count", "BTC", "24h", FIRST, NOW)] == [1, 2, 3]


def test_point_in_time_values_count_from_when_they_were_computed(server, tmp_path):
    _, url = server
    store = CandleStore(str(tmp_path))
    summary = update(url, store)
    assert (summary.source, summary.rows, summary.assumed) == ("glassnode", 3, 0)
    assert "active_addresses: point in time, 3 new" in summary.note
    first = store.read(SERIES).row(0, named=True)
    assert first["available_at"].timestamp() == 1_790_985_731
    walk = pl.DataFrame(
        {"timestamp": [FIRST + DAY + minutes * 60_000 for minutes in (-15, 0, 15)], "close": [1.0] * 3}
    ).with_columns(pl.col("timestamp").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC"))
    # Computed 2 min 11 s after midnight: the candle that closes at midnight does not know it.
    assert enrich_onchain(walk, store.read(SERIES), timeframe="15m")["active_addresses"].to_list() == [
        None,
        729981,
        729981,
    ]


def test_what_is_stored_and_complete_is_not_asked_for_again(server, tmp_path):
    api, url = server
    store = CandleStore(str(tmp_path))
    update(url, store)
    assert update(url, store).rows == 3
    assert len(api.asked) == 1
    api.values[ACTIVE_PIT].append(
        {"t": FIRST // 1000 + 3 * 86_400, "v": 7, "computed_at": FIRST // 1000 + 4 * 86_400 + 60}
    )
    assert update(url, store, NOW + DAY).rows == 4
    assert api.asked[-1][1]["s"] == str(FIRST // 1000 + 2 * 86_400), "only what is newer"
    update(url, store, NOW + DAY, since_ms=FIRST - 5 * DAY)
    assert api.asked[-1][1]["s"] == str(FIRST // 1000 - 5 * 86_400), "more history is another wish"
    asked = len(api.asked)
    update(url, store, NOW + DAY, since_ms=FIRST - 5 * DAY)
    assert len(api.asked) == asked, "and is granted once, even where there is none"


def test_without_point_in_time_values_history_has_a_declared_delay_and_what_we_see_its_own_time(server, tmp_path):
    api, url = server
    api.values = {ACTIVE: points(10, 11, 12)}
    store = CandleStore(str(tmp_path))
    summary = update(url, store, delay=timedelta(hours=24))
    # Days 0 and 1 are history, known for certain a day after their end; day 2 ended an hour ago and is here now.
    assert versions(store) == [(0, 48, 10), (1, 72, 11), (2, 73, 12)]
    assert (summary.assumed, "declared delay" in summary.note) == (2, True)
    assert [path for path, _ in api.asked] == [ACTIVE_PIT, ACTIVE]
    # Next day: day 1 was revised, day 3 is new, nothing else is a new row. The missing variant is not asked for again.
    api.values = {ACTIVE: points(10, 99, 12, 13)}
    later = update(url, store, NOW + DAY, delay=timedelta(hours=24))
    assert versions(store) == [(0, 48, 10), (1, 72, 11), (1, 97, 99), (2, 73, 12), (3, 97, 13)]
    assert (later.assumed, [path for path, _ in api.asked]) == (2, [ACTIVE_PIT, ACTIVE, ACTIVE])


def test_a_value_that_comes_late_counts_from_when_it_came(server, tmp_path):
    api, url = server
    api.values = {ACTIVE: points(10, None, 12)}
    store = CandleStore(str(tmp_path))
    update(url, store)
    api.values = {ACTIVE: points(10, 11, 12, 13)}
    update(url, store, NOW + DAY)
    assert (1, 97, 11) in versions(store)


def test_several_metrics_share_a_table_and_own_paths_can_be_named(server, tmp_path):
    api, url = server
    api.values["/v1/metrics/indicators/sopr"] = points(1.01, 0.99, 1.0)
    store = CandleStore(str(tmp_path))
    summary = update(url, store, metrics=("active_addresses", "indicators/sopr"))
    assert set(summary.metrics) == {"active_addresses", "indicators_sopr"}
    assert len(versions(store)) == len(versions(store, "indicators_sopr")) == 3


def test_hourly_values_and_another_resolution_of_the_same_series(server, tmp_path):
    api, url = server
    hours = [{"t": FIRST // 1000 + i * 3600, "v": i} for i in range(72)]
    api.values = {"/v1/metrics/indicators/sopr": hours}
    store = CandleStore(str(tmp_path))
    wish = {"metrics": ("indicators/sopr",), "resolution": "1h", "delay": timedelta(hours=1)}
    assert update(url, store, **wish).rows == 72
    with pytest.raises(SourceError, match="stored at 1h, not 24h"):
        update(url, store, metrics=("indicators/sopr",))


def command(settings: Settings, *words: str) -> Any:
    done = CliRunner().invoke(data.app, ["enrich", *words], obj=settings)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_the_command_asks_with_a_key_file_and_the_card_tells_what_a_model_saw(server, tmp_path):
    api, url = server
    now, days = int(time.time()) // 86_400 * 86_400, 40
    api.values = {
        f"/v1/metrics/{PATHS[name]}": [{"t": now - (days - i) * 86_400, "v": 5 + i} for i in range(days)]
        for name in ("active_addresses", "tx_count", "hash_rate", "mvrv", "exchange_inflow", "exchange_outflow")
    }
    pairs = ("BTC/USDT", "ETH/USDT")
    settings = Settings().changed(
        workspace={"root": tmp_path},
        market={"pairs": pairs, "history_days": 20.0, "onchain_asset": "glassnode:BTC"},
        glassnode={"url": url},
    )
    assert "No on-chain files found, and no Glassnode key" in command(settings)
    assert not api.asked, "without a key nothing is asked"
    key = tmp_path / "glassnode.key"
    key.write_text(KEY + "\n")
    key.chmod(0o644)
    with pytest.raises(SecretError, match="others can read the file with Glassnode's key"):
        command(settings, "--glassnode-key", str(key))
    key.chmod(0o600)
    told = command(settings, "--glassnode-key", str(key))
    assert f"glassnode BTC: {days} rows" in told
    assert "with an assumed time of publication" in told
    assert "hash_rate: declared delay, 40 new" in told
    assert not [file for file in tmp_path.rglob("*.json") if KEY in file.read_text()]

    walk = candles(Walk(seed=1, rows=96 * 10)).with_columns(
        pl.col("timestamp") - timedelta(milliseconds=START) + timedelta(seconds=now - 10 * 86_400)
    )
    for pair in pairs:
        open_store(settings).write(SeriesKey("sandbox", "ohlcv", pair, "15m"), walk)
    spec = data_spec(settings)
    assert spec.sources == {"onchain"}
    facts = enrichment_facts(settings, spec)
    assert facts["funding"] == facts["mark"] == {"status": "absent"}
    assert facts["onchain"]["status"] == "present"
    assert facts["onchain"]["series"] == ["glassnode onchain BTC"]
    assert facts["onchain"]["assumed"] > 0.9
    frame = feature_frame(walk, spec, Enrichment(onchain=open_store(settings).read(SERIES)))
    assert frame["onchain_change_hash_rate"].null_count() == 0
