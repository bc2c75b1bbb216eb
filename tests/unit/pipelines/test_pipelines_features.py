"""Every registered feature: causal, of finite memory, the same in batch and live, silent about gaps, free of scale."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.errors import CandleError, SpecError
from pipelines.features import Bars, Feature, feature_names, make_features, registry
from pipelines.features.windows import Doublings, Spreads, extreme, memory, weight
from pipelines.frames import Enrichment, feature_frame, feature_frames, market_closes
from pipelines.spec import DatasetSpec, FeatureRef
from tests.unit.pipelines.feature_checks import assert_causal, assert_memory, assert_same_bits, future_changed
from tests.unit.pipelines.pipelines_makers import EXAMPLES, PAIRS, STEP, WALKS, Walk, candles, enriched, spec_of

SPEC = spec_of()


def another(walk: Walk) -> pl.DataFrame:
    """Quite another market of as many rows."""
    return enriched(Walk(seed=walk.seed + 77, rows=walk.rows, price=3.0, sigma=0.2, silent=0.5))


def only(name: str, **params: int | str) -> DatasetSpec:
    return DatasetSpec(PAIRS, "15m", (FeatureRef(name, params),), (1,), 8)


def test_every_registered_feature_is_tested_here():
    assert set(EXAMPLES) == set(feature_names())


@settings(max_examples=40, deadline=None)
@given(WALKS, st.data())
def test_no_feature_reads_the_future(walk, data):
    row = data.draw(st.integers(0, walk.rows - 2))
    table = enriched(walk)
    assert_causal(table, future_changed(table, another(walk), row), SPEC, row)


@settings(max_examples=40, deadline=None)
@given(WALKS, st.data())
def test_history_beyond_the_declared_warmup_changes_no_bit(walk, data):
    table = enriched(walk)
    assert_memory(table, SPEC, data.draw(st.integers(1, walk.rows - 2)))
    whole = make_features(table, SPEC)
    for ref in SPEC.features:
        assert whole[ref.column].slice(ref.warmup).null_count() == 0, f"{ref.column} declares too short a warm-up"


# What leaks in practice, written as its author would write it.
LEAKS = {
    "next_close": lambda bars, n: (pl.col("close").shift(-n) / pl.col("close")).log(),
    "centred_mean": lambda bars, n: pl.col("close").rolling_mean(2 * n + 1, center=True) / pl.col("close"),
    "mean_of_all": lambda bars, n: pl.col("close") / pl.col("close").mean(),
    "backfilled": lambda bars, n: pl.when(pl.int_range(pl.len()) % n == 0).then(pl.col("volume")).backward_fill(),
    # A join by the day that is described instead of the time it was known: each candle sees its whole day.
    "joined_by_day": lambda bars, n: pl.col("volume").mean().over(pl.col("timestamp").dt.date()),
    "smoothed_backwards": lambda bars, n: np.convolve(bars.column("close"), np.ones(2 * n + 1), mode="same"),
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_leak_is_caught(monkeypatch, name):
    build = LEAKS[name]
    monkeypatch.setitem(registry._REGISTRY, name, Feature(name, build, lambda n: 0, "", 1))
    table = enriched(Walk(seed=5))
    with pytest.raises(AssertionError, match="reads the future"):
        assert_causal(table, future_changed(table, another(Walk(seed=5)), 61), only(name, n=2), 61)


def test_a_future_join_of_another_table_is_caught(monkeypatch):
    def joined(bars: Bars) -> pl.Expr:
        later = bars.table.select(pl.col("timestamp").dt.offset_by("-15m"), nearest="mvrv")
        return bars.table.join_asof(later, on="timestamp", strategy="nearest")["nearest"].to_numpy()

    monkeypatch.setitem(registry._REGISTRY, "joined", Feature("joined", joined, lambda: 0, "", 1))
    table = enriched(Walk(seed=6))
    with pytest.raises(AssertionError, match="reads the future"):
        assert_causal(table, future_changed(table, another(Walk(seed=6)), 40), only("joined"), 40)


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("recursion", lambda bars: pl.col("close").ewm_mean(span=20)),
        ("running_sum", lambda bars: pl.col("close").rolling_mean(20)),
    ],
)
def test_values_that_depend_on_where_history_starts_are_caught(monkeypatch, name, build):
    monkeypatch.setitem(registry._REGISTRY, name, Feature(name, build, lambda: 20, "", 1))
    # One long table, since a residue of rounding need not show in a few rows.
    table = enriched(Walk(seed=2, rows=2_000))
    with pytest.raises(AssertionError, match="more than its declared warm-up"):
        assert_memory(table, only(name), 30)


def test_candle_by_candle_equals_batch_bit_for_bit():
    tables = {pair: candles(Walk(seed=11 + number, rows=260)) for number, pair in enumerate(PAIRS)}
    spec = spec_of(*(name for name in EXAMPLES if registry.get_feature(name).source in ("", "market")))
    batch = feature_frames(tables, spec)
    assert_same_bits(batch[PAIRS[0]], alone(tables, spec), spec.columns, "differs between one pair and many")
    for end in range(spec.history, 261, 3):
        seen = {pair: table.slice(end - spec.history, spec.history) for pair, table in tables.items()}
        live = feature_frames(seen, spec)
        for pair in PAIRS:
            newest = batch[pair].slice(end - spec.lookback, spec.lookback)
            assert_same_bits(live[pair].slice(spec.warmup), newest, spec.columns, f"differs live for {pair}")


def alone(tables: dict[str, pl.DataFrame], spec: DatasetSpec) -> pl.DataFrame:
    return feature_frame(tables[PAIRS[0]], spec, Enrichment(market=market_closes(tables)))


@settings(max_examples=30, deadline=None)
@given(WALKS)
def test_values_are_finite_and_null_only_in_the_warmup(walk):
    result = make_features(enriched(walk), SPEC)
    assert result.height == walk.rows
    assert result.columns == ["timestamp", "close", *SPEC.columns]
    for ref in SPEC.features:
        column = result[ref.column]
        assert column.dtype == pl.Float64
        assert column.null_count() == ref.warmup
        assert column.drop_nulls().is_finite().all(), ref.column


@settings(max_examples=20, deadline=None)
@given(WALKS, st.sampled_from([1e-6, 1000.0]))
def test_features_do_not_know_the_price_level_or_the_volume_unit(walk, factor):
    table = enriched(walk)
    scaled = table.with_columns(
        pl.col("open", "high", "low", "close", "volume", "mark_close", f"close:{PAIRS[0]}") * factor
    )
    left, right = make_features(table, SPEC), make_features(scaled, SPEC)
    for name in SPEC.columns:
        np.testing.assert_allclose(left[name].to_numpy(), right[name].to_numpy(), rtol=1e-5, atol=1e-5, err_msg=name)


def test_after_a_gap_a_window_starts_anew():
    table = enriched(Walk(seed=2, rows=100))
    gapped = pl.concat([table[:50], table[60:]])
    result = make_features(gapped, SPEC)
    fresh = make_features(table[60:], SPEC)
    assert_same_bits(result.slice(50), fresh, SPEC.columns, "reaches across a gap")


def test_default_spec_on_a_known_table():
    # A price that doubles once: by hand.
    closes = [100.0] * 5 + [200.0] * 5
    table = candles(Walk(seed=0, rows=10)).with_columns(open=pl.Series(closes), close=pl.Series(closes))
    table = table.with_columns(high=pl.col("close") * 1.1, low=pl.col("close") * 0.9, volume=pl.lit(5.0))
    result = make_features(table, spec_of("log_return", "log_vol_close", "rsi", "volume_z", "hour_sin", "range_ratio"))
    assert result["log_return_3"].to_list()[3:] == pytest.approx([0, 0, *[math.log(2)] * 3, 0, 0])
    assert result["log_vol_close_5"][5] == pytest.approx(math.log(math.log(2) / math.sqrt(5)))
    assert result["rsi_4"].to_list()[4:] == pytest.approx([0, 1, 1, 1, 1, 0])
    assert set(result["volume_z_7"].drop_nulls().to_list()) == {0.0}
    assert result["hour_sin"][1] == pytest.approx(math.sin(2 * math.pi / 96))
    assert result["range_ratio_6"].drop_nulls().to_list() == pytest.approx([0] * 5)


def test_macd_agrees_with_recursive_means_to_the_cut():
    table = candles(Walk(seed=8, rows=300))
    value = make_features(table, only("macd_norm", fast=12, slow=26))["macd_norm_12_26"]
    x = table["close"].log()
    spread = x.ewm_mean(span=12, adjust=False) - x.ewm_mean(span=26, adjust=False)
    late = slice(200, 300)
    assert np.corrcoef(value.to_numpy()[late], spread.to_numpy()[late])[0, 1] > 0.99


def test_wrong_input_is_named():
    table = candles(Walk(seed=1))
    with pytest.raises(SpecError, match="funding_rate"):
        make_features(table, spec_of("funding"))
    with pytest.raises(CandleError, match="'volume' is missing"):
        make_features(table.drop("volume"), spec_of("rsi"))
    with pytest.raises(SpecError, match="need onchain data"):
        feature_frame(table, spec_of("onchain_netflow"))
    broken = table.with_columns(timestamp=table["timestamp"].dt.offset_by("1m"))
    with pytest.raises(CandleError, match="off the 15m grid"):
        feature_frame(broken, spec_of("rsi"))
    assert table["timestamp"].dt.timestamp("ms").diff()[1] == STEP


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**31), st.sampled_from([1.0, 0.93, 0.5]))
def test_windows_are_what_their_names_say(n, seed, keep):
    x = np.random.default_rng(seed).normal(100, 1, 60)
    sums = Doublings(x, keep)
    parts = [x[row - n + 1 : row + 1] for row in range(n - 1, 60)]
    weights = keep ** np.arange(n)[::-1]
    np.testing.assert_allclose(sums.total(n)[n - 1 :], [(part * weights).sum() for part in parts], rtol=1e-12)
    assert np.isnan(sums.total(n)[: n - 1]).all()
    assert weight(keep, n) == pytest.approx(weights.sum()) if keep < 1 else True
    spread = Spreads(Doublings(x)).total(n)[n - 1 :]
    np.testing.assert_allclose(spread, [((part - part.mean()) ** 2).sum() for part in parts], rtol=1e-9, atol=1e-20)
    assert extreme(x, n, np.maximum)[n - 1 :].tolist() == [part.max() for part in parts]
    assert extreme(x, n, np.minimum)[n - 1 :].tolist() == [part.min() for part in parts]


def test_a_constant_window_has_no_spread_and_memory_is_long_enough():
    assert not Spreads(Doublings(np.full(50, 0.1))).total(32)[31:].any()
    for keep in (0.5, 13 / 14, 25 / 27, 0.99):
        assert keep ** memory(keep) <= 1e-13 < keep ** (memory(keep) * 0.7)


def test_yang_zhang_beta_and_rank_by_hand():
    table = enriched(Walk(seed=9, rows=60))
    result = make_features(table, spec_of("log_vol_yang_zhang", "market_beta", "return_rank", "market_return"))
    o, h, low, c = (np.log(table[name].to_numpy()) for name in ("open", "high", "low", "close"))
    rows, n = slice(54, 60), 6
    jumps, bodies = o[54:60] - c[53:59], (c - o)[rows]
    rs = ((h - c) * (h - o) + (low - c) * (low - o))[rows].mean()
    k = 0.34 / (1.34 + (n + 1) / (n - 1))
    variance = jumps.var(ddof=1) + k * bodies.var(ddof=1) + (1 - k) * rs
    assert result["log_vol_yang_zhang_6"][-1] == pytest.approx(0.5 * math.log(variance))
    closes = np.log(np.stack([table[f"close:{pair}"].to_numpy() for pair in PAIRS]))
    moves = np.diff(closes, axis=1)[:, -n:]
    market = moves.mean(0)
    beta = np.cov(moves[0], market, ddof=0)[0, 1] / market.var()
    assert result["market_beta_6"][-1] == pytest.approx(beta)
    three = closes[:, -1] - closes[:, -4]
    assert result["return_rank_3"][-1] == pytest.approx(((three < three[0]).sum() - (three > three[0]).sum()) / 2)
    assert result["market_return_2"][-1] == pytest.approx((closes[:, -1] - closes[:, -3]).mean())


def test_one_pair_that_is_not_listed_yet_leaves_the_others_a_market():
    tables = {pair: candles(Walk(seed=3 + number, rows=120)) for number, pair in enumerate(PAIRS)}
    tables["SOL/USDT"] = tables["SOL/USDT"][60:]
    spec = DatasetSpec(PAIRS, "15m", (FeatureRef("market_return", {"n": 1}),), (1,), 8)
    result = feature_frames(tables, spec)["BTC/USDT"]
    two = [math.log(tables[pair]["close"][30] / tables[pair]["close"][29]) for pair in PAIRS[:2]]
    assert result["market_return_1"][30] == pytest.approx(sum(two) / 2)
    with pytest.raises(SpecError, match=r"'SOL/USDT'.* are missing"):
        feature_frames({pair: tables[pair] for pair in PAIRS[:2]}, spec)
