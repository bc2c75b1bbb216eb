"""What the benchmark of the ETT family makes of a file: a series, or one sentence that says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.ett import load_series
from observability.errors import DataError

ROWS = 20 * 30 + 5  # days: 20 months and a little


@pytest.fixture
def table() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    dates = pl.datetime_range(pl.datetime(2016, 7, 1), pl.datetime(2019, 7, 1), "1d", eager=True).head(ROWS)
    return pl.DataFrame({"date": dates, "HUFL": 5 + 3 * rng.standard_normal(ROWS), "OT": rng.standard_normal(ROWS)})


def written(folder: Path, table: pl.DataFrame) -> Path:
    file = folder / "series.csv"
    table.write_csv(file, datetime_format="%Y-%m-%d %H:%M:%S")
    return file


def test_a_file_is_split_by_months_and_scaled_by_its_first_twelve(tmp_path: Path, table: pl.DataFrame) -> None:
    series = load_series(written(tmp_path, table))
    assert (series.train_end, series.valid_end, series.test_end) == (360, 480, 600)
    assert series.values.shape == (600, 2)
    np.testing.assert_allclose(series.values[:360].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(series.values[:360].std(0), 1, atol=1e-5)


def holes(table: pl.DataFrame, row: int, value: float | None) -> pl.DataFrame:
    return table.with_columns(pl.when(pl.int_range(pl.len()) == row).then(value).otherwise("OT").alias("OT"))


BAD = {
    "no dates": (lambda t: t.drop("date"), "not an ETT file"),
    "no columns": (lambda t: t.select("date"), "values are missing"),
    "text for dates": (lambda t: t.with_columns(date=pl.lit("soon")), "not an ETT file"),
    "text for numbers": (lambda t: t.with_columns(OT=pl.lit("high")), "not an ETT file"),
    "one row": (lambda t: t.head(1), "not an ETT file"),
    "a head alone": (lambda t: t.head(0), "not an ETT file"),
    "equal dates": (lambda t: t.with_columns(date=pl.col("date").first()), "do not rise by one step"),
    "falling dates": (lambda t: t.reverse(), "do not rise by one step"),
    "a missing day": (lambda t: pl.concat([t.head(9), t.tail(-10)]), "do not rise by one step"),
    "no date in a row": (
        lambda t: t.with_columns(date=pl.when(pl.int_range(pl.len()) != 9).then("date")),
        "do not rise by one step",
    ),
    "too short": (lambda t: t.head(599), "599 rows are less than 20 months"),
    "a hole": (lambda t: holes(t, 7, None), "values are missing"),
    "a NaN": (lambda t: holes(t, 599, float("nan")), "values are missing"),
    "infinite": (lambda t: holes(t, 7, float("inf")), "values are missing"),
    "a constant": (lambda t: t.with_columns(OT=pl.lit(1.5)), "a column never changes"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_of_another_kind_is_refused_in_words(tmp_path: Path, table: pl.DataFrame, name: str) -> None:
    change, message = BAD[name]
    file = written(tmp_path, change(table))
    with pytest.raises(DataError, match=message) as caught:
        load_series(file)
    assert str(file) in str(caught.value)


def test_an_empty_file_and_none_at_all(tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.touch()
    for file in (empty, tmp_path / "missing.csv"):
        with pytest.raises(DataError, match="not an ETT file"):
            load_series(file)
