"""A backfill by fetchers on the nodes of a real Ray cluster: the same content, and lost nodes are told."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from cluster.ray_local import ray_session
from cluster.settings import Settings
from cluster.stages import data as stage
from cluster.stages.exchange import RunningExchange, start_exchange
from observability.errors import ClusterError, SourceError
from observability.progress import NullProgress
from pipelines.adapters.exchange import NodeFetchers
from pipelines.backfill import Job, Want
from pipelines.store import SeriesKey

pytestmark = pytest.mark.slow
QUIET, PAIRS = NullProgress(), ("BTC/USDT", "ETH/USDT")


def settings_at(root) -> Settings:
    market = {"pairs": PAIRS, "history_days": 60.0, "trading_days": 1.0}
    return Settings().changed(workspace={"root": root}, market=market, cluster={"num_cpus": 2, "dashboard": False})


@pytest.fixture(scope="module")
def exchange(tmp_path_factory) -> Iterator[RunningExchange]:
    running = start_exchange(settings_at(tmp_path_factory.mktemp("exchange")), QUIET)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def ray(tmp_path_factory) -> Iterator[None]:
    with ray_session(settings_at(tmp_path_factory.mktemp("ray"))):
        yield


def test_nodes_fetch_what_threads_fetch(exchange, ray, tmp_path):
    here, there = settings_at(tmp_path / "here"), settings_at(tmp_path / "there")
    alone = stage.backfill(here, QUIET, base_url=exchange.url)
    spread = stage.backfill(there, QUIET, base_url=exchange.url, on_nodes=True)
    assert [item.content_hash for item in spread.series] == [item.content_hash for item in alone.series]
    assert spread.rows == 2 * 60 * 96
    assert spread.requests >= alone.requests - 8


def test_errors_of_a_node_arrive_as_they_are(exchange, ray, tmp_path):
    with contextlib.closing(exchange.client()) as control:
        control.plan_fault(kind="error", path="/api/v3/klines", status=400, code=-1100, count=0)
        with pytest.raises(SourceError, match="2 of 4 series failed, 2 are complete"):
            stage.backfill(settings_at(tmp_path), QUIET, base_url=exchange.url, on_nodes=True)
        control.clear_faults()


def test_a_cluster_whose_nodes_are_lost_is_told(exchange, ray):
    fetchers = NodeFetchers("sandbox", exchange.url)
    fetchers.close()
    want = Want(SeriesKey("sandbox", "ohlcv", "BTC/USDT", "15m"), "BTC/USDT", 900_000, 0, exchange.open_ms)
    with pytest.raises(ClusterError, match="every node that fetched is lost"):
        list(fetchers([Job(want, exchange.first_ms, exchange.open_ms)]))
