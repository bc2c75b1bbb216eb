"""Backfill with unmodified ccxt against a small HTTP server that speaks Binance's public endpoints."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import ccxt
import pytest

from observability.errors import SourceError
from observability.progress import NullProgress
from pipelines.adapters.exchange import ExchangeSource, assert_only, backfill, binance_urls, open_exchange
from pipelines.backfill_summary import explain
from pipelines.rate_limit import RateLimit
from pipelines.store import CandleStore, SeriesKey

STEP = 900_000
START = 1_704_067_200_000  # 2024-01-01
ROWS = 2_500
NOW = START + ROWS * STEP + 60_000  # one minute into candle 2,500, which is still open
KEY = SeriesKey("sandbox", "ohlcv", "BTC/USDT", "15m")
FUNDING = SeriesKey("sandbox", "funding", "BTC/USDT")


def symbol_info(base: str, **more: Any) -> dict[str, Any]:
    filters = [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"},
    ]
    assets = {"symbol": f"{base}USDT", "baseAsset": base, "quoteAsset": "USDT"}
    return {**assets, "status": "TRADING", "filters": filters, "isSpotTradingAllowed": True, "permissions": [], **more}


@dataclass
class Binance:
    """What the server knows: candle i opens at START + i * STEP; some candles may be absent."""

    absent: frozenset[int] = frozenset()
    failures: int = 0
    price_offset: int = 0
    time_offset: int = 0
    time_unit: int = 1
    now: int = NOW
    start: int = START
    hits: Counter[str] = field(default_factory=Counter)

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        self.hits[path] += 1
        start, limit = int(query.get("startTime", 0)), int(query.get("limit", 500))
        if path == "/api/v3/klines" and self.failures:
            self.failures -= 1
            return 503, {"code": -1001, "msg": "Internal error; unable to process your request."}
        answers: dict[str, Any] = {
            "/api/v3/time": {"serverTime": self.now},
            "/api/v3/exchangeInfo": {"symbols": [symbol_info("BTC"), symbol_info("ETH")]},
            "/fapi/v1/exchangeInfo": {
                "symbols": [
                    symbol_info(
                        "BTC", marginAsset="USDT", contractType="PERPETUAL", deliveryDate=4133404800000, pair="BTCUSDT"
                    )
                ]
            },
            "/dapi/v1/exchangeInfo": {"symbols": []},
        }
        if path in answers:
            return 200, answers[path]
        if path in ("/api/v3/klines", "/fapi/v1/markPriceKlines"):
            first = max(0, -(-(start - self.start) // STEP))
            rows = [i for i in range(first, ROWS + 1) if i not in self.absent][:limit]
            return 200, [self.kline(i) for i in rows]
        if path == "/fapi/v1/fundingRate":
            # Real settlements are stamped some milliseconds late.
            times = (START + i * 8 * 3_600_000 + 3 for i in range(ROWS // 32))
            rates = [{"symbol": "BTCUSDT", "fundingTime": t, "fundingRate": "0.00010000"} for t in times if t >= start]
            return 200, rates[:limit]
        return 404, {"code": -1100, "msg": path}

    def kline(self, i: int) -> list[Any]:
        price = 100 + i % 7 + self.price_offset
        fields = [str(price), str(price + 2), str(price - 1), str(price + 1), str(10 + i)]
        opens = (self.start + i * STEP + self.time_offset) // self.time_unit
        return [opens, *fields, self.start + (i + 1) * STEP - 1, "0", 1, "0", "0", "0"]


@pytest.fixture
def exchange() -> Iterator[tuple[Binance, str]]:
    binance = Binance()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            status, body = binance.answer(url.path, {k: v[0] for k, v in parse_qs(url.query).items()})
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield binance, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def fill(url: str, store: CandleStore, since: int = START, until: int = NOW, pairs: tuple[str, ...] = ("BTC/USDT",)):
    source = open_exchange("sandbox", url, wait_s=0.01)
    return backfill(
        source, store, pairs, "15m", since_ms=since, until_ms=until, progress=NullProgress(), kinds=("ohlcv", "funding")
    )


def test_all_pages_arrive_and_the_open_candle_does_not(exchange, tmp_path):
    binance, url = exchange
    store = CandleStore(str(tmp_path))
    summary = fill(url, store, until=NOW + 10 * STEP)
    candles = store.read(KEY)
    assert candles.height == ROWS
    assert candles["timestamp"].dt.timestamp("ms").to_list() == [START + i * STEP for i in range(ROWS)]
    assert candles["volume"][ROWS - 1] == 10 + ROWS - 1
    assert binance.hits["/api/v3/klines"] == 3
    assert summary.rows == ROWS
    assert summary.until_ms == NOW
    assert store.read(FUNDING).height == ROWS // 32


def test_a_second_run_fetches_only_what_is_new(exchange, tmp_path):
    binance, url = exchange
    store = CandleStore(str(tmp_path))
    fill(url, store, since=START + 1000 * STEP, until=START + 1500 * STEP)
    assert (store.manifest(KEY).start_ms, store.manifest(KEY).rows) == (START + 1000 * STEP, 500)
    fill(url, store)
    assert store.manifest(KEY).rows == ROWS
    before = binance.hits["/api/v3/klines"]
    again = fill(url, store)
    # One look at the last stored candle: is it still the same market?
    assert binance.hits["/api/v3/klines"] == before + 1
    assert [item.new_rows for item in again.series if item.kind == "ohlcv"] == [0]


def test_another_market_under_the_same_name_is_refused(exchange, tmp_path):
    binance, url = exchange
    store = CandleStore(str(tmp_path))
    fill(url, store, until=START + 500 * STEP)
    binance.price_offset = 5
    with pytest.raises(SourceError, match="in the store and"):
        fill(url, store)
    assert store.manifest(KEY).rows == 500


def test_stored_rows_from_the_exchanges_future_are_refused(exchange, tmp_path):
    binance, url = exchange
    store = CandleStore(str(tmp_path))
    fill(url, store)
    binance.now = START + 1000 * STEP
    with pytest.raises(SourceError, match="after the exchange's present"):
        fill(url, store)


def test_the_exchanges_own_gap_is_reported_and_crossed(exchange, tmp_path):
    binance, url = exchange
    binance.absent = frozenset(range(700, 1900))
    summary = fill(url, CandleStore(str(tmp_path)))
    assert summary.series[0].missing == 1200
    assert summary.series[0].rows == ROWS - 1200


def test_passing_failures_are_retried_and_lasting_ones_named(exchange, tmp_path):
    binance, url = exchange
    binance.failures = 3
    assert fill(url, CandleStore(str(tmp_path / "a"))).rows == ROWS
    binance.failures = 10**6
    with pytest.raises(SourceError, match="BTC/USDT 15m 2024-01-01T00:00:00Z"):
        fill(url, CandleStore(str(tmp_path / "b")))


def test_a_pair_without_perpetual_leaves_a_note(exchange, tmp_path):
    _, url = exchange
    summary = fill(url, CandleStore(str(tmp_path)), pairs=("ETH/USDT",))
    funding = next(item for item in summary.series if item.kind == "funding")
    assert "offers no funding" in funding.note
    assert summary.series[0].rows == ROWS


def test_unknown_pairs_and_empty_spans_are_refused(exchange, tmp_path):
    _, url = exchange
    with pytest.raises(SourceError, match="offers no NOPE/USDT"):
        fill(url, CandleStore(str(tmp_path)), pairs=("NOPE/USDT",))
    with pytest.raises(SourceError, match="nothing to fetch"):
        fill(url, CandleStore(str(tmp_path)), since=NOW + 1)


def test_times_of_another_zone_are_one_clear_error_and_nothing_is_stored(exchange, tmp_path):
    binance, url = exchange
    binance.time_offset = 7 * 60_000
    with pytest.raises(
        SourceError, match=r"all 1000 candles from 2024-01-01T00:07:00Z on are wrong: 1000 off grid"
    ) as at:
        fill(url, CandleStore(str(tmp_path)))
    assert "sandbox ohlcv BTC/USDT 15m" in str(at.value)
    assert not CandleStore(str(tmp_path)).exists(KEY)


def test_times_in_seconds_store_nothing_in_the_year_1970(exchange, tmp_path):
    binance, url = exchange
    binance.time_unit = 1000
    store = CandleStore(str(tmp_path))
    # ccxt itself drops rows before the time that was asked for.
    assert "sandbox has no rows then of BTC/USDT 15m." in explain(fill(url, store))
    assert not store.exists(KEY)


def test_a_pair_without_a_single_candle_is_said_and_stored_as_nothing(exchange, tmp_path):
    binance, url = exchange
    binance.absent = frozenset(range(ROWS + 1))
    store = CandleStore(str(tmp_path))
    summary = fill(url, store)
    assert "sandbox has no rows then of BTC/USDT 15m." in explain(summary)
    assert summary.rows == 0
    assert not store.exists(KEY)


def real_exchange(url: str) -> ExchangeSource:
    """Not called sandbox: an exchange whose clock can be compared with the machine's."""
    urls = binance_urls(url)
    return ExchangeSource("binance", lambda: ccxt.binance({"urls": {"api": urls}}), RateLimit(0.0))


