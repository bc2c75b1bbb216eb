"""Trials for the benchmark of sweeps: the bare training function in a plain loop, and a trial that only sleeps.

python -m benchmarks.sweep_trial FEATURES SPEC_JSON SWEEP_JSON CHOICES_JSON   prints seconds and CPU as JSON
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sleeper(choice: dict[str, Any], *, panel: Any, split: Any, job: Mapping[str, Any]) -> None:
    """What a trial does but for the training: reports and checkpoints every epoch, which takes a drawn time.

    The loss is drawn too, so that ASHA has something to decide. It reports when it began and what it slept.
    """
    from ray import tune

    from mtst.adapters.trials import STATE
    from mtst.blocks import BLOCK_NAMES

    drawn, began = random.Random(json.dumps(choice, sort_keys=True)), time.time()
    seconds = float(job["sweep"]["max_windows"]) / 1000 * drawn.uniform(0.5, 1.5)  # an epoch's
    report: dict[str, Any] = {"base_loss": 1.0, "skill": 0.0, "train_loss": 0.0, "lr": 0.0, "windows_per_second": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        for epoch in range(1, job["sweep"]["epochs"] + 1):
            time.sleep(seconds)
            loss = drawn.uniform(0.2, 0.3)
            Path(folder, STATE).write_bytes(bytes(100_000))
            report |= {"valid_loss": loss, **dict.fromkeys(BLOCK_NAMES, loss), "epoch": epoch}
            report |= {"began": began, "seen": time.time(), "complete": False}
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))
    tune.report({**report, "complete": True})


def bare(features: str, spec_text: str, sweep_text: str, choices_text: str) -> list[tuple[float, float]]:
    """Seconds, and seconds of CPU, that `train` takes for each choice, one after the other in this process."""
    from mtst.adapters.search_space import configs_of
    from mtst.adapters.sweep import SweepConfig, search_split
    from mtst.panel import load_panel
    from mtst.threads import keep_freed_memory
    from mtst.training import train
    from pipelines.spec import DatasetSpec

    keep_freed_memory()  # as a trial's process does
    spec, sweep = DatasetSpec.from_json(spec_text), json.loads(sweep_text)
    panel = load_panel(features, spec)
    split, took = search_split(panel, spec, SweepConfig(**sweep)), []
    for choice in json.loads(choices_text):
        began, cpu = time.perf_counter(), time.process_time()
        train(*configs_of(choice, spec, sweep), panel, split)
        took.append((time.perf_counter() - began, time.process_time() - cpu))
    return took


if __name__ == "__main__":
    print(json.dumps(bare(*sys.argv[1:5])))
