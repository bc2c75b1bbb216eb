from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mtst.inference import Windows
from mtst.model import MTSTConfig
from mtst.panel import Panel, Split, split_fold
from mtst.training import TrainingConfig, TrainResult, pinball, predict, train
from observability.errors import TrainingError
from pipelines.folds import walk_forward

MODEL = MTSTConfig(lookback=32, horizons=(1, 2, 4), patches=(4, 8), d_model=8, n_heads=2, d_ff=16)
QUICK = TrainingConfig(epochs=3, batch=128, max_windows=1024, patience=9)


def split_of(panel: Panel) -> Split:
    return split_fold(panel, walk_forward(panel.timestamps, 1, 4, 2)[0], 32)


def weights(result: TrainResult) -> dict[str, Tensor]:
    return result.model.state_dict()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_the_seed_decides_everything_and_the_callers_randomness_is_untouched(noise: Panel) -> None:
    split = split_of(noise)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one = train(MODEL, QUICK, noise, split)
    assert torch.equal(torch.rand(1), expected)
    torch.rand(17)
    assert same(weights(one), weights(train(MODEL, QUICK, noise, split)))
    assert not same(weights(one), weights(train(MODEL, replace(QUICK, seed=1), noise, split)))


def test_a_run_cut_off_goes_on_to_the_same_weights(noise: Panel, tmp_path: Path) -> None:
    split, file = split_of(noise), tmp_path / "state.safetensors"
    whole = train(MODEL, QUICK, noise, split)
    cut = train(MODEL, QUICK, noise, split, lambda epoch, _: epoch < 2, file)
    assert len(cut.history) == 2
    resumed = train(MODEL, QUICK, noise, split, None, file)
    assert same(weights(whole), weights(resumed))
    assert [h["valid_loss"] for h in resumed.history] == [h["valid_loss"] for h in whole.history]
    again = train(MODEL, QUICK, noise, split, lambda *_: pytest.fail("trained on after the last epoch"), file)
    assert same(weights(whole), weights(again))


def test_only_a_population_goes_on_from_other_rates(noise: Panel, tmp_path: Path) -> None:
    split, file = split_of(noise), tmp_path / "state.safetensors"
    member = replace(QUICK, perturbed=True)
    train(MODEL, member, noise, split, lambda *_: False, file)
    clone = train(replace(MODEL, dropout=0.11), replace(member, lr=5e-4), noise, split, None, file)
    assert [entry["epoch"] for entry in clone.history] == [1, 2, 3]
    with pytest.raises(TrainingError, match="another run"):
        train(replace(MODEL, d_ff=24), member, noise, split, None, file)
    file.unlink()
    train(MODEL, QUICK, noise, split, lambda *_: False, file)
    with pytest.raises(TrainingError, match="another run"):
        train(MODEL, replace(QUICK, lr=5e-4), noise, split, None, file)


