"""Files of other programs: what they mean, what is refused, and that nothing is lost on the way there and back."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.errors import CandleError, DataError, SourceError
from observability.progress import NullProgress
from pipelines.adapters.candle_files import read_file
from pipelines.adapters.freqtrade_data import Rules, export_folder, import_folder
from pipelines.adapters.freqtrade_files import freqtrade_name, name_file
from pipelines.adapters.table_files import read_times
from pipelines.store import CandleStore, SeriesKey, content_hash
from tests.unit.pipelines.pipelines_makers import START, STEP, WALKS, Walk, candles

HOUR = 3_600_000
LATER = START + 10_000 * STEP
RULES = Rules(now_ms=LATER)
KEY = SeriesKey("x", "ohlcv", "BTC/USDT", "15m")
PERP = SeriesKey("x", "ohlcv", "BTC/USDT:USDT", "15m")
GOOD = candles(Walk(seed=3, rows=40))
QUIET = NullProgress()


def utc(times: list[int]) -> pl.Series:
    return pl.Series("timestamp", times).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")


FUNDING = pl.DataFrame(
    {"timestamp": utc([START + i * 8 * HOUR + 3 for i in range(9)]), "funding_rate": [1e-4 * i for i in range(9)]}
)
MARK = GOOD.drop("volume")


def filled(root: Path) -> CandleStore:
    store = CandleStore(str(root))
    store.write(KEY, GOOD)
    store.write(PERP, candles(Walk(seed=4, rows=30)))
    store.write(SeriesKey("x", "mark", "BTC/USDT:USDT", "15m"), MARK)
    store.write(SeriesKey("x", "mark", "BTC/USDT:USDT", "1h"), MARK.gather_every(4))
    store.write(SeriesKey("x", "funding", "BTC/USDT:USDT"), FUNDING)
    return store


@pytest.mark.parametrize("fmt", ["feather", "json"])
def test_out_and_in_again_is_the_same(tmp_path, fmt):
    store = filled(tmp_path / "raw")
    files = export_folder(store, store.keys(), tmp_path / "data", fmt, QUIET)
    names = {file.file for file in files}
    assert f"BTC_USDT-15m.{fmt}" in names
    assert f"futures/BTC_USDT_USDT-1h-funding_rate.{fmt}" in names
    back = CandleStore(str(tmp_path / "back"))
    summary = import_folder(tmp_path / "data", back, "x", RULES, QUIET)
    assert back.keys() == store.keys()
    for key in store.keys():  # noqa: SIM118 - a store is no dictionary
        assert content_hash(back.read(key)) == content_hash(store.read(key)), str(key)
    assert not [file for file in summary.files if file.dropped or file.unfinished or file.reordered]
    assert [file.new for file in import_folder(tmp_path / "data", back, "x", RULES, QUIET).files] == [0] * 5


@settings(max_examples=20, deadline=None)
@given(WALKS, st.sampled_from(["feather", "json"]))
def test_every_bit_of_drawn_candles_survives(tmp_path_factory, walk, fmt):
    folder = tmp_path_factory.mktemp("drawn")
    store, table = CandleStore(str(folder / "raw")), candles(walk)
    store.write(KEY, table)
    export_folder(store, [KEY], folder, fmt, QUIET)
    assert read_file(folder / f"BTC_USDT-15m.{fmt}", KEY, now_ms=LATER).table.equals(table)


def test_mark_prices_by_the_quarter_are_also_written_by_the_hour(tmp_path):
    store, key = CandleStore(str(tmp_path / "raw")), SeriesKey("x", "mark", "BTC/USDT", "15m")
    store.write(key, MARK.with_row_index().filter(pl.col("index") != 6).drop("index"))
    export_folder(store, [key], tmp_path / "data", "feather", QUIET)
    hourly = pl.read_ipc(tmp_path / "data/futures/BTC_USDT_USDT-1h-mark.feather")
    assert hourly.height == 9, "the hour with a hole is left out"
    first = hourly.row(0, named=True)
    assert (first["open"], first["close"]) == (MARK["open"][0], MARK["close"][3])
    assert (first["high"], first["low"]) == (MARK["high"][:4].max(), MARK["low"][:4].min())


@pytest.mark.parametrize(
    ("name", "series"),
    [
        ("BTC_USDT-15m.feather", "x ohlcv BTC/USDT 15m"),
        ("BTC_USDT_USDT-5m-futures.json.gz", "x ohlcv BTC/USDT:USDT 5m"),
        ("BTC_USDT_USDT-8h-funding_rate.json", "x funding BTC/USDT:USDT"),
        ("1000PEPE_USDT_USDT-1h-mark.feather", "x mark 1000PEPE/USDT:USDT 1h"),
        ("BTC_USDT-mark-8h.parquet", "x mark BTC/USDT 8h"),
        ("BTC_USDT-funding.parquet", "x funding BTC/USDT"),
        ("ETH_BTC-1d.csv", "x ohlcv ETH/BTC 1d"),
        ("BTC_USDT-trades.feather", "trades is nothing that we keep"),
        ("BTC_USDT_USDT-1h-index.feather", "index is nothing that we keep"),
        ("BTC_USDT-1Mo.feather", "unknown timeframe '1Mo'"),
        ("notes.csv", "neither pair nor timeframe"),
    ],
)
def test_names_tell_what_files_hold(name, series):
    file = name_file(Path(name), "x")
    assert series in (str(file.key) if file.key else file.why)
    if file.key and file.key.kind == "ohlcv" and name.endswith("feather"):
        assert freqtrade_name(file.key, "feather").endswith(name)


def write_freqtrade(folder: Path) -> None:
    """As Freqtrade itself writes: pandas, and JSON by position."""
    (folder / "futures").mkdir(parents=True)
    frame = GOOD.rename({"timestamp": "date"}).to_pandas()
    frame.to_feather(folder / "BTC_USDT-15m.feather", compression_level=9, compression="lz4")
    frame.assign(date=frame["date"].dt.as_unit("ms").astype("int64")).to_json(
        folder / "futures" / "BTC_USDT_USDT-15m-futures.json.gz", orient="values", compression="gzip"
    )
    legacy = [[START + i * 8 * HOUR, 1e-4 * i, 0, 0, 0, 0] for i in range(5)]  # rates as candles, as it once did
    (folder / "futures" / "BTC_USDT_USDT-8h-funding_rate.json").write_text(json.dumps(legacy))


def test_freqtrades_own_files_are_read(tmp_path):
    write_freqtrade(tmp_path)
    store = CandleStore(str(tmp_path / "raw"))
    import_folder(tmp_path, store, "x", RULES, QUIET)
    assert store.read(KEY).equals(GOOD)
    as_json = store.read(PERP)  # pandas writes ten digits
    assert (as_json["close"] - GOOD["close"]).abs().max() < 1e-8
    assert store.read(SeriesKey("x", "funding", "BTC/USDT:USDT"))["funding_rate"].to_list() == [
        1e-4 * i for i in range(5)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "date,open,high,low,close,volume\n2024-01-01T00:00:00Z,1,3,0.5,2,10\n2024-01-01T00:15:00Z,2,3,1,2.5,0\n",
        "open_time,o,h,l,c,vol,close_time\n1704068100000,2,3,1,2.5,0,9\n1704067200000,1,3,0.5,2,10,9\n",
        "Date,Open,High,Low,Close,Volume USDT,Volume BTC\n"
        "2024-01-01 02:00:00+02:00,1,3,0.5,2,77,10\n2024-01-01 02:15:00+02:00,2,3,1,2.5,99,0\n",
        "1704067200000,1,3,0.5,2,10,1704068099999,5\n1704068100000,2,3,1,2.5,0,1704068999999,6\n",
        "1704067200000000,1,3,0.5,2,10\n1704067200000000,1,3,0.5,2,10\n1704068100000000,2,3,1,2.5,0\n",
    ],
    ids=["iso", "descending", "offset", "without names", "microseconds, repeated"],
)
def test_plain_files_are_understood(tmp_path, text):
    path = tmp_path / "BTC_USDT-15m.csv"
    path.write_text(text)
    table = read_file(path, KEY, now_ms=LATER).table
    assert table["timestamp"].dt.timestamp("ms").to_list() == [START, START + STEP]
    assert table["close"].to_list() == [2.0, 2.5]
    assert table["volume"].to_list() == [10.0, 0.0]


def rows(*changes: str) -> str:
    """Three good candles; each change replaces the second one."""
    lines = [f"{START + i * STEP},1,3,0.5,2,10" for i in range(3)]
    return "timestamp,open,high,low,close,volume\n" + "\n".join([lines[0], *(changes or (lines[1],)), lines[2]]) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (rows(f"{START + STEP},1,3,0.5,NaN,10"), "empty field .*BTC_USDT-15m.csv, BTC/USDT, 2024-01-01T00:15:00Z"),
        (rows(f"{START + STEP},1,3,0.5,-2,10"), "not positive.*2024-01-01T00:15:00Z"),
        (rows(f"{START + STEP},1,3,0.5,2,-10"), "negative volume.*2024-01-01T00:15:00Z"),
        (rows(f"{START + STEP + 1000},1,3,0.5,2,10"), "off the 15m grid.*2024-01-01T00:15:01Z"),
        (rows(f"{START + STEP},1,1.5,0.5,2,10"), "inside its own body.*2024-01-01T00:15:00Z"),
        (rows(f"{START},1,3,0.5,2.5,10"), "repeats a time.*2024-01-01T00:00:00Z"),
        (rows(f"{START + STEP},1,3,0.5,two,10"), "'two', no number"),
        (rows(f"{START + STEP},1,3"), "cannot read the file|empty field"),
        (rows().replace("close", "shut"), "no column is the close"),
        (rows().replace(str(START), "2024-01-01 00:00"), "'1704068100000' is no time"),
        ("timestamp,open,high,low,close,volume\n", "no rows"),
        ("", "cannot read the file"),
    ],
)
def test_a_bad_file_is_one_clear_error_and_the_store_stays(tmp_path, text, message):
    store = filled(tmp_path / "raw")
    before = {key: store.manifest(key) for key in store.keys()}  # noqa: SIM118
    path = tmp_path / "in" / "BTC_USDT-15m.csv"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        import_folder(path.parent, store, "x", RULES, QUIET)
    assert "BTC_USDT-15m.csv" in str(caught.value)
    assert {key: store.manifest(key) for key in store.keys()} == before  # noqa: SIM118


def test_half_written_files_are_refused(tmp_path):
    write_freqtrade(tmp_path)
    for name in ("BTC_USDT-15m.feather", "futures/BTC_USDT_USDT-15m-futures.json.gz"):
        data = (tmp_path / name).read_bytes()
        for size in (0, 10, len(data) // 2, len(data) - 1):
            (tmp_path / name).write_bytes(data[:size])
            with pytest.raises(SourceError, match="cannot read the file"):
                read_file(tmp_path / name, KEY, now_ms=LATER)
    (tmp_path / "BTC_USDT-15m.json").write_text('{"a": 1}')
    with pytest.raises(SourceError, match="cannot read the file"):
        read_file(tmp_path / "BTC_USDT-15m.json", KEY, now_ms=LATER)
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(b"[]"))
    with pytest.raises(SourceError, match="no rows"):
        read_file(tmp_path / "x.json.gz", KEY, now_ms=LATER)


def test_repair_leaves_bad_rows_out_and_counts_them(tmp_path):
    path = tmp_path / "BTC_USDT-15m.csv"
    path.write_text(rows(f"{START + STEP},1,3,0.5,NaN,10", f"{START + STEP + 7},1,3,0.5,2,10", f"{START},1,3,0.5,2,10"))
    found = read_file(path, KEY, repair=True, now_ms=LATER)
    assert found.table["timestamp"].dt.timestamp("ms").to_list() == [START, START + 2 * STEP]
    assert (found.repairs.not_finite, found.repairs.off_grid, found.repairs.duplicates) == (1, 1, 1)


def test_a_candle_that_has_not_closed_is_left_out(tmp_path):
    path = tmp_path / "BTC_USDT-15m.csv"
    path.write_text(rows())
    assert read_file(path, KEY, now_ms=START + 3 * STEP).unfinished == 0
    found = read_file(path, KEY, now_ms=START + 3 * STEP - 1)
    assert (found.table.height, found.unfinished) == (2, 1)


def test_what_contradicts_the_store_is_refused_unless_it_is_to_replace(tmp_path):
    store = CandleStore(str(tmp_path / "raw"))
    path = tmp_path / "BTC_USDT-15m.csv"
    path.write_text(rows())
    import_folder(path, store, "x", RULES, QUIET)
    path.write_text(rows(f"{START + STEP},1,3,0.5,2.25,10"))
    with pytest.raises(SourceError, match=r"1 rows differ .* 2.25 here, 1 3 0.5 2 there \[.*2024-01-01T00:15:00Z"):
        import_folder(path, store, "x", RULES, QUIET)
    assert store.read(KEY)["close"].to_list() == [2, 2, 2]
    import_folder(path, store, "x", Rules(LATER, replace=True), QUIET)
    assert store.read(KEY)["close"].to_list() == [2, 2.25, 2]


def test_funding_that_says_two_things_or_nothing_is_refused(tmp_path):
    path, key = tmp_path / "BTC_USDT-funding.csv", SeriesKey("x", "funding", "BTC/USDT")
    path.write_text(f"timestamp,funding_rate\n{START},0.1\n{START},0.2\n")
    with pytest.raises(CandleError, match=r"two rates \[.*BTC_USDT-funding.csv, BTC/USDT, 2024-01-01T00:00:00Z"):
        read_file(path, key, now_ms=LATER)
    path.write_text(f"timestamp,funding_rate\n{START},0.1\n{START + HOUR},\n")
    with pytest.raises(CandleError, match=r"no numbers .*2024-01-01 01:00"):
        read_file(path, key, now_ms=LATER)
    assert read_file(path, key, repair=True, now_ms=LATER).table.height == 1


@pytest.mark.parametrize(
    ("values", "zone", "first"),
    [
        ([1_704_067_200], "", START),
        ([float(START)], "", START),
        ([START * 1_000_000], "", START),
        (["2024-01-01"], "UTC", START),
        (["2024-01-01 01:00:00"], "Europe/Berlin", START),
        (["2024-01-01T05:30:00.000+05:30"], "", START),
    ],
)
def test_times_are_read_as_what_they_say(values, zone, first):
    assert read_times(pl.Series(values), zone=zone, where="w").dt.timestamp("ms").to_list() == [first]


@pytest.mark.parametrize(
    ("values", "zone", "message"),
    [
        (["2024-01-01 00:00:00"], "", "no zone .*--zone"),
        (["2024-03-31 02:30:00"], "Europe/Berlin", "non-existent"),
        (["2024-10-27 02:30:00"], "Europe/Berlin", "ambiguous"),
        (["2024-01-01 00:00:00"], "Nowhere/City", "cannot be read in zone"),
        (["01/02/2024 00:00"], "UTC", "is no time"),
        (["2024-13-01"], "UTC", "is no time"),
        (["2024-01-01T00:00:00Z", "2024-01-01"], "UTC", "some times have an offset"),
        ([2024], "", "no time since 1970"),
        ([float("nan")], "", "not finite"),
        ([True], "", "Boolean is no time"),
    ],
)
def test_times_that_could_mean_several_things_are_refused(values, zone, message):
    with pytest.raises(SourceError, match=message):
        read_times(pl.Series(values), zone=zone, where="w")


def test_aware_times_of_pandas_and_naive_ones_of_parquet(tmp_path):
    frame = GOOD.to_pandas()
    frame["timestamp"] = frame["timestamp"].dt.tz_convert("Asia/Tokyo")
    frame.to_parquet(tmp_path / "BTC_USDT-15m.parquet")
    assert read_file(tmp_path / "BTC_USDT-15m.parquet", KEY, now_ms=LATER).table.equals(GOOD)
    naive = pd.DataFrame(frame.assign(timestamp=frame["timestamp"].dt.tz_convert("UTC").dt.tz_localize(None)))
    naive.to_parquet(tmp_path / "BTC_USDT-15m.parquet")
    with pytest.raises(SourceError, match="no zone"):
        read_file(tmp_path / "BTC_USDT-15m.parquet", KEY, now_ms=LATER)
    assert read_file(tmp_path / "BTC_USDT-15m.parquet", KEY, zone="UTC", now_ms=LATER).table.equals(GOOD)


@pytest.mark.realdata
def test_real_folders_are_imported_and_come_back(shared_data, tmp_path):
    now = 1_790_000_000_000
    store = CandleStore(str(tmp_path / "raw"))
    found = import_folder(shared_data / "market" / "binanceusdm", store, "binanceusdm", Rules(now), QUIET)
    assert {file.series.split()[1] for file in found.files} == {"ohlcv", "mark", "funding"}
    assert not [file for file in found.files if file.dropped or file.unfinished]
    keys = [key for key in store.keys() if key.kind != "ohlcv" or key.timeframe == "15m"]  # noqa: SIM118
    export_folder(store, keys, tmp_path / "data", "feather", QUIET)
    back = CandleStore(str(tmp_path / "back"))
    import_folder(tmp_path / "data", back, "binanceusdm", Rules(now), QUIET)
    for key in keys:
        pair = key.pair if key.kind == "ohlcv" else f"{key.pair}:USDT"
        assert back.read(SeriesKey(key.exchange, key.kind, pair, key.timeframe)).equals(store.read(key)), str(key)