@pytest.mark.parametrize(
    ("ahead_ms", "words"), [(3_600_000, "behind the exchange's"), (-3_600_000, "ahead of the exch")]
)
def test_where_the_clocks_differ_only_what_both_call_closed_is_stored(exchange, tmp_path, ahead_ms, words):
    binance, url = exchange
    here = int(time.time() * 1000)
    binance.now = here + ahead_ms
    binance.start = here // STEP * STEP - (ROWS - 8) * STEP  # eight candles of it lie in this machine's future
    store, source = CandleStore(str(tmp_path)), real_exchange(url)
    span = {"since_ms": here - 20 * 86_400_000, "until_ms": here + 86_400_000}
    summary = backfill(source, store, ["BTC/USDT"], "15m", progress=NullProgress(), kinds=("ohlcv",), **span)
    assert summary.clock_skew_ms == pytest.approx(ahead_ms, abs=5_000)
    newest = store.manifest(SeriesKey("binance", "ohlcv", "BTC/USDT", "15m")).end_ms
    assert newest + STEP <= min(here + 5_000, here + ahead_ms + 5_000)
    assert newest + 2 * STEP > min(here, here + ahead_ms)
    assert re.search(rf"clock is 3[56]\d\d\.\d s {words}", " ".join(explain(summary)))


