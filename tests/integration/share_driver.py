"""One model trained by one process, by two workers, and by two of which one is killed; in a driver with its own Ray.

python -m tests.integration.share_driver WORKSPACE
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from cluster.ray_local import ray_session
from cluster.settings import Settings
from mtst.adapters.distributed import Trained, train_together
from mtst.adapters.walkforward import JudgeConfig, judge
from mtst.baselines import BaselineConfig
from mtst.evaluation import EvaluationOptions
from mtst.model import MTSTConfig
from mtst.panel import load_panel, split_fold
from mtst.training import TrainingConfig, train
from pipelines.folds import walk_forward
from tests.unit.mtst_serving.serving_kit import small_spec, write_features

EPOCHS = 8


def main(root: Path) -> None:
    settings = Settings().changed(workspace={"root": root}, cluster={"num_cpus": 2, "dashboard": False})
    settings.workspace.make()
    spec = small_spec()
    panel = load_panel(write_features(settings.workspace.features, spec, 4000), spec)
    split = split_fold(panel, walk_forward(panel.timestamps, 2, max(spec.horizons), 0)[0], spec.lookback)
    model = MTSTConfig(
        lookback=spec.lookback, n_channels=len(spec.columns), horizons=spec.horizons, patches=(4, 8), d_model=32,
        dropout=0.0,  # the only thing that workers draw for themselves
    )  # fmt: skip
    # A batch of odd length, so that two shares differ in length.
    training = TrainingConfig(epochs=EPOCHS, batch=255, max_windows=4000, max_valid=800, ema=0.9, patience=EPOCHS)
    recipe = {"model": model.to_dict(), "training": training.to_dict()}
    alone = train(model, training, panel, split)
    one = {name: value.numpy() for name, value in alone.model.state_dict().items()}
    with ray_session(settings):
        two = train_together(recipe, panel, split, 2, root / "two")
        killer = Killer(root / "killed")
        killer.start()
        killed = train_together(recipe, panel, split, 2, root / "killed")
        killer.join(5)
        short = {**recipe, "training": {**recipe["training"], "epochs": 1}}
        options = EvaluationOptions(BaselineConfig(names=("ewma",)))
        how = JudgeConfig(folds=1, options=options, workers=2)
        judged = judge(short, settings.workspace.features, spec, how, root / "judged")
    assert judged.final is not None
    scale = {name: float(np.abs(value).max()) for name, value in one.items()}
    facts = {
        "off": max(float(np.abs(two.weights[name] - one[name]).max()) / max(scale[name], 1e-3) for name in one),
        "losses": [[entry["valid_loss"] for entry in history] for history in (alone.history, two.history)],
        "killed": killer.killed,
        "resumed_after": [two.resumed_after, killed.resumed_after],
        "same": same(two, killed),
        "judged": [judged.evaluation.n_folds, len(judged.final.history), sorted(judged.final.weights) == sorted(one)],
        "names": sorted(two.weights) == sorted(one),
    }
    (root / "share.json").write_text(json.dumps(facts))


def same(a: Trained, b: Trained) -> bool:
    return all(np.array_equal(a.weights[name], b.weights[name]) for name in a.weights)


class Killer(threading.Thread):
    """kill -9 one training worker once a checkpoint was dropped for a newer one, so that Ray surely knows of one."""

    def __init__(self, storage: Path) -> None:
        super().__init__(daemon=True)
        self.storage, self.killed = storage, 0

    def run(self) -> None:
        seen: set[Path] = set()
        while not self.killed:
            time.sleep(0.01)
            seen |= set(self.storage.rglob("state.safetensors"))
            if any(not each.exists() for each in seen):
                for process in psutil.Process().children(recursive=True):
                    if "RayTrainWorker" in " ".join(process.cmdline()):
                        process.kill()
                        self.killed = process.pid
                        break


if __name__ == "__main__":
    main(Path(sys.argv[1]))
