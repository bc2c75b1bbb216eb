"""Three classic ways in which the future leaks into the past: each check passes on our code and fails when planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from mtst.model import MTSTConfig
from mtst.panel import Panel, Scaler, Split, split_fold
from mtst.training import TrainingConfig, TrainResult, train
from pipelines.features import registry
from pipelines.features.bars import Bars
from pipelines.folds import Fold, final_fold, walk_forward
from pipelines.frames import feature_frame
from pipelines.spec import DatasetSpec, FeatureRef, default_spec
from tests.unit.mtst.conftest import PAIRS, simulate

LOOKBACK, HORIZONS = 32, (1, 2, 4)
MODEL = MTSTConfig(lookback=LOOKBACK, horizons=HORIZONS, patches=(4, 8), d_model=8, n_heads=2, d_ff=16, drift=True)
TRAINING = TrainingConfig(epochs=1, batch=64, max_windows=128)
Train = Callable[[MTSTConfig, TrainingConfig, Panel, Split], TrainResult]


# A feature with one bar of look-ahead.


def check_features_are_causal(candles: pl.DataFrame, spec: DatasetSpec) -> None:
    """Features of the past are the same whether or not the candles after it are known."""
    whole = feature_frame(candles, spec)
    for rows in (candles.height - 1, candles.height - 7):
        cut = feature_frame(candles.head(rows), spec)
        for column in spec.columns:
            assert cut[column].equals(whole[column].head(rows)), f"{column} knows what comes after it"


@pytest.fixture
def tomorrow() -> Iterator[str]:
    """A registered feature that reads one candle ahead."""

    @registry.feature(warmup=lambda: 1)
    def tomorrows_return(_bars: Bars) -> pl.Expr:
        return (pl.col("close").shift(-1) / pl.col("close")).log().fill_null(0.0)

    yield "tomorrows_return"
    del registry._REGISTRY["tomorrows_return"]


def test_a_feature_with_one_bar_of_look_ahead_is_caught(tomorrow: str) -> None:
    candles = simulate(0.0, 0, 400)[PAIRS[0]]
    honest = default_spec(PAIRS, "1h", lookback=LOOKBACK, horizons=HORIZONS)
    check_features_are_causal(candles, honest)
    leaking = replace(honest, features=(*honest.features, FeatureRef(tomorrow)))
    with pytest.raises(AssertionError, match="tomorrows_return knows what comes after it"):
        check_features_are_causal(candles, leaking)


# A fold without purge.


def check_no_label_crosses(panel: Panel, fold: Fold, split: Split) -> None:
    """No label of a part ends inside a later part, whether by the rows or by the fold's own bounds."""
    step, longest = panel.timeframe_ms, max(panel.horizons)
    known = [panel.timestamps[rows].max() + longest * step for rows in (split.train, split.valid)]
    assert known[0] < panel.timestamps[split.valid].min(), "a training label ends in the validation part"
    assert known[1] < panel.timestamps[split.test].min(), "a validation label ends in the test part"
    assert fold.valid_start_ms - fold.train_end_ms >= longest * step, "the fold leaves no room for the labels"


def unpurged(panel: Panel, fold: Fold, lookback: int) -> Split:
    rows = panel.rows(lookback)
    t = panel.timestamps[rows]
    parts = (
        t < fold.valid_start_ms,
        (t >= fold.valid_start_ms) & (t < fold.test_start_ms),
        (t >= fold.test_start_ms) & (t < fold.test_end_ms),
    )
    return Split(*(rows[part] for part in parts))


def test_a_fold_without_purge_is_caught(noise: Panel) -> None:
    for fold in (*walk_forward(noise.timestamps, 3, 4, 0), final_fold(noise.timestamps, 4, 0)):
        check_no_label_crosses(noise, fold, split_fold(noise, fold, LOOKBACK))
        with pytest.raises(AssertionError, match="training label ends in the validation part"):
            check_no_label_crosses(noise, fold, unpurged(noise, fold, LOOKBACK))
        abutting = replace(fold, train_end_ms=fold.valid_start_ms, valid_end_ms=fold.test_start_ms)
        with pytest.raises(AssertionError, match="no room"):
            check_no_label_crosses(noise, abutting, split_fold(noise, abutting, LOOKBACK))


# A scaler fitted on everything.


def check_training_sees_the_past_only(panel: Panel, split: Split, fit: Train = train) -> None:
    """Whatever the test part holds, scaler and weights come out the same to the last bit."""
    future = panel.timestamps >= panel.timestamps[split.test].min()
    changed = replace(
        panel,
        features=np.where(future[:, None], 50.0 * panel.features + 7.0, panel.features).astype(np.float32),
        labels=np.where(future[:, None], -panel.labels, panel.labels),
    )
    one, two = (fit(MODEL, TRAINING, each, split) for each in (panel, changed))
    assert one.scaler == two.scaler, "the scaler has seen the test part"
    for name, value in one.model.state_dict().items():
        assert value.equal(two.model.state_dict()[name]), f"{name} has seen the test part"


def test_a_scaler_fitted_on_everything_is_caught(noise: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    split = split_fold(noise, walk_forward(noise.timestamps, 1, 4, 2)[0], LOOKBACK)
    check_training_sees_the_past_only(noise, split)
    fit = Scaler.fit

    def leaking(config: MTSTConfig, training: TrainingConfig, panel: Panel, parts: Split) -> TrainResult:
        with monkeypatch.context() as patch:
            patch.setattr(Scaler, "fit", lambda _rows, columns: fit(panel.features, columns))
            return train(config, training, panel, parts)

    with pytest.raises(AssertionError, match="the scaler has seen the test part"):
        check_training_sees_the_past_only(noise, split, leaking)
