"""A Glassnode that fails, limits, refuses or answers nonsense: waited for, or told in one sentence without the key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from observability.errors import SecretError, SettingsError, SourceError
from pipelines.adapters.glassnode_client import Glassnode, UnknownMetricError
from pipelines.store import CandleStore
from tests.integration.glassnode_kit import (
    ACTIVE_PIT,
    DAY,
    FIRST,
    KEY,
    NOW,
    RECORDED,
    SERIES,
    Answer,
    Api,
    client,
    glassnode_server,
    update,
)

OK: Answer = (200, RECORDED, {})
LIMIT = {"x-rate-limit-limit": "600", "x-rate-limit-remaining": "0", "x-rate-limit-reset": "37"}


@pytest.fixture
def server() -> Iterator[tuple[Api, str]]:
    with glassnode_server() as found:
        yield found


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
