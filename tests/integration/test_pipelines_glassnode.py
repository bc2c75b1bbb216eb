"""Glassnode's API as its documentation and its own recorded answers show it, served on loopback; the client is real."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest
from typer.testing import CliRunner

from cluster.commands import data
from cluster.settings import Settings
from cluster.stages.data import data_spec, open_store
from cluster.stages.enrichment import enrichment_facts
from observability.errors import SecretError, SettingsError, SourceError
from observability.progress import NullProgress
from pipelines.adapters.glassnode import PATHS, GlassnodeWish, update_onchain
from pipelines.adapters.glassnode_client import Glassnode, Point, UnknownMetricError
from pipelines.enrich import enrich_onchain
from pipelines.frames import Enrichment, feature_frame
from pipelines.store import CandleStore, SeriesKey
from tests.unit.pipelines.pipelines_makers import START, Walk, candles

KEY = "2abcDEF-not-a-real-key"
DAY = 86_400_000
FIRST = 1_790_899_200_000  # of the recorded answer below
NOW = FIRST + 3 * DAY + 3_600_000
# As api.glassnode.com answered on /v1/metrics/addresses/active_count_pit?a=BTC&i=24h.
RECORDED = (
    '[{"t":1790899200,"v":729981,"computed_at":1790985731},{"t":1790985600,"v":631346,"computed_at":1791072134},'
    '{"t":1791072000,"v":555361,"computed_at":1791158538}]'
)
ACTIVE, ACTIVE_PIT = "/v1/metrics/addresses/active_count", "/v1/metrics/addresses/active_count_pit"
SERIES = SeriesKey("glassnode", "onchain", "BTC")
Answer = tuple[int, str, dict[str, str]]


@dataclass
class Api:
    """What the server says: `scripted` answers are used up first, then values by path; everything asked is kept."""

    values: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    scripted: list[Answer | None] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def answer(self, path: str, query: dict[str, str], key: str) -> Answer | None:
        self.asked.append((path, query))
        if self.scripted:
            return self.scripted.pop(0)
        if key != KEY:
            return 401, json.dumps({"message": f"invalid api key {key}"}), {}
        if path not in self.values:
            return 404, "metric not found", {}
        since, until = int(query["s"]), int(query["u"])
        return 200, json.dumps([row for row in self.values[path] if since <= row["t"] <= until]), self.headers


@pytest.fixture
def server() -> Iterator[tuple[Api, str]]:
    api = Api({ACTIVE_PIT: json.loads(RECORDED)})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            found = api.answer(url.path, query, self.headers.get("X-Api-Key", ""))
            if found is None:  # the connection breaks
                self.connection.close()
                return
            status, body, headers = found
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            return None

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield api, f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()
    thread.join()


def client(url: str, key: str = KEY, pauses: list[float] | None = None) -> Glassnode:
    slept = pauses if pauses is not None else []
    return Glassnode(key, url, attempts=4, first_wait_s=0.001, pause=slept.append)


def update(url: str, store: CandleStore, now: int = NOW, **wish: Any) -> Any:
    wanted = GlassnodeWish(**{"asset": "BTC", "metrics": ("active_addresses",), "since_ms": FIRST, **wish})
    return update_onchain(client(url), store, wanted, now, NullProgress())


def versions(store: CandleStore, column: str = "active_addresses") -> list[tuple[int, int, float]]:
    """(day, hours after FIRST from which on it counts, value)."""
    table = store.read(SERIES).drop_nulls(column).sort("timestamp", "available_at")
    days = (table["timestamp"].dt.timestamp("ms") - FIRST) // DAY
    hours = (table["available_at"].dt.timestamp("ms") - FIRST) // 3_600_000
    return list(zip(days, hours, table[column], strict=True))


def points(*values: float | None, start: int = FIRST) -> list[dict[str, Any]]:
    return [{"t": start // 1000 + i * 86_400, "v": value} for i, value in enumerate(values)]


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


OK: Answer = (200, RECORDED, {})
LIMIT = {"x-rate-limit-limit": "600", "x-rate-limit-remaining": "0", "x-rate-limit-reset": "37"}


@pytest.mark.parametrize(
    ("trouble", "least_pause"),
    [
        ((503, "upstream", {}), 0.0),
        ((500, "{}", {}), 0.0),
        ((429, '{"message":"too many requests"}', LIMIT), 37.0),
        ((429, "", {"retry-after": "5"}), 5.0),
        (None, 0.0),
    ],
    ids=["503", "500", "429 with reset", "429 with retry-after", "broken connection"],
)
def test_passing_trouble_is_waited_out(server, trouble, least_pause):
    api, url = server
    api.scripted = [trouble, OK]
    pauses: list[float] = []
    assert len(client(url, pauses=pauses).metric("addresses/active_count_pit", "BTC", "24h", FIRST, NOW)) == 3
    assert len(api.asked) == 2
    assert max(pauses) >= least_pause * 0.9


def test_a_limit_that_is_used_up_is_respected_before_it_is_hit(server):
    api, url = server
    api.headers = {**LIMIT, "x-rate-limit-reset": "12"}
    pauses: list[float] = []
    source = client(url, pauses=pauses)
    for _ in range(2):
        source.metric("addresses/active_count_pit", "BTC", "24h", FIRST, NOW)
    assert len(pauses) == 1
    assert 11 < pauses[0] <= 12


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, '{"message":"invalid api key"}', {}), "refuses the key: HTTP 401 invalid api key"),
        ((429, "", {"x-rate-limit-reset": "3600"}), "limit is used up for 3600 s"),
        ((302, "", {"location": "http://127.0.0.1:1/"}), "answers strangely: HTTP 302"),
        ((200, "<html>maintenance</html>", {}), "is no JSON: '<html>"),
        ((200, '[{"t":1790899200,"v":7299', {}), "is no JSON"),
        ((200, '{"data":[]}', {}), "is no list"),
        ((200, '[{"t":1790899200}]', {}), "no series of numbers"),
        ((200, '[{"t":1790899200,"v":{"o":1}}]', {}), "choose a scalar metric"),
        ((200, "[1,2]", {}), "no series of numbers"),
        ((200, '[{"t":1790899200,"v":NaN}]', {}), "not finite"),
        ((200, '[{"t":1790899201,"v":1}]', {}), "off the grid"),
        ((200, '[{"t":1790899200,"v":1},{"t":1790899200,"v":2}]', {}), "repeats a time"),
        ((200, '[{"t":1790899200,"v":1,"computed_at":1790899300}]', {}), "computed too early"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error_and_leaves_the_store_alone(server, tmp_path, answer, message):
    api, url = server
    store = CandleStore(str(tmp_path))
    update(url, store)
    before = store.manifest(SERIES)
    api.scripted = [answer]
    with pytest.raises(SourceError, match=message) as caught:
        update(url, store, NOW + 5 * DAY)
    assert "addresses/active_count_pit BTC 24h" in str(caught.value)
    assert KEY not in str(caught.value)
    assert store.manifest(SERIES) == before


def test_lasting_failures_unknown_metrics_and_nothing_at_all_are_named(server, tmp_path):
    api, url = server
    store = CandleStore(str(tmp_path))
    api.scripted = [(503, "down", {})] * 4
    with pytest.raises(SourceError, match="does not answer: HTTP 503 down"):
        update(url, store)
    assert len(api.asked) == 4
    for status in (400, 403, 404):
        api.scripted = [(status, "no", {}), (status, "no", {})]
        with pytest.raises(UnknownMetricError, match=f"no such series to this key: HTTP {status}"):
            update(url, store, metrics=("nothing/such",))
    api.values = {ACTIVE_PIT: []}
    with pytest.raises(SourceError, match="no value of any metric"):
        update(url, store)
    with pytest.raises(SourceError, match="does not answer: ConnectError"):
        client("http://127.0.0.1:9").metric("addresses/active_count", "BTC", "24h", FIRST, NOW)


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


def test_the_key_stays_secret(server):
    _, url = server
    with pytest.raises(SourceError, match=r"refuses the key: HTTP 401 invalid api key \*\*\*") as caught:
        client(url, "wrong-key").metric("addresses/active_count", "BTC", "24h", FIRST, NOW)
    assert "wrong-key" not in str(caught.value)
    with pytest.raises(SettingsError, match="unencrypted"):
        Glassnode(KEY, "http://example.com")
    with pytest.raises(SecretError, match="other characters"):
        Glassnode("two\nlines", url)
    for path, resolution in (("../v1/user", "24h"), ("addresses/active_count", "1month")):
        with pytest.raises(SettingsError, match="resolutions are"):
            client(url).metric(path, "BTC", resolution, FIRST, NOW)
