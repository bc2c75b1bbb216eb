"""Features of real candles: TA-Lib's values, no future, and the live path candle by candle bit for bit."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import talib

from pipelines.adapters.onchain_files import read_onchain
from pipelines.features import feature_names, get_feature, make_features
from pipelines.frames import Enrichment, enrich, feature_frames, market_closes
from pipelines.spec import DatasetSpec, FeatureRef, default_spec
from tests.unit.pipelines.feature_checks import assert_causal, assert_memory, assert_same_bits, future_changed

pytestmark = pytest.mark.realdata
LIVE_CANDLES = 2_000
TA = (
    FeatureRef("ta_rsi", {"n": 14}),
    FeatureRef("ta_macd", {"fast": 12, "slow": 26}),
    FeatureRef("ta_macd_signal", {"fast": 12, "slow": 26, "signal": 9}),
    FeatureRef("ta_natr", {"n": 14}),
    FeatureRef("ta_bbands", {"n": 20}),
    FeatureRef("ta_plus_di", {"n": 14}),
    FeatureRef("ta_minus_di", {"n": 14}),
    FeatureRef("ta_adx", {"n": 14}),
)
LEADER = "BTC/USDT"


@pytest.fixture(scope="module")
def market(shared_data: Path) -> dict[str, pl.DataFrame]:
    files = sorted((shared_data / "market" / "binance").glob("*-15m.parquet"))
    return {file.name.split("-")[0].replace("_", "/"): pl.read_parquet(file) for file in files}


def everything(pairs: tuple[str, ...], *sources: str) -> DatasetSpec:
    """Every feature that these spot candles and `sources` can feed, with windows as people use them."""
    usual = {"n": 24, "fast": 12, "slow": 26, "signal": 9, "leader": LEADER, "region": "america", "metric": "tx_count"}
    refs = {ref.column: ref for ref in (*default_spec(pairs, "15m").features, *TA)}
    for name in feature_names():
        known = get_feature(name)
        if known.source in ("", *sources):
            ref = FeatureRef(name, {key: usual[key] for key in known.parameters})
            refs.setdefault(ref.column, ref)
    return DatasetSpec(pairs, "15m", tuple(refs.values()), (1, 4, 16), 96)


@pytest.mark.parametrize(("candles", "sources"), [(LIVE_CANDLES, ("market",)), (100, ("market", "onchain"))])
def test_live_candle_by_candle_equals_the_batch_bit_for_bit(market, shared_data, candles, sources):
    pairs = tuple(market)
    spec, chain = everything(pairs, *sources), read_onchain(shared_data / "onchain" / "BTC.parquet")
    batch = feature_frames(market, spec, dict.fromkeys(pairs, Enrichment(onchain=chain)))
    times = market[LEADER]["timestamp"][spec.warmup + 300 :][:candles]
    firsts = {pair: int(table["timestamp"].search_sorted(times[0])) for pair, table in market.items()}
    assert all(table["timestamp"][firsts[pair] :][:candles].equals(times) for pair, table in market.items())
    live: dict[str, list[pl.DataFrame]] = {pair: [] for pair in pairs}
    for number, now in enumerate(times):
        # What is known at that moment, and nothing else: the last candles, and the chain of the last two months.
        seen = {pair: table[firsts[pair] + number - spec.warmup :][: spec.warmup + 1] for pair, table in market.items()}
        known = chain.filter(pl.col("available_at").is_between(now - timedelta(days=60), now + timedelta(minutes=15)))
        for pair, frame in feature_frames(seen, spec, dict.fromkeys(pairs, Enrichment(onchain=known))).items():
            live[pair].append(frame.tail(1))
    for pair in pairs:
        expected = batch[pair].slice(firsts[pair], candles)
        assert_same_bits(pl.concat(live[pair]), expected, ("close", *spec.columns), f"differs live for {pair}")


def test_indicators_equal_talib(market):
    for pair, table in market.items():
        spec = DatasetSpec((pair,), "15m", TA, (1,), 8)
        ours = make_features(table, spec)
        opened, high, low, close = (table[name].to_numpy() for name in ("open", "high", "low", "close"))
        line, signal, _ = talib.MACD(close, 12, 26, 9)
        upper, middle, _ = talib.BBANDS(close, 20, 2, 2)
        theirs = {
            "ta_rsi": talib.RSI(close, 14),
            "ta_macd": line / close,
            "ta_macd_signal": signal / close,
            "ta_natr": talib.NATR(high, low, close, 14),
            "ta_bbands": (close - middle) / (upper - middle),
            "ta_plus_di": talib.PLUS_DI(high, low, close, 14),
            "ta_minus_di": talib.MINUS_DI(high, low, close, 14),
            "ta_adx": talib.ADX(high, low, close, 14),
        }
        assert len(opened) > 20_000
        for ref in spec.features:
            # TA-Lib starts in the first row: it has forgotten that start when our window is full.
            late = slice(2 * ref.warmup, None)
            np.testing.assert_allclose(
                ours[ref.column].to_numpy()[late], theirs[ref.name][late], rtol=1e-9, atol=1e-9, err_msg=ref.column
            )
        atr = ours["ta_natr_14"].to_numpy() * close / 100
        np.testing.assert_allclose(atr[1000:], talib.ATR(high, low, close, 14)[1000:], rtol=1e-9)


def test_real_candles_are_causal_and_their_memory_is_as_declared(market, shared_data):
    pairs, chain = tuple(market), read_onchain(shared_data / "onchain" / "BTC.parquet")
    spec, closes = everything(pairs, "market", "onchain"), market_closes(market)
    extra = Enrichment(onchain=chain, market=closes)
    enriched = {pair: enrich(table[:6_000], spec, extra) for pair, table in market.items()}
    for (pair, table), other in zip(enriched.items(), list(enriched.values())[::-1], strict=True):
        for row in (1_000, 2_345, 5_998):
            assert_causal(table, future_changed(table, other, row), spec, row)
            assert_memory(table, spec, row - 900)
        assert make_features(table, spec)[spec.warmup :].null_count().sum_horizontal().item() == 0, pair
