"""A look at series and features: what is odd is found, what is not odd is left alone."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm

from pipelines.drift import ANOTHER, CALM, inspect_features, ks, psi
from pipelines.enrich import ASSUMED
from pipelines.inspect import inspect_series, inspect_slow
from tests.unit.pipelines.pipelines_makers import START, STEP, Walk, candles, onchain

GOOD = candles(Walk(seed=5, rows=2000))
HOUR = 3_600_000
ROW = pl.int_range(pl.len())


def test_a_clean_series_has_nothing_to_tell():
    found = inspect_series(GOOD, "15m")
    assert (found.rows, found.coverage, found.gaps, found.outliers, found.extremes) == (2000, 1.0, (), (), ())
    assert (found.idle.length, found.stuck.length) == (0, 0)


def test_a_wrong_price_stands_out_with_time_and_size():
    spiked = GOOD.with_columns(close=pl.when(ROW == 700).then(pl.col("close") * 2).otherwise("close"))
    found = inspect_series(spiked, "15m")
    assert found.outliers == (START + 700 * STEP, START + 701 * STEP)
    up, down = found.extremes
    assert up.log_return == pytest.approx(np.log(2), abs=0.05)
    assert min(up.sigmas, down.sigmas) > 20


def test_a_jump_across_a_gap_belongs_to_the_gap():
    torn = GOOD.with_columns(
        pl.when(ROW > 900).then(pl.col(n) * 3).otherwise(n).alias(n) for n in ("open", "high", "low", "close")
    )
    torn = torn.filter(~ROW.is_between(890, 900))
    found = inspect_series(torn, "15m")
    assert (len(found.gaps), found.missing, found.outliers) == (1, 11, ())
    assert found.coverage == pytest.approx(1989 / 2000)


def test_silence_and_a_price_that_stands_still_are_runs():
    start = ROW.is_between(300, 339)
    quiet = GOOD.with_columns(
        volume=pl.when(start | (ROW == 10)).then(0.0).otherwise("volume"),
        **{name: pl.when(start).then(100.0).otherwise(name) for name in ("open", "high", "low", "close")},
    )
    found = inspect_series(quiet, "15m")
    assert (found.idle.length, found.idle.start_ms) == (40, START + 300 * STEP)
    assert (found.stuck.length, found.stuck.start_ms) == (39, START + 301 * STEP)  # the first one moved to that price
    assert (found.zero_volume, found.flat) == (41, 40)


def test_slow_series_tell_their_step_holes_delays_and_revisions():
    rates = pl.DataFrame({"timestamp": [START + 8 * HOUR * i for i in (0, 1, 2, 5, 6)], "funding_rate": [0.0] * 5})
    found = inspect_slow(rates.with_columns(pl.col("timestamp").cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")))
    assert (found.rows, found.step_hours, found.holes, found.delay_hours) == (5, 8.0, 1, None)
    table = onchain([(0, 28, 1.0), (1, 30, 2.0), (2, 179, 3.0), (1, 99, 2.5)])
    found = inspect_slow(table.with_columns(pl.Series(ASSUMED, [0.0, 1.0, 0.0, 0.0])))
    assert found.delay_hours == (4.0, 40.5, 155.0)
    assert (found.assumed, found.revisions, found.metrics) == (0.25, 1, ("tx_count",))
    assert inspect_slow(table.clear()).rows == 0


def test_psi_and_ks_equal_their_definitions():
    rng = np.random.default_rng(1)
    first, same, moved = rng.normal(size=40_000), rng.normal(size=40_000), rng.normal(1.0, 1.0, size=40_000)
    assert psi(first, same) < 0.002
    assert ks(first, same) < 0.02
    # Ten bins by the deciles of a standard normal, against one whose mean is 1.
    edges = np.concatenate([[-np.inf], norm.ppf(np.linspace(0.1, 0.9, 9)), [np.inf]])
    q = np.diff(norm.cdf(edges, loc=1.0))
    assert psi(first, moved) == pytest.approx(float(np.sum((q - 0.1) * np.log(q / 0.1))), rel=0.05)
    assert ks(first, moved) == pytest.approx(2 * norm.cdf(0.5) - 1, abs=0.01)
    assert psi(np.zeros(500), np.ones(500)) > ANOTHER
    assert psi(np.zeros(500), np.zeros(500)) == 0.0


def test_drift_is_told_by_month_against_the_first():
    rng = np.random.default_rng(2)
    days = 150
    times = (
        pl.Series("timestamp", START + STEP * np.arange(96 * days)).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    )
    calm, moving = rng.normal(size=96 * days), rng.normal(np.linspace(0, 2, 96 * days))
    table = pl.DataFrame({"timestamp": times, "calm": calm, "moving": moving})
    periods, (first, second) = inspect_features(table, ("calm", "moving"), {"calm": 0.0, "moving": 0.25})
    assert periods == ("2024-01", "2024-02", "2024-03", "2024-04", "2024-05")
    assert first.psi[0] == second.psi[0] == first.ks[0] == 0.0
    assert first.worst_psi < CALM < ANOTHER < second.worst_psi
    assert list(second.psi) == sorted(second.psi)
    assert (second.missing, sum(first.counts)) == (0.25, pytest.approx(96 * days * 0.99, rel=0.01))


def test_short_and_empty_tables_have_no_figures_that_mean_nothing():
    times = (
        pl.Series("timestamp", START + STEP * np.arange(96 * 20)).cast(pl.Datetime("ms")).dt.replace_time_zone("UTC")
    )
    table = pl.DataFrame({"timestamp": times, "x": [float("nan")] * 100 + [0.5] * (96 * 20 - 100)})
    periods, (report,) = inspect_features(table, ("x",), {"x": 0.05})
    assert len(periods) == len(report.psi) == 3  # weeks
    assert report.deviation == 0.0
    periods, (report,) = inspect_features(table[:50], ("x",), {"x": 1.0})
    assert report.psi == (None,)
    assert (report.worst_psi, report.worst_ks, sum(report.counts)) == (0.0, 0.0, 0)
