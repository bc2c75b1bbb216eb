"""Ray Tune as the sweep uses it: who proposes, who ends the weak ones, what a trial reserves, what survives what."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from mtst.adapters.placement import device_for, gpu_share
from mtst.adapters.search_space import PERTURBED, default_choice, search_space
from mtst.adapters.trials import TrialsCallback

if TYPE_CHECKING:
    from mtst.adapters.sweep import SweepConfig
    from pipelines.spec import DatasetSpec

METRIC = "valid_loss"
KEPT = 4  # checkpoints a trial: Tune saves the whole search each time it drops one, and a population clones from them
# Of Tune's own logs only the one that results are read back from; TensorBoard's takes seconds to import.
QUIET = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0"}


class Population(PopulationBasedTraining):
    """Population-based training that leaves a member alone once it is at its end.

    Cloned there, it would carry settings that nothing was trained with, and the loss of the one it was cloned from.
    """

    def __init__(self, epochs: int, **options: Any) -> None:
        super().__init__(time_attr="epoch", perturbation_interval=1, **options)
        self._epochs = epochs

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Clone and perturb after each epoch but the last."""
        if result["complete"] or result["epoch"] >= self._epochs:
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))


def tune_trials(
    config: SweepConfig,
    spec: DatasetSpec,
    folder: Path,
    callback: TrialsCallback,
    shared: Mapping[str, Any],
    *,
    trial: Callable[..., None],
) -> Any:
    """Run the trials, or go on with those that `folder` holds; returns Tune's result grid.

    Args:
        shared: what every trial is given besides its choice and `job`, once through the object store.
        trial: what a trial does, see `run_trial`.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    os.environ.update(QUIET)
    gpus = gpu_share(config.gpus_per_trial, ray.cluster_resources())
    job = {"spec": spec.to_json(), "sweep": asdict(config), "device": device_for(gpus)}
    trainable = tune.with_resources(tune.with_parameters(trial, job=job, **shared), {"cpu": 1, "gpu": gpus})
    if tune.Tuner.can_restore(str(folder)):
        tuner = tune.Tuner.restore(str(folder), trainable, resume_unfinished=True, resume_errored=True)
        _attach_again(tuner, callback)
        return tuner.fit()
    space = search_space(spec.lookback, small=config.small)
    tuner = tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="min",
            num_samples=config.trials,
            search_alg=_search(config, spec),
            scheduler=_scheduler(config, space),
            # Optuna learns from what has ended; the others have nothing to wait for.
            max_concurrent_trials=_places(gpus) if config.scheduler == "asha" else None,
            time_budget_s=config.time_budget_s or None,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent.resolve()),
            callbacks=[callback, tune.logger.JsonLoggerCallback()],
            failure_config=tune.FailureConfig(max_failures=config.max_failures),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=KEPT),
            verbose=0,
        ),
    )
    return tuner.fit()


def _search(config: SweepConfig, spec: DatasetSpec) -> Any:
    """Optuna for ASHA, as it learns from who did well; else draws by the seed alone, whoever ends first."""
    first = default_choice(spec.lookback, small=config.small)
    if config.scheduler == "asha":
        return OptunaSearch(seed=config.seed, points_to_evaluate=[first])
    return BasicVariantGenerator(points_to_evaluate=[first], random_state=config.seed)


def _scheduler(config: SweepConfig, space: Mapping[str, Any]) -> Any:
    if config.scheduler == "pbt":
        return Population(config.epochs, hyperparam_mutations={name: space[name] for name in PERTURBED})
    if config.scheduler == "none":
        return FIFOScheduler()
    return ASHAScheduler(time_attr="epoch", max_t=config.epochs + 1, grace_period=1, reduction_factor=2)


def _places(gpus: float) -> int:
    """How many trials the cluster holds at a time."""
    resources = ray.cluster_resources()
    cores = int(resources.get("CPU", 1))
    return max(1, min(cores, int(resources.get("GPU", 0.0) / gpus)) if gpus else cores)


def _attach_again(tuner: Any, callback: TrialsCallback) -> None:
    # Tune restores callbacks from its own state, and offers no public way to hand over a live one.
    run_config = tuner._local_tuner.get_run_config()
    others = [each for each in run_config.callbacks or [] if not isinstance(each, TrialsCallback)]
    run_config.callbacks = [*others, callback]
