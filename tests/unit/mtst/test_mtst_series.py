"""The loop on plain series: windows, averaged weights, exact resume, and the baseline that stands beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.ett import load_series
from benchmarks.ett_ridge import ridge, truth
from mtst.loop import TrainingConfig
from mtst.model import MTSTConfig
from mtst.series import Series, SeriesWindows, forecast_series, train_series
from mtst.share import Share
from observability.errors import DataError, TrainingError

NETWORK = MTSTConfig(
    lookback=32, n_channels=2, horizons=tuple(range(1, 9)), patches=(8, 16), d_model=8, n_heads=2, d_ff=16, dropout=0.1,
    head="point", channel_mode="independent", forecast="channels", instance_norm="reversible",
)  # fmt: skip
QUICK = TrainingConfig(epochs=3, batch=64, max_windows=256, max_valid=0, patience=9, lr=3e-3, ema=0.9)


@pytest.fixture(scope="module")
def waves() -> Series:
    time, random = np.arange(1400), np.random.default_rng(0)
    values = np.stack([np.sin(time / 5) + time / 500, np.cos(time / 7)], 1) + 0.1 * random.standard_normal((1400, 2))
    return Series(values.astype(np.float32), 800, 1100, 1400)


def test_a_windows_future_lies_in_its_part_and_all_of_it_is_scored(waves: Series) -> None:
    windows = SeriesWindows(waves, 32, 8)
    for part, begin, end in (("train", 32, 800), ("valid", 800, 1100), ("test", 1100, 1400)):
        starts = windows.starts(part)
        assert (starts[0] + 32, starts[-1] + 40) == (begin, end)
        past, future = windows.pairs(starts[[0, -1]])
        np.testing.assert_array_equal(past[0].numpy(), waves.values[begin - 32 : begin])
        np.testing.assert_array_equal(future[1].numpy(), waves.values[end - 8 : end])
    with pytest.raises(TrainingError, match="too short"):
        waves.starts("test", 32, 400)


def test_it_learns_waves_and_so_does_ridge(waves: Series) -> None:
    result = train_series(NETWORK, replace(QUICK, epochs=6, max_windows=0), waves)
    target = truth(waves, waves.starts("test", 32, 8) + 32, 8)
    forecast = forecast_series(result, waves, "test", QUICK)
    repeated = truth(waves, waves.starts("test", 32, 8) + 31, 1)
    naive = np.abs(repeated - target).mean()
    assert np.abs(forecast - target).mean() < 0.7 * naive
    assert np.abs(ridge(waves, 32, 8)["test"] - target).mean() < 0.4 * naive


def test_averaged_weights_resume_to_the_same_bits(waves: Series, tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    whole = train_series(NETWORK, QUICK, waves)
    train_series(NETWORK, QUICK, waves, "mae", lambda epoch, _: epoch < 2, file)
    resumed = train_series(NETWORK, QUICK, waves, "mae", None, file)
    same = [torch.equal(a, b) for a, b in zip(*(r.model.state_dict().values() for r in (whole, resumed)), strict=True)]
    assert all(same)
    assert [h["valid_loss"] for h in whole.history] == [h["valid_loss"] for h in resumed.history]


def test_averaging_changes_what_is_kept_and_not_how_it_is_trained(waves: Series) -> None:
    plain = train_series(NETWORK, replace(QUICK, ema=0.0), waves)
    averaged = train_series(NETWORK, QUICK, waves)
    losses = [[h["train_loss"] for h in result.history] for result in (plain, averaged)]
    assert losses[0] == losses[1]
    assert [h["valid_loss"] for h in plain.history] != [h["valid_loss"] for h in averaged.history]


def test_bf16_trains_to_about_the_same_loss(waves: Series) -> None:
    full = train_series(NETWORK, QUICK, waves).history[-1]["valid_loss"]
    half = train_series(NETWORK, replace(QUICK, precision="bf16"), waves).history[-1]["valid_loss"]
    assert half == pytest.approx(full, rel=0.05)


@pytest.mark.parametrize(("windows", "world"), [(10, 2), (11, 2), (7, 3), (4, 1)])
def test_the_processes_shares_of_a_batch_make_the_whole(windows: int, world: int) -> None:
    chosen, losses = np.arange(windows), np.random.default_rng(0).random(windows)
    shares = [Share(rank, world) for rank in range(world)]
    assert sorted(np.concatenate([share.of(chosen) for share in shares])) == list(range(windows))
    told = [losses[share.of(chosen)].mean() * share.weight(chosen) for share in shares]
    assert np.mean(told) == pytest.approx(losses.mean())


def test_a_file_that_is_no_series_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match="not an ETT file"):
        load_series(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("date,y\n2020-01-01 00:00:00,2\n2020-01-01 01:00:00,3\n")
    with pytest.raises(DataError, match="20 months"):
        load_series(tmp_path / "b.csv")
