"""Where a fit runs: the part of a GPU that it reserves, and the device that follows from it.

Ray hides from a process the GPUs that it did not reserve only where it reserved some, so a fit without any is told to
stay on the processor: it would take the first GPU of the machine, as all the others would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

MOST_ON_A_GPU = 8


def gpu_share(asked: float | None, resources: Mapping[str, float]) -> float:
    """GPUs that one fit reserves: as asked, or (None) the part that lets every core of the cluster train one."""
    gpus, cores = resources.get("GPU", 0.0), resources.get("CPU", 1.0)
    if asked is not None or not gpus:
        return asked or 0.0
    return 1.0 / min(MOST_ON_A_GPU, max(1, int(cores // gpus)))


def device_for(gpus: float) -> Literal["auto", "cpu"]:
    """The `TrainingConfig.device` of a fit that reserved so many GPUs."""
    return "auto" if gpus else "cpu"
