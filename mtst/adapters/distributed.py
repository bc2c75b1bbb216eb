"""One big model trained by several workers: Ray Train starts them, and again when one dies, and keeps checkpoints.

Each worker takes its share of every batch (`mtst.share`); gradients are averaged by gloo on processors and by NCCL on
GPUs, a whole one a worker. What comes out is what one worker would have trained on the whole batches, up to rounding.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from observability.errors import ClusterError, TrainingError
from observability.priority import step_back

if TYPE_CHECKING:
    from mtst.panel import Panel, Split
    from mtst.training import TrainResult

STATE = "state.safetensors"
MAX_FAILURES = 2


@dataclass(frozen=True)
class Trained:
    """What `mtst.training.train` gave, as plain values: weights by name, scaler, one dictionary an epoch.

    `resumed_after` is the epoch whose checkpoint the last start of the workers went on from, 0 without any.
    """

    weights: dict[str, Any]
    scaler: dict[str, Any]
    history: tuple[dict[str, float], ...]
    seconds: float
    resumed_after: int = 0

    @classmethod
    def of(cls, result: TrainResult, resumed_after: int = 0) -> Trained:
        """What travels between processes."""
        weights = {name: value.numpy() for name, value in result.model.state_dict().items()}
        return cls(weights, result.scaler.to_dict(), result.history, result.seconds, resumed_after)

    def result(self, model: Mapping[str, Any]) -> TrainResult:
        """As `train` gives it, in a process that has the model's configuration."""
        import torch

        from mtst.model import MTST, MTSTConfig
        from mtst.panel import Scaler
        from mtst.training import TrainResult

        network = MTST(MTSTConfig.from_dict(model))
        network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in self.weights.items()})
        best = min(self.history, key=lambda entry: entry["valid_loss"])
        scaler = Scaler.from_dict(self.scaler)
        return TrainResult(network.eval(), scaler, self.history, self.seconds, int(best["epoch"]), best["valid_loss"])


def train_together(
    recipe: Mapping[str, Mapping[str, Any]], panel: Panel, split: Split, workers: int, storage: Path
) -> Trained:
    """Train a recipe by `workers` workers of a running Ray cluster.

    Args:
        recipe: {"model": MTSTConfig fields, "training": TrainingConfig fields}; `batch` is all workers' together.
        storage: gets the checkpoints; a folder that all nodes share. Training goes on from those that it holds.

    Raises:
        ClusterError: the cluster has no room for so many workers, or they died too often.
        TrainingError: training cannot run or diverged.
    """
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train import TrainingFailedError as Failed
    from ray.train.torch import TorchConfig, TorchTrainer

    there = ray.cluster_resources()
    gpu = there.get("GPU", 0.0) >= workers
    if not gpu and there.get("CPU", 0.0) < workers:
        raise ClusterError(
            f"{workers} workers need as many cores, the cluster has {there.get('CPU', 0):g}",
            where="training by several workers",
            todo="ask for fewer workers or add nodes",
        )
    training = {**recipe["training"], "device": "cuda" if gpu else "cpu"}
    job = {"recipe": {"model": dict(recipe["model"]), "training": training}, "data": ray.put((panel, split))}
    trainer = TorchTrainer(
        _work,  # type: ignore[arg-type]
        train_loop_config=job,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        run_config=RunConfig(
            name=storage.name,
            storage_path=str(storage.parent.resolve()),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        result = trainer.fit()
    except Failed as error:
        raise _explained(error) from error
    found: Trained = result.return_value  # type: ignore[attr-defined]
    return found


def _work(job: dict[str, Any]) -> Trained | None:
    """One worker: train its share, report each epoch; the first one keeps the checkpoint and returns the result."""
    import ray
    from ray import train as ray_train

    from mtst.model import MTSTConfig
    from mtst.share import Share
    from mtst.threads import keep_freed_memory
    from mtst.training import TrainingConfig, train

    step_back()
    keep_freed_memory()
    context = ray_train.get_context()
    share = Share(context.get_world_rank(), context.get_world_size())
    panel, split = ray.get(job["data"])
    recipe = job["recipe"]
    with tempfile.TemporaryDirectory(prefix="mtst-share-") as name:
        file = Path(name) / STATE
        last = ray_train.get_checkpoint()
        if last is not None:
            with last.as_directory() as saved:
                shutil.copy2(Path(saved) / STATE, file)

        epochs = []

        def on_epoch(epoch: int, metrics: dict[str, float]) -> bool:
            epochs.append(epoch)
            kept = ray_train.Checkpoint.from_directory(name) if share.rank == 0 and file.is_file() else None
            ray_train.report({**metrics, "epoch": epoch}, checkpoint=kept)
            return True

        model, training = MTSTConfig.from_dict(recipe["model"]), TrainingConfig.from_dict(recipe["training"])
        result = train(model, training, panel, split, on_epoch, file, share=share)
    return None if share.rank else Trained.of(result, (epochs[0] if epochs else len(result.history) + 1) - 1)


def _explained(error: Exception) -> TrainingError | ClusterError:
    """Our own error from inside a worker, if that is what ended the training."""
    inside = getattr(error, "worker_failures", None) or {}
    ours = [each for each in inside.values() if isinstance(each, TrainingError)]
    if ours:
        return ours[0]
    reason = str(error).strip().splitlines()[-1][:300]
    return ClusterError(
        f"the workers died too often: {reason}", where="training by several workers", todo="see Ray's log"
    )
