"""One fold: train and fit the baselines on its past, forecast its test windows, and score all of them alike.

The loss that decides is the pinball loss divided, pair by pair and horizon by horizon, by the standard deviation of the
training returns: a constant of the fold, so the score stays proper, and no pair or horizon dominates by its size.
Everything is kept as series over time, mean over pairs, as pairs move together and are not independent samples.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mtst.baselines import BaselineConfig, baseline_forecasts
from mtst.economics import CostPolicy, PeriodReturns, buy_and_hold, holdings, trade
from mtst.model import MTSTConfig
from mtst.panel import Array, Panel, Split, split_fold
from mtst.scoring import Scores, central_sigma, expected_return, pinball_loss, score
from mtst.training import TrainingConfig, TrainResult, predict, train
from observability.errors import SettingsError
from pipelines.folds import Fold

MODEL = "mtst"
# Terciles of the training period, by mean volatility and by mean return over the traded horizon, both over pairs.
REGIMES = {"volatility": ("calm", "normal", "wild"), "trend": ("falling", "sideways", "rising")}


@dataclass(frozen=True)
class EvaluationOptions:
    """What to compare with and how to trade; `trade_horizon` 0 means the longest, which `test_stride` must divide."""

    baselines: BaselineConfig = field(default_factory=BaselineConfig)
    costs: CostPolicy = field(default_factory=CostPolicy)
    trade_horizon: int = 0
    test_stride: int = 1

    def traded(self, horizons: Sequence[int]) -> int:
        """The traded one of a model's horizons, in candles.

        Raises:
            SettingsError: it is not among them, or the stride does not divide it: holdings that end between two test
                times could not be passed on to the next decision.
        """
        found = self.trade_horizon or max(horizons)
        if found not in horizons:
            known = ", ".join(map(str, horizons))
            raise SettingsError(
                f"the model does not forecast {found} candles", where="trade_horizon", todo=f"use one of {known}"
            )
        if self.test_stride < 1 or found % self.test_stride:
            fitting = ", ".join(str(step) for step in range(1, found + 1) if found % step == 0)
            raise SettingsError(
                f"holdings of {found} candles cannot be judged with a stride of {self.test_stride} candles",
                where="test_stride",
                todo=f"use one of {fitting}, or another trade_horizon",
            )
        return found


@dataclass(frozen=True)
class OutOfSample:
    """Forecasts of a model trained before their time: `values` [n, H, Q] log-returns, `target` [n, H].

    `trained_until_ms` is when the last label that the model learned from was known; every timestamp is later.
    """

    pairs: tuple[str, ...]
    horizons: tuple[int, ...]
    levels: tuple[float, ...]
    timestamps: Array
    pair_index: Array
    values: Array
    target: Array
    scale: Array
    trained_until_ms: int = 0


@dataclass(frozen=True)
class FoldScores:
    """One fold's outcome: scores and series by forecaster ("mtst" and the baselines), trades, forecasts."""

    fold: Fold
    scores: dict[str, Scores]
    times_ms: Array  # [T] distinct test times
    losses: dict[str, Array]  # [T] mean scaled pinball loss at each time
    surprise: dict[str, Array]  # [T] mean (r / sigma)^2 of the shortest horizon, and
    log_variance: dict[str, Array]  # [T] mean ln sigma^2: what the volatility's score is made of
    regimes: dict[str, Array]  # by kind, [T] index into REGIMES[kind]
    trades: dict[str, PeriodReturns]  # "mtst" and "hold"
    forecasts: OutOfSample
    step_ms: int  # length of the traded horizon, and of a period of `trades`
    overlap: int  # longest horizon, in test times
    costs: CostPolicy
    seconds: dict[str, float]
    history: tuple[dict[str, float], ...]


def evaluate_fold(
    panel: Panel,
    fold: Fold,
    model_config: MTSTConfig,
    training_config: TrainingConfig,
    options: EvaluationOptions | None = None,
    *,
    trained: TrainResult | None = None,
) -> FoldScores:
    """Train on the fold's training part, fit the baselines there, score all of them on its test part.

    Args:
        trained: what `train` gave for this fold, where it ran elsewhere.

    Raises:
        DataError: the fold has no windows. TrainingError: training cannot run or diverged. SettingsError: see
            `EvaluationOptions.traded`.
    """
    options = options or EvaluationOptions()
    options.traded(panel.horizons)  # told before hours of training
    baselines = replace(options.baselines, lookback=model_config.lookback)  # the same windows
    split = split_fold(panel, fold, model_config.lookback)
    if options.test_stride > 1:
        on_grid = panel.timestamps[split.test] // panel.timeframe_ms % options.test_stride == 0
        split = Split(split.train, split.valid, split.test[on_grid])
    began = time.perf_counter()
    result = trained or train(model_config, training_config, panel, split)
    values = {MODEL: predict(result.model, result.scaler, panel, split.test)}
    seconds = {MODEL: time.perf_counter() - began}
    for name in baselines.names:
        began = time.perf_counter()
        values[name] = baseline_forecasts(name, panel, split, baselines)
        seconds[name] = time.perf_counter() - began
    return score_fold(panel, fold, split, values, options, seconds=seconds, history=result.history)


