"""Names of candle files: how Freqtrade calls its own, and how plain ones are called.

<datadir>/BTC_USDT-15m.feather                          spot candles
<datadir>/futures/BTC_USDT_USDT-15m-futures.feather     candles of the perpetual BTC/USDT:USDT
<datadir>/futures/BTC_USDT_USDT-1h-mark.feather         its mark price
<datadir>/futures/BTC_USDT_USDT-1h-funding_rate.feather its funding rates, one row a settlement
BTC_USDT-15m.csv  BTC_USDT-mark-8h.parquet  BTC_USDT-funding.parquet          plain ones
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from observability.errors import CandleError, StoreError
from pipelines.candles import timeframe_ms
from pipelines.store import SeriesKey

FORMATS = ("feather", "json")
ENDINGS = (".feather", ".json", ".json.gz", ".parquet", ".csv")
# The name that Freqtrade looks for; the rates in it keep the times at which they were settled.
FUNDING_TIMEFRAME = "1h"
_NAME = re.compile(
    r"(?P<pair>[A-Za-z0-9]+_[A-Za-z0-9_]+)"
    r"(?:-(?P<first>mark|funding_rate|funding|trades))?"
    r"(?:-(?P<timeframe>[0-9]+[A-Za-z]{1,2}))?"
    r"(?:-(?P<last>futures|spot|mark|funding_rate|index|premiumIndex|open_interest))?"
)
_KINDS = {
    "": "ohlcv",
    "spot": "ohlcv",
    "futures": "ohlcv",
    "mark": "mark",
    "funding_rate": "funding",
    "funding": "funding",
}


@dataclass(frozen=True)
class CandleFile:
    """A file and the series that its name promises; `why` it is left out, if so."""

    path: Path
    key: SeriesKey | None
    why: str = ""


def name_file(path: Path, exchange: str) -> CandleFile:
    """What a file's name says."""
    ending = next((each for each in ENDINGS if path.name.endswith(each)), "")
    match = _NAME.fullmatch(path.name[: len(path.name) - len(ending)]) if ending else None
    if match is None:
        return CandleFile(path, None, "its name says neither pair nor timeframe, as BTC_USDT-15m.feather does")
    kind = _KINDS.get(match["first"] or match["last"] or "")
    if kind is None:
        return CandleFile(path, None, f"{match['first'] or match['last']} is nothing that we keep")
    pair = match["pair"].replace("_", "/", 1).replace("_", ":", 1)
    try:
        timeframe = "" if kind == "funding" else match["timeframe"] or ""
        if timeframe:
            timeframe_ms(timeframe)
        return CandleFile(path, SeriesKey(exchange, kind, pair, timeframe))
    except (CandleError, StoreError) as error:
        return CandleFile(path, None, error.what)


def find_files(place: Path, exchange: str) -> tuple[CandleFile, ...]:
    """The candle files of a folder and its `futures` folder, or the one file named, sorted by name."""
    if place.is_file():
        return (name_file(place, exchange),)
    files = [file for folder in (place, place / "futures") if folder.is_dir() for file in folder.iterdir()]
    return tuple(name_file(file, exchange) for file in sorted(files) if file.is_file() and file.name.endswith(ENDINGS))


def freqtrade_name(key: SeriesKey, fmt: str) -> str:
    """The path below Freqtrade's data folder under which it looks for a series.

    Funding and mark prices belong to the perpetual: those that are stored under the spot pair get its name.
    """
    pair = key.pair
    if key.kind != "ohlcv" and ":" not in pair:
        pair = f"{pair}:{pair.split('/')[1]}"
    name = re.sub("[/ .@$+:]", "_", pair)
    if key.kind == "ohlcv" and ":" not in pair:
        return f"{name}-{key.timeframe}.{fmt}"
    tail = {"ohlcv": f"{key.timeframe}-futures", "mark": f"{key.timeframe}-mark"}
    return f"futures/{name}-{tail.get(key.kind, FUNDING_TIMEFRAME + '-funding_rate')}.{fmt}"
