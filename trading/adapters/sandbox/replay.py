"""Real candles as a market: what was recorded happens again, and nothing after the virtual now can be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from observability.errors import DataError
from pipelines.candles import iso
from trading.adapters.sandbox.market import Candles, Floats, Funding, Ints, Market
from trading.adapters.sandbox.rules import INTERVALS_MS, UNIT_DECIMALS, SymbolRules, lot_decimals_for

DAY_MS = 86_400_000
COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")


def replay(folder: Path, timeframe: str, trading_days: float, pairs: Sequence[str] = (), seed: int = 0) -> Market:
    """The market in `<BASE>_<QUOTE>-<timeframe>.parquet` files of `folder`, on the span that all pairs share.

    T0 is the end of that span minus `trading_days`. A candle missing inside the span becomes a flat one of no volume at
    the close before it. `<BASE>_<QUOTE>-funding.parquet` (timestamp, funding_rate), where present, becomes a perpetual.
    It has the prices of `<BASE>_<QUOTE>-perpetual-<timeframe>.parquet`, where present, else those of spot.

    Raises:
        DataError: no files, a wanted pair without a file, unreadable columns, no common span, or too short a span; a
            perpetual's candles that do not cover the span, or lack funding.
    """
    tables = {pair: _read(path) for pair, path in _files(folder, timeframe, pairs).items()}
    step = INTERVALS_MS[timeframe]
    first = max(int(frame["ms"][0]) for frame in tables.values())
    end = min(int(frame["ms"][-1]) for frame in tables.values()) + step
    rows = (end - first) // step
    open_ms = end - int(trading_days * DAY_MS) // step * step
    if rows < 2 or open_ms <= first:
        raise DataError(
            f"the pairs share {max(rows, 0)} candles, too few for {trading_days} trading days",
            where=str(folder),
            todo="give fewer pairs or fewer trading days",
        )
    rules, candles, funding, perpetuals = {}, {}, {}, {}
    for pair, frame in tables.items():
        name = pair.replace("/", "_")
        payments, own = folder / f"{name}-funding.parquet", folder / f"{name}-perpetual-{timeframe}.parquet"
        series = [_on_grid(frame, first, step, rows)]
        if own.is_file():
            series.append(_on_grid(_perpetual(own, payments, first, end - step), first, step, rows))
        rules[pair] = _rules(pair, np.concatenate([prices for prices, _ in series]))  # one tick that says all prices
        candles[pair] = _candles(*series[0], rules[pair])
        if len(series) > 1:
            perpetuals[pair] = _candles(*series[1], rules[pair])
        if payments.is_file():
            funding[pair] = _read_funding(payments, first, end)
    title = f"replay:{folder.name}"
    return Market(title, seed, timeframe, first, open_ms, rows, rules, candles, funding, perpetuals)


def replayable(folder: Path, timeframe: str) -> dict[str, Path]:
    """Pairs that `folder` has candles of at `timeframe`, and their files."""
    ending = f"-{timeframe}.parquet"
    found = {path.name.removesuffix(ending): path for path in sorted(folder.glob(f"*{ending}"))}
    return {name.replace("_", "/"): path for name, path in found.items() if "-" not in name}


def _files(folder: Path, timeframe: str, pairs: Sequence[str]) -> Mapping[str, Path]:
    if timeframe not in INTERVALS_MS:
        raise DataError(f"unknown timeframe {timeframe!r}", todo=f"use one of {', '.join(INTERVALS_MS)}")
    found = replayable(folder, timeframe)
    wanted = {pair: found[pair] for pair in pairs if pair in found} if pairs else found
    missing = [pair for pair in pairs if pair not in found]
    if missing or not wanted:
        lacking = ", ".join(missing) or f"any pair at {timeframe}"
        todo = f"name others, of {', '.join(found)}" if found else "name a folder of <BASE>_<QUOTE>-<timeframe>.parquet"
        raise DataError(f"no candles of {lacking}", where=str(folder), todo=todo)
    return wanted


def _table(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"the file cannot be read: {reason}", where=str(path), todo="fetch it again") from error


def _read(path: Path) -> pl.DataFrame:
    frame = _table(path)
    lacking = [name for name in COLUMNS if name not in frame.columns]
    if lacking or not frame.height:
        raise DataError(f"the file lacks {', '.join(lacking) or 'rows'}", where=str(path))
    frame = frame.with_columns(_ms(frame).alias("ms")).unique("ms", keep="last").sort("ms")
    prices = frame.select("open", "high", "low", "close").to_numpy()
    if not (np.isfinite(prices).all() and (prices > 0).all()):
        raise DataError("a price is not a positive number", where=str(path), todo="repair the file first")
    return frame


def _perpetual(path: Path, payments: Path, first: int, last: int) -> pl.DataFrame:
    """A perpetual's candles, of which those that open at `first` and at `last` ms must be there or lie inside."""
    if not payments.is_file():
        raise DataError("a perpetual's candles without its funding", where=str(path), todo=f"add {payments.name}")
    frame = _read(path)
    begins, ends = int(frame["ms"][0]), int(frame["ms"][-1])
    if begins > first or ends < last:
        raise DataError(
            f"the perpetual's candles, {iso(begins)} to {iso(ends)}, do not cover spot's, {iso(first)} to {iso(last)}",
            where=str(path),
            todo="fetch what is missing, or cut the files of spot",
        )
    return frame


