"""Times neuralforecast's PatchTST with its defaults, in an environment of its own: needs nothing of this project but
`peak.py` beside it.

    python benchmarks/train_peer.py THREADS SECONDS    prints one line of JSON

Whole training steps on 128 windows of 7 channels, look-back 336, horizon 96: forward, backward, Adam.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time

from peak import peak_mib  # its folder is the script's


def main() -> None:
    threads, seconds = int(sys.argv[1]), float(sys.argv[2])
    libc = ctypes.CDLL("libc.so.6")  # the same allocator settings as the other side
    libc.mallopt(-3, 32 << 20), libc.mallopt(-1, 1 << 30)
    import torch
    from neuralforecast.models import PatchTST

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = PatchTST(h=96, input_size=336).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    past, future = torch.randn(128 * 7, 336, 1), torch.randn(128 * 7, 96, 1)
    batch = {"insample_y": past, "insample_mask": torch.ones_like(past), "futr_exog": None, "hist_exog": None}
    batch["stat_exog"] = None

    def step() -> float:
        started = time.perf_counter()
        loss = (model(batch).reshape(future.shape) - future).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.perf_counter() - started

    step()
    times, began = [], time.perf_counter()
    while not times or time.perf_counter() - began < seconds:
        times.append(step())
    peak = peak_mib() * 2**20 / 1e9
    parameters = sum(p.numel() for p in model.parameters())
    print(json.dumps({"seconds": times, "peak_gb": peak, "parameters": parameters}))


if __name__ == "__main__":
    main()
