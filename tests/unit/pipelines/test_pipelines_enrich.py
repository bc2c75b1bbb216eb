"""Enrichment shows what was known at the candle's close, and nothing later."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.errors import CandleError, SourceError
from pipelines.adapters.onchain_files import METRICS, import_onchain, read_onchain
from pipelines.enrich import enrich_funding, enrich_onchain
from pipelines.frames import Enrichment, feature_frame
from pipelines.spec import default_spec
from pipelines.store import CandleStore, SeriesKey
from tests.unit.pipelines.pipelines_makers import START, STEP, Walk, candles, onchain

HOUR = 3_600_000
DAY = 24 * HOUR
CANDLES = candles(Walk(seed=1, rows=96 * 4))


def rates(rows: list[tuple[float, float]]) -> pl.DataFrame:
    """Funding of (hours after START, rate)."""
    return pl.DataFrame(
        {"timestamp": [START + int(h * HOUR) for h, _ in rows], "funding_rate": [r for _, r in rows]}
    ).with_columns(pl.col("timestamp").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC"))


def test_funding_is_seen_after_its_settlement_and_until_it_is_stale():
    seen = enrich_funding(CANDLES, rates([(8, 0.1), (16, 0.2)]))["funding_rate"].to_list()
    # The candle of 07:45 closes at 08:00, at which the rate is being settled; the next one knows it.
    assert seen[:32] == [None] * 32
    assert seen[32:64] == [0.1] * 32
    assert set(seen[64 : 64 + 99]) == {0.2}
    assert seen[64 + 101 :] == [None] * (len(seen) - 165)


def test_a_jittered_settlement_is_not_seen_earlier():
    seen = enrich_funding(CANDLES, rates([(8 + 3e-6, 0.1)]))["funding_rate"].to_list()
    assert seen.index(0.1) == 32


def test_onchain_is_seen_from_its_publication_on():
    seen = enrich_onchain(CANDLES, onchain([(0, 30, 5.0), (1, 50, 6.0)]))["tx_count"].to_list()
    # 30 h after START closes the candle of row 119; 24 + 50 h the one of row 295.
    assert seen[:119] == [None] * 119
    assert seen[119:295] == [5.0] * 176
    assert seen[295:] == [6.0] * (384 - 295)


def test_revisions_late_days_and_the_week_before():
    days = [(d, 30, float(d)) for d in range(9)]
    revised, late = (1, 24 * 6 + 30, 100.0), (3, 24 * 8, 33.0)
    table = onchain([*days[:3], *days[4:], revised, late])
    walk = candles(Walk(seed=1, rows=96 * 14))
    seen = enrich_onchain(walk, table)
    row = lambda hours: int(hours * 4) - 1  # noqa: E731 - the candle that closes then
    assert seen["tx_count"][row(4 * 24 + 29)] == 2.0  # day 3 is late: day 2 stands
    assert seen["tx_count"][row(4 * 24 + 30)] == 4.0
    assert seen["tx_count"][row(11 * 24 + 1)] == 8.0  # day 3 came after day 8 and changes nothing
    assert seen["tx_count_7d_ago"][row(7 * 24 + 30)] == 0.0
    assert seen["tx_count_7d_ago"][row(8 * 24 + 30)] == 100.0  # day 1 as revised by then
    early = onchain([*days, (1, 24 * 7 + 31, 100.0)])
    assert enrich_onchain(walk, early)["tx_count_7d_ago"][row(8 * 24 + 30)] == 1.0  # not revised yet


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(24, 200)), min_size=1, unique=True), st.integers(0, 1300))
def test_rows_published_after_a_close_change_nothing_before_it(rows, row):
    table = onchain([(day, hours, float(day * 1000 + hours)) for day, hours in rows])
    walk = candles(Walk(seed=1, rows=96 * 14))
    close = walk["timestamp"][row] + timedelta(milliseconds=STEP)
    later = pl.col("available_at") > close
    scrambled = table.with_columns(tx_count=pl.when(later).then(-1e9).otherwise("tx_count"))
    dropped = table.filter(~later)
    whole = enrich_onchain(walk, table)[: row + 1]
    assert whole.equals(enrich_onchain(walk, scrambled)[: row + 1])
    assert whole.equals(enrich_onchain(walk, dropped)[: row + 1])


def test_stale_onchain_data_is_missing_data():
    seen = enrich_onchain(candles(Walk(seed=1, rows=96 * 15)), onchain([(0, 30, 5.0)]))["tx_count"]
    assert seen[119 + 96 * 10 - 1] == 5.0
    assert seen[119 + 96 * 10 + 1] is None


def test_one_row_needs_its_timeframe_and_clashes_are_named():
    funding = rates([(-1, 0.1)])
    with pytest.raises(CandleError, match="pass timeframe"):
        enrich_funding(CANDLES[:1], funding)
    assert enrich_funding(CANDLES[:1], funding, timeframe="15m")["funding_rate"].to_list() == [0.1]
    with pytest.raises(CandleError, match="named like candle columns"):
        enrich_onchain(CANDLES, onchain([(0, 30, 1.0)]).rename({"tx_count": "close"}))
    with pytest.raises(CandleError, match="'available_at' is missing"):
        enrich_onchain(CANDLES, onchain([(0, 30, 1.0)]).drop("available_at"))


def test_files_without_publication_times_or_from_the_future_are_refused(tmp_path):
    path = tmp_path / "BTC.csv"
    path.write_text("time,AdrActCnt,Other\n2024-01-01,10,1\n2024-01-02,11,1\n")
    with pytest.raises(SourceError, match="when a row became available"):
        read_onchain(path)
    table = read_onchain(path, assumed_delay=timedelta(hours=30))
    assert table.columns == ["timestamp", "available_at", "available_at_assumed", "active_addresses"]
    assert (table["available_at"] - table["timestamp"]).unique().to_list() == [timedelta(hours=30)]
    with pytest.raises(SourceError, match="known before it ended"):
        read_onchain(path, assumed_delay=timedelta(hours=23))
    path.write_text("time,Nothing\n2024-01-01,10\n")
    with pytest.raises(SourceError, match="no metric is known"):
        read_onchain(path, assumed_delay=timedelta(hours=30))
    with pytest.raises(SourceError, match="cannot read"):
        read_onchain(tmp_path / "none.parquet")


HEAD = "time,available_at,AdrActCnt\n"
DAY_ONE = "2024-01-01,2024-01-02T06:00:00Z,10\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read the file"),
        (HEAD, "has no rows"),
        (HEAD + DAY_ONE + "2024-01-02,,11\n", "no time of publication .*2024-01-02"),
        (HEAD + DAY_ONE + DAY_ONE.replace("10", "12"), "two values with one time of publication"),
        (HEAD + DAY_ONE + "2024-01-02,2024-01-03T06:00:00Z,-5\n", "negative value .*2024-01-02"),
        (HEAD + DAY_ONE + "2024-01-02,2024-01-03T06:00:00Z,many\n", "'many', no number .*2024-01-02"),
        (HEAD + DAY_ONE + "02/01/2024,2024-01-03T06:00:00Z,5\n", "'02/01/2024' is no time"),
        (HEAD + DAY_ONE + "2024-01-02,2024-01-03T06:00:00,5\n", "some times have an offset"),
        ("asset,time,AdrActCnt\nbtc,2024-01-01,5\neth,2024-01-01,6\n", "several assets"),
        ("AdrActCnt\n5\n", "no column `timestamp` or `time`"),
    ],
)
def test_bad_onchain_files_end_in_one_error_and_leave_the_store_alone(tmp_path, text, message):
    good, bad, store = tmp_path / "good.csv", tmp_path / "BTC.csv", CandleStore(str(tmp_path / "raw"))
    good.write_text(HEAD + DAY_ONE)
    import_onchain(good, store, "BTC")
    bad.write_text(text)
    with pytest.raises(SourceError, match=message) as caught:
        import_onchain(bad, store, "BTC")
    assert "BTC.csv" in str(caught.value)
    assert store.read(SeriesKey("file", "onchain", "BTC")).height == 1


def test_harmless_oddities_of_onchain_files_are_taken_as_they_are_meant(tmp_path):
    path = tmp_path / "BTC.csv"
    zoned = "2024-01-02T00:00:00.000000000Z,2024-01-03T08:00:00+02:00,NaN,2.5\n"
    path.write_text(
        "time,available_at,AdrActCnt,CapMVRVCur\n" + zoned + zoned + "2024-01-01T00:00:00Z,2024-01-03T06:00:00Z,,\n"
    )
    table = read_onchain(path)  # repeated rows count once, empty ones tell nothing
    assert table.select("active_addresses", "mvrv").rows() == [(None, 2.5)]
    assert table["available_at"].dt.hour().to_list() == [6]
    path.write_text("timestamp,available_at,TxCnt\n1704067200,1704175200,7\n")
    assert read_onchain(path)["available_at"].dt.hour().to_list() == [6]


def test_metrics_of_several_files_live_side_by_side(tmp_path):
    store, key = CandleStore(str(tmp_path)), SeriesKey("file", "onchain", "BTC")
    delay = timedelta(hours=30)
    for name, text in (("a", "time,AdrActCnt\n2024-01-01,10\n2024-02-01,20\n"), ("b", "time,TxCnt\n2024-01-01,7\n")):
        (tmp_path / f"{name}.csv").write_text(text)
        found = import_onchain(tmp_path / f"{name}.csv", store, "BTC", assumed_delay=delay)
    assert (found.rows, found.assumed) == (2, 2)
    table = store.read(key)
    assert table.sort("timestamp").select("active_addresses", "tx_count").rows() == [(10.0, 7.0), (20.0, None)]


@pytest.mark.realdata
def test_real_files_without_publication_times_need_a_declared_delay(shared_data, tmp_path):
    store, delay = CandleStore(str(tmp_path)), timedelta(hours=30)
    for name, asset, metrics in (("ETH-2020", "ETH", 6), ("fear_greed", "BTC", 1)):
        path = shared_data / "onchain" / f"{name}.parquet"
        with pytest.raises(SourceError, match="does not say when"):
            import_onchain(path, store, asset)
        found = import_onchain(path, store, asset, assumed_delay=delay)
        assert (len(found.metrics), found.assumed) == (metrics, found.rows)
        table = store.read(SeriesKey("file", "onchain", asset))
        assert (table["available_at"] - table["timestamp"]).unique().to_list() == [delay]
    found = import_onchain(shared_data / "onchain" / "BTC.parquet", store, "BTC")
    table = store.read(SeriesKey("file", "onchain", "BTC"))
    assert table["fear_greed"].drop_nulls().len() == 2100, "an import leaves the metrics of others alone"
    assert found.rows == table.height > 5750


@pytest.mark.realdata
def test_real_onchain_data_is_never_seen_before_it_was_published(shared_data, tmp_path):
    path, store = shared_data / "onchain" / "BTC.parquet", CandleStore(str(tmp_path))
    found = import_onchain(path, store, "BTC")
    table = store.read(SeriesKey("file", "onchain", "BTC"))
    assert found.rows == table.height > 5_000
    assert set(found.metrics) == set(METRICS.values()) - {"fear_greed"}
    assert found.assumed == 4_430  # the file itself says that these times were filled in
    walk = pl.read_parquet(shared_data / "market" / "binance" / "BTC_USDT-1h.parquet")
    joined = enrich_onchain(walk, table)
    known = table.sort("available_at")
    times, values = known["available_at"].dt.timestamp("ms").to_numpy(), known["active_addresses"].to_numpy()
    for row in range(0, walk.height, 97):
        close = int(walk["timestamp"].dt.timestamp("ms")[row]) + HOUR
        # By hand: the last day among the rows published by the close.
        assert joined["active_addresses"][row] == values[np.searchsorted(times, close, side="right") - 1]
    lag = (joined["timestamp"] + timedelta(hours=1)).to_numpy()[:, None] >= table["available_at"].to_numpy()[None, :]
    assert lag.any(axis=1).all()


@pytest.mark.realdata
def test_real_enrichment_fills_the_default_features(shared_data):
    folder = shared_data / "market" / "binanceusdm"
    walk, funding = (pl.read_parquet(folder / f"BTC_USDT-{kind}.parquet") for kind in ("15m", "funding"))
    spec = default_spec(["BTC/USDT"], "15m", funding=True)
    frame = feature_frame(walk, spec, Enrichment(funding=funding))
    first = funding["timestamp"][0] + timedelta(minutes=1)
    known = frame.filter(pl.col("timestamp") >= first)
    assert known["funding"].null_count() == 0
    assert frame.filter(pl.col("timestamp") < first - timedelta(minutes=15))["funding"].null_count() > 0
    assert known.height > 3_000