def test_an_exchange_that_tells_no_time_is_dated_by_its_answers(exchange):
    _, url = exchange
    source = real_exchange(url)
    source.client.has["fetchTime"] = False
    assert source.now_ms() == pytest.approx(time.time() * 1000, abs=5_000)


def test_each_request_takes_its_weight_from_the_budget(exchange, tmp_path):
    _, url = exchange
    costs: list[float] = []

    class Counted(RateLimit):
        def take(self, cost: float = 1.0) -> None:
            costs.append(cost)
            super().take(cost)

    urls = binance_urls(url)
    source = ExchangeSource("binance", lambda: ccxt.binance({"urls": {"api": urls}}), Counted(0.0))
    source.page("ohlcv", "BTC/USDT", "15m", START)
    assert costs[-1] == pytest.approx(0.4), "ccxt's weight of a page of spot candles"
    assert source.requests == len(costs)


@pytest.mark.parametrize(
    ("name", "symbol", "kind", "rows"),
    [
        ("binance", "BTC/USDT", "ohlcv", 1000),
        ("okx", "BTC/USDT:USDT", "mark", 100),
        ("coinbase", "BTC/USD", "ohlcv", 300),
        ("okx", "BTC/USDT:USDT", "funding", 100),
    ],
)
def test_behind_an_empty_page_no_more_is_skipped_than_the_exchange_looked_at(name, symbol, kind, rows):
    source = open_exchange(name)
    base, quote = symbol.split(":")[0].split("/")
    swap = (
        {"type": "swap", "subType": "linear", "swap": True, "spot": False}
        if ":" in symbol
        else {"type": "spot", "spot": True}
    )
    source.client.set_markets([{"id": "x", "symbol": symbol, "base": base, "quote": quote, **swap}])
    assert source.reach(kind, symbol) == rows


def test_several_timeframes_come_in_one_run(exchange, tmp_path):
    _, url = exchange
    store, source = CandleStore(str(tmp_path)), open_exchange("sandbox", url)
    span = {"since_ms": START, "until_ms": NOW}
    with pytest.raises(SourceError, match="no candles of 7m"):
        backfill(source, store, ["BTC/USDT"], ("15m", "7m"), progress=NullProgress(), kinds=("ohlcv",), **span)
    both = backfill(
        source, store, ["BTC/USDT", "ETH/USDT"], ("15m",), progress=NullProgress(), kinds=("ohlcv",), **span
    )
    assert [(item.pair, item.timeframe, item.rows) for item in both.series] == [
        ("BTC/USDT", "15m", ROWS),
        ("ETH/USDT", "15m", ROWS),
    ]


def test_mark_prices_are_stored_without_volume(exchange, tmp_path):
    _, url = exchange
    store = CandleStore(str(tmp_path))
    source = open_exchange("sandbox", url)
    backfill(source, store, ["BTC/USDT"], "15m", since_ms=START, until_ms=NOW, progress=NullProgress(), kinds=("mark",))
    assert store.read(SeriesKey("sandbox", "mark", "BTC/USDT", "15m")).columns[1:] == ["open", "high", "low", "close"]


def test_no_address_of_the_sandbox_leads_elsewhere():
    base = "http://127.0.0.1:9"
    source = open_exchange("sandbox", base + "/")
    assert_only(source.client, base)
    assert set(source.client.urls["api"]) == set(binance_urls(base))
    source.client.urls["api"]["sapi"] = "https://api.binance.com/sapi/v1"
    with pytest.raises(SourceError, match="past the sandbox"):
        assert_only(source.client, base)
    # A host that merely begins alike is another host.
    source.client.urls["api"]["sapi"] = "http://127.0.0.1:99/sapi/v1"
    with pytest.raises(SourceError, match="past the sandbox"):
        assert_only(source.client, base)


def test_names_and_addresses_are_checked():
    with pytest.raises(SourceError, match="knows no exchange"):
        open_exchange("not-an-exchange")
    with pytest.raises(SourceError, match="address is missing"):
        open_exchange("sandbox")
    with pytest.raises(SourceError, match="only the sandbox"):
        open_exchange("binance", "http://127.0.0.1:9")
    assert open_exchange("kraken").client.id == "kraken"
