"""A trained network as ONNX, for those who serve without torch.

Torch's tracing exporter is used: 0.3 s of processor time for the default network, against 7 s of the newer one, and
`tests/unit/mtst_serving` holds its file to the network's own numbers at several batch sizes.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtst.model import MTST, MTSTConfig
from mtst.panel import Array
from observability.errors import ArtifactError

OPSET = 18
INPUTS = ("x", "scale")


class _Traced(nn.Module):
    """The network with arguments by position, as tracing wants them."""

    def __init__(self, model: MTST) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, scale: Tensor, known: Tensor | None = None) -> Tensor:
        out: Tensor = self.model(x, scale, known)
        return out


def write_onnx(model: MTST, path: Path) -> None:
    """Write the network as an ONNX model.

    Its inputs are x [batch, L, C], scale [batch] and, if the network takes them, known [batch, H, K].

    Raises:
        ArtifactError: the network attends to peers, whose number a file of this form cannot leave open.
    """
    c = model.config
    if c.peers:
        raise ArtifactError("a network whose pairs attend to each other is not exported", where="write_onnx")
    example = example_inputs(c, batch=3)  # not 1: tracing would take it for a constant
    names = list(example)
    was_training = model.training
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of each Python branch; the branches depend on shapes only
        torch.onnx.export(
            _Traced(model.eval()),
            tuple(example.values()),
            path,
            input_names=names,
            output_names=["quantiles"],
            dynamic_axes={name: {0: "batch"} for name in (*names, "quantiles")},
            opset_version=OPSET,
            dynamo=False,
        )
    model.train(was_training)


def example_inputs(c: MTSTConfig, batch: int) -> dict[str, Tensor]:
    """Inputs of a network by name, drawn without touching the caller's random numbers."""
    draw = torch.Generator().manual_seed(0)
    inputs = {
        "x": torch.randn(batch, c.lookback, c.n_channels, generator=draw),
        "scale": torch.rand(batch, generator=draw) * 0.01 + 1e-4,
    }
    if c.known:
        inputs["known"] = torch.randn(batch, len(c.horizons), c.known, generator=draw)
    return inputs


def onnx_session(path: Path) -> Any:
    """An ONNX Runtime session on one thread; needs neither torch nor this project's network."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_onnx(session: Any, inputs: dict[str, Array]) -> Array:
    """Quantiles [batch, H, Q] of a session."""
    out: Array = np.asarray(session.run(["quantiles"], inputs)[0])
    return out
