"""One model trained by several processes: what each of them takes of a batch, and what they have to agree on.

The steps are those of one process on the whole batch, up to rounding: a share's loss counts by its length, batch norms
take their statistics over all processes, and every process validates with the same numbers. Only dropout differs, as
each process draws its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.nn import functional as together
from torch.nn.parallel import DistributedDataParallel

from mtst.panel import Array

DRAWS = 7_919  # seeds of two processes lie so far apart


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of each batch this process takes; with a `world` above 1 a process group has to be there."""

    rank: int = 0
    world: int = 1

    def of(self, chosen: Array) -> Array:
        """This process's part of a batch; of equal length in all processes, or one longer."""
        return chosen[self.rank :: self.world]

    def weight(self, chosen: Array) -> float:
        """What the mean loss of this part counts, so that the mean over processes is the mean over the batch."""
        return len(self.of(chosen)) * self.world / len(chosen)

    def around(self, model: nn.Module) -> nn.Module:
        """What steps are computed with: the model itself, or DDP around it; gradients arrive in the model."""
        if self.world == 1:
            return model
        for each in model.modules():
            if type(each) is nn.BatchNorm1d:
                each.__class__ = SharedNorm  # same parameters and buffers, other statistics
        return DistributedDataParallel(model, broadcast_buffers=False)

    def agreed(self, value: float) -> float:
        """The first process's value: on another processor the last bit may differ, and so would a decision to stop."""
        if self.world == 1:
            return value
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        told = torch.tensor(value, dtype=torch.float64, device=device)
        dist.broadcast(told, src=0)
        return float(told)

    def reseed(self, seed: int) -> None:
        """Let the processes after the first draw dropout of their own."""
        if self.rank:
            torch.manual_seed(seed + DRAWS * self.rank)


class SharedNorm(nn.BatchNorm1d):
    """BatchNorm of rows [n, d] over the rows of all processes; torch's own SyncBatchNorm is for GPUs only."""

    def forward(self, x: Tensor) -> Tensor:
        """Like BatchNorm1d; with a gradient through the statistics of all rows."""
        if not self.training:
            return super().forward(x)
        rows = x.float()
        total = _summed(torch.cat([rows.sum(0), rows.new_tensor([float(len(rows))])]))
        count = total[-1].detach()
        mean = total[:-1] / count
        variance = _summed((rows - mean).square().sum(0)) / count
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum or 0.1)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum or 0.1)
        out = (rows - mean) * torch.rsqrt(variance + self.eps)
        return (out * self.weight + self.bias).to(x.dtype)


def _summed(part: Tensor) -> Tensor:
    """The sum over all processes, with a gradient."""
    whole: Tensor = together.all_reduce(part)  # type: ignore[no-untyped-call]
    return whole