def test_training_goes_on_where_no_checkpoint_fits_on_the_disk(noise: Panel, tmp_path: Path) -> None:
    split, file = split_of(noise), tmp_path / "state.safetensors"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_epoch(epoch: int, _: dict[str, float]) -> bool:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096 if epoch == 1 else limit[0], limit[1]))  # epoch 2 does not fit
        sizes.append(file.stat().st_size)
        left.append([each.name for each in tmp_path.iterdir()])
        return True

    sizes: list[int] = []
    left: list[list[str]] = []
    try:
        result = train(MODEL, QUICK, noise, split, on_epoch, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert same(weights(result), weights(train(MODEL, QUICK, noise, split)))
    assert sizes[0] == sizes[1] < sizes[2]  # the longer history of the third epoch; the second one kept the first's
    assert left == [[file.name]] * 3  # nothing half-written takes the room that is left


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(noise: Panel, tmp_path: Path) -> None:
    split, file = split_of(noise), tmp_path / "state.safetensors"
    train(MODEL, replace(QUICK, epochs=1), noise, split, None, file)
    with pytest.raises(TrainingError, match="another run"):
        train(MODEL, QUICK, noise, split, None, file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TrainingError, match="cannot be read"):
        train(MODEL, QUICK, noise, split, None, file)
    save_file({"x": torch.zeros(1)}, file)
    with pytest.raises(TrainingError, match="another run"):
        train(MODEL, QUICK, noise, split, None, file)


def test_an_echo_is_learned_and_noise_is_not(make_market: Callable[..., Panel], noise: Panel) -> None:
    config = replace(QUICK, epochs=8, lr=5e-3, max_windows=0)
    echo = make_market(echo=0.8, rows=2500)
    learned = train(MODEL, config, echo, split_of(echo))
    assert 1 - learned.best_loss / learned.history[0]["base_loss"] > 0.05
    nothing = train(MODEL, config, noise, split_of(noise))
    assert abs(1 - nothing.best_loss / nothing.history[0]["base_loss"]) < 0.02


def test_test_rows_are_never_looked_at(noise: Panel) -> None:
    split = split_of(noise)
    test = np.isin(np.arange(len(noise)), split.test)
    spoiled = replace(noise, labels=np.where(test[:, None], 1e3, noise.labels).astype(np.float32))
    assert same(weights(train(MODEL, QUICK, noise, split)), weights(train(MODEL, QUICK, spoiled, split)))


class Leaky(Windows):
    """The classic mistake: windows that end one row too late."""

    def inputs(self, rows: np.ndarray) -> Tensor:
        return super().inputs(rows + 1)


def test_a_forecast_does_not_see_past_its_window_and_a_planted_leak_is_caught(noise: Panel) -> None:
    split = split_of(noise)
    result = train(MODEL, replace(QUICK, epochs=1), noise, split)
    rows = split.test[:50]
    future = np.random.default_rng(0).standard_normal(noise.features.shape).astype(np.float32)
    after = np.arange(len(noise)) > rows.max()
    changed = replace(noise, features=np.where(after[:, None], future, noise.features).astype(np.float32))

    def sees_the_future(kind: type[Windows]) -> bool:
        one, two = (result.model(kind(p, result.scaler, MODEL).inputs(rows)) for p in (noise, changed))
        return not torch.equal(one, two)

    assert not sees_the_future(Windows)
    assert sees_the_future(Leaky)
    before, then = (predict(result.model, result.scaler, p, rows) for p in (noise, changed))
    np.testing.assert_array_equal(before, then)


def test_divergence_is_named(noise: Panel) -> None:
    with pytest.raises(TrainingError, match="diverged") as caught:
        train(MODEL, replace(QUICK, lr=1e30), noise, split_of(noise))
    assert "epoch 1" in str(caught.value)
    assert "lower the learning rate" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"n_channels": 5}, "5 channels"),
        ({"horizons": (1, 2)}, "horizons"),
    ],
)
def test_a_model_that_does_not_fit_the_panel_is_refused(noise: Panel, changes: dict[str, object], says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        train(replace(MODEL, **changes), QUICK, noise, split_of(noise))


def test_too_little_or_missing_data_is_refused(noise: Panel) -> None:
    split = split_of(noise)
    with pytest.raises(TrainingError, match="too few"):
        train(MODEL, QUICK, noise, replace(split, train=split.train[:1]))
    holes = noise.labels.copy()
    holes[split.train[3]] = np.nan
    with pytest.raises(TrainingError, match="missing"):
        train(MODEL, QUICK, replace(noise, labels=holes), split)


def test_a_callback_hears_every_epoch_and_patience_ends_the_run(noise: Panel) -> None:
    heard: list[int] = []

    def on_epoch(epoch: int, metrics: dict[str, float]) -> bool:
        heard.append(epoch)
        assert {"train_loss", "valid_loss", "base_loss", "skill", "lr", "windows_per_second"} <= metrics.keys()
        return True

    result = train(MODEL, replace(QUICK, epochs=30, patience=2, lr=5e-3), noise, split_of(noise), on_epoch)
    assert heard == list(range(1, len(result.history) + 1))
    assert len(heard) == result.best_epoch + 2
    assert not result.model.training


def test_the_point_head_trains_on_squares(noise: Panel) -> None:
    result = train(replace(MODEL, head="point"), QUICK, noise, split_of(noise))
    values = predict(result.model, result.scaler, noise, split_of(noise).test)
    assert values.shape[1:] == (3, 1)
    assert np.isfinite(values).all()


def test_training_loss_is_the_pinball_loss() -> None:
    levels, forecast, target = torch.tensor([0.1, 0.5]), torch.tensor([[[1.0, 3.0]]]), torch.tensor([[2.0]])
    assert pinball(levels, forecast, target).tolist() == [[[pytest.approx(0.1), pytest.approx(0.5)]]]


def test_a_linear_start_finds_at_once_what_steps_find_slowly(make_market: Callable[..., Panel]) -> None:
    panel = make_market(echo=0.5, lag=1)
    split = split_fold(panel, walk_forward(panel.timestamps, 1, 4, 2)[0], 32)
    quick = replace(QUICK, epochs=1, max_windows=256)
    plain, started = (train(replace(MODEL, drift=drift), quick, panel, split) for drift in (False, True))
    assert started.best_loss < 0.95 * plain.best_loss
    assert started.history[0]["base_loss"] == pytest.approx(plain.history[0]["base_loss"])


def test_a_linear_start_adds_nothing_where_nothing_is_linear(noise: Panel) -> None:
    split = split_fold(noise, walk_forward(noise.timestamps, 1, 4, 2)[0], 32)
    result = train(replace(MODEL, drift=True), replace(QUICK, epochs=1), noise, split)
    assert float(result.model.drift_weight.abs().max()) < 0.05
    assert result.best_loss < 1.01 * result.history[0]["base_loss"]