def score_fold(
    panel: Panel,
    fold: Fold,
    split: Split,
    values: Mapping[str, Array],
    options: EvaluationOptions,
    *,
    seconds: Mapping[str, float] | None = None,
    history: Sequence[dict[str, float]] = (),
) -> FoldScores:
    """Score given forecasts of `split.test`, `values["mtst"]` and others, each [n, H, Q].

    Raises:
        SettingsError: see `EvaluationOptions.traded`.
    """
    rows, levels = split.test, options.baselines.levels
    target, times, pair = panel.labels[rows].astype(np.float64), panel.timestamps[rows], panel.pair_index[rows]
    unit = _unit(panel, split)
    distinct, at = np.unique(times, return_inverse=True)

    def by_time(numbers: Array) -> Array:
        mean: Array = np.bincount(at, numbers) / np.bincount(at)
        return mean

    sigma = {name: central_sigma(v, levels)[:, 0] for name, v in values.items()}
    h = options.traded(panel.horizons)
    expected = expected_return(values[MODEL].astype(np.float64), levels)[:, panel.horizons.index(h)]
    held = holdings(panel, rows, h, options.costs)
    known = np.concatenate([split.train, split.valid])
    return FoldScores(
        fold=fold,
        scores={
            name: score(name, v, target, unit, levels=levels, horizons=panel.horizons) for name, v in values.items()
        },
        times_ms=distinct,
        losses={name: by_time((pinball_loss(v, target, levels) / unit).mean(1)) for name, v in values.items()},
        surprise={name: by_time((target[:, 0] / each) ** 2) for name, each in sigma.items()},
        log_variance={name: by_time(2 * np.log(each)) for name, each in sigma.items()},
        regimes=_regimes(panel, split, h),
        trades={
            MODEL: trade(expected, held, options.costs),
            "hold": buy_and_hold(held, options.costs),
        },
        forecasts=OutOfSample(
            panel.pairs,
            panel.horizons,
            tuple(levels),
            times,
            pair,
            values[MODEL],
            panel.labels[rows],
            panel.scale[rows],
            int(panel.timestamps[known].max()) + (max(panel.horizons) + 1) * panel.timeframe_ms,
        ),
        step_ms=held.step_ms,
        overlap=max(1, max(panel.horizons) // options.test_stride),
        costs=options.costs,
        seconds=dict(seconds or {}),
        history=tuple(history),
    )


def _unit(panel: Panel, split: Split) -> Array:
    """Standard deviation of each pair's training returns, [n_test, H]; the pooled one for a pair without a past."""
    pooled = panel.labels[split.train].astype(np.float64).std(0)
    table = np.empty((len(panel.pairs), len(panel.horizons)))
    for pair in range(len(panel.pairs)):
        past = split.train[panel.pair_index[split.train] == pair]
        own = panel.labels[past].astype(np.float64).std(0) if len(past) > 1 else pooled
        table[pair] = np.where(own > 0, own, np.where(pooled > 0, pooled, 1.0))
    unit: Array = table[panel.pair_index[split.test]]
    return unit


def _regimes(panel: Panel, split: Split, h: int) -> dict[str, Array]:
    """Regimes of each distinct test time, known at that time, against terciles of the training times."""

    def at_times(numbers: Array, rows: Array) -> Array:
        _, at = np.unique(panel.timestamps[rows], return_inverse=True)
        mean: Array = np.bincount(at, numbers[rows]) / np.bincount(at)
        return mean

    past = np.zeros(len(panel))
    past[h:] = np.log(panel.close[h:] / panel.close[:-h])  # windows are longer than h, so no window's crosses a pair
    measures = {"volatility": np.log(panel.scale.astype(np.float64)), "trend": past / panel.scale}
    found = {}
    for kind, measure in measures.items():
        edges = np.quantile(at_times(measure, split.train), (1 / 3, 2 / 3))
        found[kind] = np.searchsorted(edges, at_times(measure, split.test))
    return found
