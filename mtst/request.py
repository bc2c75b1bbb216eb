"""The question that the prediction service is asked, checked to the last number before any of it is used.

`{"timeframe": "15m", "candles": {"BTC/USDT": {"timestamp": [ms, ...], "open": [...], ...}}}`. Whatever is wrong comes
back as one sentence that names the pair and the rule: a silently mended request would be a silently wrong forecast.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl

from observability.errors import CandleError, RequestError
from pipelines.candles import CANDLE_SCHEMA, PAIR, TIMESTAMP, iso, pair_column, timeframe_ms, validate_candles
from pipelines.spec import DatasetSpec

Array = np.ndarray[Any, Any]
COLUMNS = tuple(CANDLE_SCHEMA)
MAX_BYTES = 8 * 2**20
MAX_CANDLES = 10_000  # a pair; far more than any forecast reads
LATEST_MS = 4_102_444_800_000  # the year 2100: a larger time is in the wrong unit


def parse_request(body: bytes, spec: DatasetSpec, history: int) -> dict[str, pl.DataFrame]:
    """Candle tables by pair.

    Args:
        body: JSON as above, of at most `MAX_BYTES`.
        spec: whose pairs and timeframe are served.
        history: candles that a forecast needs.

    Raises:
        RequestError: anything at all is wrong with it.
    """
    payload = _decode(body)
    unknown = sorted(set(payload) - {"timeframe", "candles"})
    if unknown:
        raise RequestError(f"unknown fields {unknown[:3]}", todo="send timeframe and candles")
    if payload.get("timeframe") != spec.timeframe:
        raise RequestError(f"timeframe {_show(payload.get('timeframe'))} is not served, only {spec.timeframe!r} is")
    candles = payload.get("candles")
    if not isinstance(candles, dict) or not candles:
        raise RequestError("candles must be an object with at least one pair")
    arrays = {pair: _columns(pair, columns, spec, history) for pair, columns in candles.items()}
    tables = _tables(arrays, spec.timeframe)
    for pair, columns in arrays.items():
        _refuse_gap(pair, columns["timestamp"][-history:], spec.timeframe)
    return tables


def to_payload(frames: dict[str, pl.DataFrame], timeframe: str) -> dict[str, Any]:
    """What `parse_request` reads: the client's side of the same contract."""
    return {
        "timeframe": timeframe,
        "candles": {
            pair: {
                "timestamp": frame["timestamp"].dt.epoch("ms").to_list(),
                **{name: frame[name].to_list() for name in COLUMNS[1:]},
            }
            for pair, frame in frames.items()
        },
    }


def _decode(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BYTES:
        raise RequestError(f"the request has {len(body)} bytes, more than {MAX_BYTES}")
    try:
        payload = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the request is not JSON: {error}"[:200]) from error
    if not isinstance(payload, dict):
        raise RequestError("the request must be a JSON object")
    return payload


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _columns(pair: str, columns: Any, spec: DatasetSpec, history: int) -> dict[str, Array]:
    if pair not in spec.pairs:
        raise RequestError(f"pair {_show(pair)} is not served, only {', '.join(spec.pairs)}", where="candles")
    if not isinstance(columns, dict) or set(columns) != set(COLUMNS):
        raise RequestError(f"candles of {pair} must have exactly the columns {', '.join(COLUMNS)}")
    arrays = {name: _numbers(columns[name], f"{pair} {name}", whole=name == "timestamp") for name in COLUMNS}
    lengths = {len(values) for values in arrays.values()}
    if len(lengths) != 1:
        raise RequestError(f"columns of {pair} have different lengths {sorted(lengths)}")
    (length,) = lengths
    if not history <= length <= MAX_CANDLES:
        raise RequestError(
            f"{pair} has {length} candles, a forecast needs at least {history} (and at most {MAX_CANDLES})"
        )
    return arrays


def _tables(arrays: dict[str, dict[str, Array]], timeframe: str) -> dict[str, pl.DataFrame]:
    """One table of all pairs, checked at once, and each pair's part of it."""
    heights = [len(columns["timestamp"]) for columns in arrays.values()]
    joined = {name: np.concatenate([columns[name] for columns in arrays.values()]) for name in COLUMNS}
    table = pl.DataFrame(joined).with_columns(pl.col("timestamp").cast(TIMESTAMP), pair_column(list(arrays), heights))
    try:
        validate_candles(table, timeframe, "candles of")
    except CandleError as error:
        raise RequestError(
            error.what, where=error.where, todo="send closed candles as the exchange gives them"
        ) from error
    starts = np.cumsum([0, *heights])
    whole = table.drop(PAIR)
    return {pair: whole.slice(int(start), size) for pair, start, size in zip(arrays, starts, heights, strict=False)}


def _refuse_gap(pair: str, times: Array, timeframe: str) -> None:
    step = timeframe_ms(timeframe)
    before = np.flatnonzero(np.diff(times) != step)
    if not len(before):
        return
    last, after = (int(times[before[0] + i]) for i in (0, 1))
    raise RequestError(
        f"{pair} has a gap of {(after - last) // step - 1} candle(s) at {iso(last + step)};"
        f" a forecast reads {len(times)}",
        where="candles",
        todo="ask again when the gap lies further back",
    )


def _numbers(values: Any, where: str, *, whole: bool) -> Array:
    if not isinstance(values, list):
        raise RequestError(f"{where} must be a list of numbers")
    kinds = set(map(type, values))
    if not kinds <= ({int} if whole else {int, float}):
        raise RequestError(f"{where} holds something that is not {'a whole number' if whole else 'a number'}")
    try:
        array = np.asarray(values, dtype=np.int64 if whole else np.float64)
    except OverflowError as error:
        raise RequestError(f"{where} holds a number that is too large") from error
    if whole and array.size and not (array.min() >= 0 and array.max() < LATEST_MS):
        raise RequestError(f"{where} must be milliseconds since 1970")
    if not np.isfinite(array).all():
        raise RequestError(f"{where} holds a number that is not finite")
    return array


def _show(value: Any) -> str:
    return repr(value)[:40]