def _ms(frame: pl.DataFrame) -> pl.Series:
    column = frame["timestamp"]
    return column.dt.epoch("ms") if column.dtype.is_temporal() else column.cast(pl.Int64)


def _on_grid(frame: pl.DataFrame, first: int, step: int, rows: int) -> tuple[Floats, Floats]:
    """Prices [rows, 4] and volume [rows] on the full grid, holes filled flat."""
    grid = pl.DataFrame({"ms": first + step * np.arange(rows, dtype=np.int64)})
    joined = grid.join(frame.select("ms", *COLUMNS[1:]), on="ms", how="left", maintain_order="left")
    before = grid.join_asof(frame.select("ms", pl.col("close").alias("before")), on="ms")["before"]
    joined = joined.with_columns(pl.col("close").fill_null(before), pl.col("volume").fill_null(0.0))
    joined = joined.with_columns(pl.col("open", "high", "low").fill_null(pl.col("close")))
    return joined.select("open", "high", "low", "close").to_numpy(), joined["volume"].to_numpy()


def _rules(pair: str, prices: Floats) -> SymbolRules:
    """Tick and lot sizes read off the data: the fewest decimals that say every price."""
    lots = lot_decimals_for(float(np.median(prices)))
    for decimals in range(UNIT_DECIMALS - lots):
        scaled = prices * 10.0**decimals
        if np.abs(scaled - np.rint(scaled)).max() < 1e-6 * max(1.0, float(scaled.max()) * 1e-6):
            return SymbolRules(pair, decimals, lots)
    return SymbolRules(pair, UNIT_DECIMALS - lots, lots)


def _candles(prices: Floats, volume: Floats, rules: SymbolRules) -> Candles:
    ticks: Ints = np.maximum(np.rint(prices * 10.0**rules.price_decimals), 1).astype(np.int64)
    high, low = ticks.max(axis=1), ticks.min(axis=1)
    return Candles(ticks[:, 0].copy(), high, low, ticks[:, 3].copy(), np.asarray(volume, dtype=np.float64))


def _read_funding(path: Path, first: int, end: int) -> Funding:
    frame = _table(path)
    frame = frame.with_columns(_ms(frame).alias("ms")).filter(pl.col("ms").is_between(first, end)).sort("ms")
    return Funding(frame["ms"].to_numpy().copy(), frame["funding_rate"].to_numpy().copy())
