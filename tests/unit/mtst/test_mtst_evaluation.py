"""The whole chain on markets whose truth is known: an echo must be promoted, noise must not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtst.baselines import BaselineConfig, baseline_forecasts
from mtst.evaluation import Evaluation, EvaluationOptions, FoldScores, evaluate_fold, score_fold, summarise
from mtst.model import MTSTConfig
from mtst.panel import Panel, split_fold
from mtst.promotion import Bar, decide_promotion
from mtst.scoring import pinball_loss
from mtst.training import TrainingConfig
from observability.errors import DataError, SettingsError
from pipelines.folds import walk_forward

MODEL = MTSTConfig(lookback=32, horizons=(1, 2, 4), patches=(4, 8), d_model=16, n_heads=2, d_ff=32, dropout=0.1)
TRAINING = TrainingConfig(epochs=8, lr=3e-3, batch=128, max_windows=0)
OPTIONS = EvaluationOptions(BaselineConfig(max_rows=2000, trees=15, lookback=32), trade_horizon=1)


def evaluate(panel: Panel) -> tuple[FoldScores, ...]:
    folds = walk_forward(panel.timestamps, 2, 4, 2)
    return tuple(evaluate_fold(panel, fold, MODEL, TRAINING, OPTIONS) for fold in folds)


@pytest.fixture(scope="module")
def of_noise(make_market: Callable[..., Panel]) -> tuple[Panel, tuple[FoldScores, ...]]:
    panel = make_market(rows=2000)
    return panel, evaluate(panel)


def test_a_market_with_an_echo_yields_a_champion(make_market: Callable[..., Panel]) -> None:
    evaluation = summarise(evaluate(make_market(echo=0.7, rows=2500)))
    assert all(evaluation.comparisons[name].improvement > 0.03 for name in ("ewma", "majority"))
    assert evaluation.skill[0].ic.low > 0.3
    decision = decide_promotion(evaluation)
    assert decision.status == "champion", decision.text


def test_noise_yields_a_shadow_that_does_not_trade(of_noise: tuple[Panel, tuple[FoldScores, ...]]) -> None:
    evaluation = summarise(of_noise[1])
    decision = decide_promotion(evaluation)
    assert decision.status == "shadow"
    assert {Bar.BEATS_NAIVE, Bar.PROFIT} <= {r.code for r in decision.reasons if not r.passed}
    assert abs(evaluation.comparisons["ewma"].improvement) < 0.02


def test_an_evaluation_survives_json(of_noise: tuple[Panel, tuple[FoldScores, ...]]) -> None:
    evaluation = summarise(of_noise[1])
    assert Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict()))) == evaluation
    short = Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict(series=False))))
    assert (short.losses, short.scores) == ((), evaluation.scores)
    with pytest.raises(DataError, match="not an evaluation"):
        Evaluation.from_dict({"model": "x"})


def test_losses_and_scores_follow_from_the_kept_forecasts(of_noise: tuple[Panel, tuple[FoldScores, ...]]) -> None:
    panel, folds = of_noise
    for fold in folds:
        kept = fold.forecasts
        assert kept.timestamps.min() >= fold.fold.test_start_ms
        assert kept.timestamps.max() < fold.fold.test_end_ms
        split = split_fold(panel, fold.fold, 32)
        unit = np.stack([panel.labels[split.train][panel.pair_index[split.train] == p].std(0) for p in range(3)])
        scaled = pinball_loss(kept.values, kept.target.astype(float), kept.levels) / unit[kept.pair_index]
        assert fold.scores["mtst"].pinball == pytest.approx(scaled.mean(), rel=1e-5)
        first = kept.timestamps == fold.times_ms[0]
        assert fold.losses["mtst"][0] == pytest.approx(scaled[first].mean(), rel=1e-5)
    whole = summarise(folds)
    weights = [len(f.forecasts.timestamps) for f in folds]
    expected = np.average([f.scores["ewma"].pinball for f in folds], weights=weights)
    assert whole.scores["ewma"].pinball == pytest.approx(expected)
    assert whole.n_windows == sum(weights)


def test_a_copy_of_the_baseline_is_neither_better_nor_worse(of_noise: tuple[Panel, tuple[FoldScores, ...]]) -> None:
    panel, folds = of_noise
    split = split_fold(panel, folds[0].fold, 32)
    ewma = baseline_forecasts("ewma", panel, split, OPTIONS.baselines)
    evaluation = summarise([score_fold(panel, folds[0].fold, split, {"mtst": ewma, "ewma": ewma}, OPTIONS)])
    assert evaluation.comparisons["ewma"].improvement == 0
    assert evaluation.comparisons["ewma"].p_value == 1
    assert set(evaluation.regimes.values()) == {0.0}


def test_a_stride_thins_the_test_windows(noise: Panel) -> None:
    fold = walk_forward(noise.timestamps, 1, 4, 2)[0]
    quick = replace(TRAINING, epochs=1, max_windows=256)
    options = replace(OPTIONS, test_stride=4, trade_horizon=4, baselines=BaselineConfig(names=("ewma",)))
    scores = evaluate_fold(noise, fold, MODEL, quick, options)
    assert np.unique(np.diff(scores.times_ms)).tolist() == [4 * noise.timeframe_ms]


@given(st.lists(st.integers(1, 96), min_size=1, max_size=4, unique=True), st.integers(1, 100), st.data())
def test_the_stride_divides_the_traded_horizon(horizons: list[int], stride: int, data: st.DataObject) -> None:
    asked = data.draw(st.sampled_from([0, *horizons]))
    options = EvaluationOptions(trade_horizon=asked, test_stride=stride)
    traded = asked or max(horizons)
    if traded % stride == 0:
        assert options.traded(horizons) == traded
    else:
        with pytest.raises(SettingsError, match=rf"stride of {stride} .*use one of 1, "):
            options.traded(horizons)


def test_a_stride_that_does_not_fit_is_told_before_anything_is_trained(noise: Panel) -> None:
    fold = walk_forward(noise.timestamps, 1, 4, 2)[0]
    with pytest.raises(SettingsError, match=r"holdings of 4 candles .* stride of 3 .*use one of 1, 2, 4, or another"):
        evaluate_fold(
            noise, fold, MODEL, replace(TRAINING, epochs=10**9), replace(OPTIONS, trade_horizon=4, test_stride=3)
        )
    with pytest.raises(SettingsError, match=r"does not forecast 3 candles.*use one of 1, 2, 4"):
        replace(OPTIONS, trade_horizon=3).traded(MODEL.horizons)


def test_folds_of_different_forecasters_are_not_summed_up(of_noise: tuple[Panel, tuple[FoldScores, ...]]) -> None:
    one, two = of_noise[1]
    with pytest.raises(DataError, match="different forecasters"):
        summarise([one, replace(two, scores={"mtst": two.scores["mtst"]})])
    with pytest.raises(DataError, match="no folds"):
        summarise([])
