"""Judge a recipe: folds and the sealed block as parallel Ray tasks, one fit for use, all recorded in MLflow.

A recipe (model and training configuration) is trained anew for each block on what precedes it, so every score is on
data its model never saw; the sealed block is touched here for the first time. The model for use is then fitted by the
same recipe on everything there is, its last part serving to stop early.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtst.adapters.placement import device_for, gpu_share
from mtst.adapters.tracking import Tracker
from observability.files import write_whole
from observability.priority import YIELDING
from observability.progress import NullProgress, Progress, ProgressTask

if TYPE_CHECKING:
    from mtst.adapters.distributed import Trained
    from mtst.artifact import LoadedArtifact
    from mtst.evaluation import Evaluation, EvaluationOptions
    from mtst.panel import Panel, Split
    from mtst.selection import Overfitting
    from pipelines.folds import Fold
    from pipelines.spec import DatasetSpec

FINAL_VALID_SHARE = 0.1
MIN_BLOCK_TIMES = 50  # fewer say nothing
Recipe = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class JudgeConfig:
    """How to judge.

    Attributes:
        options: None means the default baselines and costs, scored on every `test_stride`-th candle.
        trials, overfitting: how many configurations the recipe was chosen from, and what they say of that choice.
        gpus_per_fit: part of a GPU that Ray reserves for each fit; None lets every core train one, see `gpu_share`.
        workers: how many train each model together; above 1 the models are trained one after the other.
    """

    folds: int = 3
    embargo: int = 0
    test_stride: int = 1
    options: EvaluationOptions | None = None
    trials: int = 1
    overfitting: Overfitting | None = None
    gpus_per_fit: float | None = None
    workers: int = 1


@dataclass(frozen=True)
class FinalFit:
    """The model for use, as plain arrays by name, with its scaler and how its training went."""

    weights: dict[str, Any]
    scaler: dict[str, Any]
    history: tuple[dict[str, float], ...]
    train_windows: int
    start_ms: int
    end_ms: int
    seconds: float


@dataclass(frozen=True)
class Judgement:
    """`evaluation` is over all folds and the sealed block; `forecasts` is the parquet of all unseen forecasts."""

    evaluation: Evaluation
    folds: tuple[Fold, ...]
    final: FinalFit | None
    forecasts: Path
    seconds: float = field(default=0.0)


def judge(
    recipe: Recipe,
    features_path: Path | str,
    spec: DatasetSpec,
    config: JudgeConfig,
    out_dir: Path,
    *,
    progress: Progress | None = None,
    with_final: bool = True,
    title: str = "walk-forward",
) -> Judgement:
    """Evaluate a recipe on a running Ray cluster, and fit the model for use beside it.

    Args:
        recipe: {"model": MTSTConfig fields, "training": TrainingConfig fields}.
        out_dir: gets `forecasts.parquet` and `evaluation.json`.

    Raises:
        DataError: too little data for the folds. TrainingError: a fold's training diverged. SettingsError: the stride
            does not divide the traded horizon.
    """
    import ray  # not above: Ray reads its token settings while it is imported, and the session sets them first

    from mtst.evaluation import summarise
    from mtst.oos import to_table
    from mtst.panel import load_panel

    started = time.monotonic()
    panel, options = load_panel(features_path, spec), _options(config)
    options.traded(panel.horizons)  # one mistake, told here and not by every task
    folds = blocks_of(panel, config)
    shared = ray.put(panel)
    gpus = gpu_share(config.gpus_per_fit, ray.cluster_resources())
    as_task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=2, runtime_env={"env_vars": YIELDING})
    recipe = _on(recipe, device_for(gpus))
    score, fit = as_task(_score), as_task(_fit)
    with (progress or NullProgress()).task(title, total=len(folds) + with_final) as task:
        parts = (*folds, *([None] if with_final else []))
        fits = _fits(recipe, panel, parts, config.workers, storage=out_dir / "fits", task=task)
        jobs = {score.remote(shared, f, recipe, options, fits.get(f)): f"fold {n + 1}" for n, f in enumerate(folds)}
        final_job = fit.remote(shared, recipe, fits.get(None)) if with_final else None
        if final_job is not None:
            jobs[final_job] = "final fit"
        done = _gather(jobs, task)
        scored = [done[job] for job in jobs if job is not final_job]
        evaluation = summarise(scored, trials=config.trials, overfitting=config.overfitting)
        task.done(f"{evaluation.n_windows} unseen windows in {len(folds)} blocks")
    out_dir.mkdir(parents=True, exist_ok=True)
    forecasts = out_dir / "forecasts.parquet"
    to_table([each.forecasts for each in scored]).write_parquet(forecasts)
    write_whole(out_dir / "evaluation.json", json.dumps(evaluation.to_dict()))
    final = done[final_job] if final_job is not None else None
    return Judgement(evaluation, folds, final, forecasts, time.monotonic() - started)


def judge_frozen(loaded: LoadedArtifact, features_path: Path | str, config: JudgeConfig) -> Evaluation | None:
    """Score a fitted model as it stands, on the times of the same blocks that lie after everything it was fitted on.

    This is what a challenger competes with: the very weights that trade now, not their recipe trained afresh.

    Returns:
        None when no block has enough such times: the model is too young to be judged frozen.

    Raises:
        SpecError: its features are not built here.
    """
    from mtst.evaluation import MODEL, score_fold, summarise
    from mtst.panel import Split, load_panel, split_fold
    from mtst.training import predict

    spec = loaded.spec
    panel = load_panel(features_path, spec)
    # Labels of its last windows end this much later; times until then were seen.
    known_ms = int(loaded.card["fit"]["end_ms"]) + max(spec.horizons) * panel.timeframe_ms
    scored = []
    for fold in blocks_of(panel, config):
        split = split_fold(panel, fold, spec.lookback)
        unseen = split.test[panel.timestamps[split.test] > known_ms]
        if len(set(panel.timestamps[unseen].tolist())) < MIN_BLOCK_TIMES:
            continue
        values = {MODEL: predict(loaded.model, loaded.scaler, panel, unseen)}
        part = Split(split.train, split.valid, unseen)
        scored.append(score_fold(panel, fold, part, values, _options(config)))
    return summarise(scored) if scored else None


def log_judgement(tracker: Tracker, run_id: str, judgement: Judgement) -> None:
    """Record scores against every baseline, economics and the files in a run."""
    evaluation = judgement.evaluation
    metrics: dict[str, float] = {f"pinball_{name}": scores.pinball for name, scores in evaluation.scores.items()}
    for name, comparison in evaluation.comparisons.items():
        metrics[f"better_than_{name}"] = comparison.improvement
        metrics[f"p_against_{name}"] = comparison.p_value
    for name, value in evaluation.economics.items():
        metrics[f"net_return_{name}"] = value.net_return
        metrics[f"max_drawdown_{name}"] = value.max_drawdown
        metrics[f"sharpe_{name}"] = value.sharpe
    for each in evaluation.skill:
        metrics[f"ic_{each.horizon}"] = each.ic.value
        metrics[f"rank_ic_{each.horizon}"] = each.rank_ic.value
    for name, comparison in evaluation.volatility.items():
        metrics[f"volatility_better_than_{name}"] = comparison.improvement
        metrics[f"volatility_p_against_{name}"] = comparison.p_value
    if evaluation.deflated is not None:
        metrics["deflated_sharpe_probability"] = evaluation.deflated.probability
    tracker.log(run_id, metrics=metrics, tags={"evaluated_blocks": str(evaluation.n_folds)})
    tracker.log_folder(run_id, judgement.forecasts.parent, "evaluation")


def final_split(panel: Panel, lookback: int) -> Split:
    """Everything: training rows, then a validation part at the end, purged by the longest horizon."""
    import numpy as np

    from mtst.panel import Split

    rows = panel.rows(lookback)
    times = panel.timestamps[rows]
    edge = np.quantile(np.unique(times), 1 - FINAL_VALID_SHARE)
    purge = max(panel.horizons) * panel.timeframe_ms
    return Split(rows[times + purge < edge], rows[times >= edge], rows[:0])


def _fits(
    recipe: Recipe, panel: Panel, parts: tuple[Fold | None, ...], workers: int, *, storage: Path, task: ProgressTask
) -> dict[Fold | None, Trained]:
    """Models that several workers train together, by fold; None is the one for use. None at all for one worker."""
    from mtst.adapters.distributed import train_together
    from mtst.panel import split_fold

    lookback = int(recipe["model"]["lookback"])
    fits: dict[Fold | None, Trained] = {}
    for number, part in enumerate(parts if workers > 1 else ()):
        split = final_split(panel, lookback) if part is None else split_fold(panel, part, lookback)
        task.advance(0, f"{workers} workers train model {number + 1} of {len(parts)}")
        fits[part] = train_together(recipe, panel, split, workers, storage / f"model-{number + 1}")
    return fits


def _score(panel: Panel, fold: Fold, recipe: Recipe, options: EvaluationOptions, fitted: Trained | None) -> Any:
    from mtst.evaluation import evaluate_fold
    from mtst.model import MTSTConfig
    from mtst.threads import keep_freed_memory
    from mtst.training import TrainingConfig

    keep_freed_memory()
    model, training = MTSTConfig.from_dict(recipe["model"]), TrainingConfig.from_dict(recipe["training"])
    trained = None if fitted is None else fitted.result(recipe["model"])
    return evaluate_fold(panel, fold, model, training, options, trained=trained)


def _fit(panel: Panel, recipe: Recipe, fitted: Trained | None) -> FinalFit:
    from mtst.adapters.distributed import Trained
    from mtst.model import MTSTConfig
    from mtst.threads import keep_freed_memory
    from mtst.training import TrainingConfig, train

    keep_freed_memory()
    model, training = MTSTConfig.from_dict(recipe["model"]), TrainingConfig.from_dict(recipe["training"])
    split = final_split(panel, model.lookback)
    made = fitted or Trained.of(train(model, training, panel, split))
    return FinalFit(
        weights=made.weights,
        scaler=made.scaler,
        history=made.history,
        train_windows=len(split.train),
        start_ms=int(panel.timestamps[split.train].min()),
        end_ms=int(panel.timestamps[split.valid].max()),
        seconds=made.seconds,
    )


def _gather(jobs: Mapping[Any, str], task: ProgressTask) -> dict[Any, Any]:
    """Results as they come; a sentence every second, so that a person sees that it lives."""
    import ray

    done: dict[Any, Any] = {}
    started = time.monotonic()
    waiting = list(jobs)
    while waiting:
        ready, waiting = ray.wait(waiting, timeout=1.0)
        for job in ready:
            done[job] = ray.get(job)
            task.advance(1, f"{jobs[job]} done")
        if not ready:
            task.advance(0, f"{len(waiting)} to go, {time.monotonic() - started:.0f} s")
    return done


def blocks_of(panel: Panel, config: JudgeConfig) -> tuple[Fold, ...]:
    """The walk-forward folds and the sealed block, by time."""
    from pipelines.folds import final_fold, walk_forward

    longest = max(panel.horizons)
    return (
        *walk_forward(panel.timestamps, config.folds, longest, config.embargo),
        final_fold(panel.timestamps, longest, config.embargo),
    )


def _options(config: JudgeConfig) -> EvaluationOptions:
    from mtst.evaluation import EvaluationOptions

    return config.options or EvaluationOptions(test_stride=config.test_stride)


def _on(recipe: Recipe, device: str) -> Recipe:
    return {"model": dict(recipe["model"]), "training": {**recipe["training"], "device": device}}
