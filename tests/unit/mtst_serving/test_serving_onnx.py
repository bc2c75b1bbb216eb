"""The ONNX file gives the network's own numbers, and an artifact needs no framework to be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mtst.artifact import ONNX, load_artifact, verify_artifact
from mtst.model import MTST, MTSTConfig
from mtst.onnx_export import example_inputs, onnx_session, run_onnx, write_onnx
from observability.errors import ArtifactError
from tests.unit.mtst_serving.serving_kit import small_artifact

SMALL = MTSTConfig(
    lookback=24, n_channels=3, horizons=(1, 4), patches=(4, 8), d_model=8, n_heads=2, d_ff=16, n_layers=2
)


def noisy(config: MTSTConfig) -> MTST:
    torch.manual_seed(0)
    model = MTST(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3)
    return model


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"channel_mode": "independent", "linear": True, "strides": (3, 6)},
        {"channel_mode": "attention"},
        {"calendar": True, "series": ("BTC/USDT",)},
        {"channel_mode": "independent", "forecast": "channels", "head": "point", "instance_norm": "reversible"},
    ],
)
def test_the_file_gives_the_networks_numbers_at_every_batch_size(tmp_path: Path, changes: dict[str, object]) -> None:
    config = MTSTConfig(**{**SMALL.to_dict(), **changes})
    model = noisy(config)
    write_onnx(model, tmp_path / "m.onnx")
    session = onnx_session(tmp_path / "m.onnx")
    used = {i.name for i in session.get_inputs()}  # a network that finds its unit in the window takes no scale
    for batch in (1, 2, 7):
        inputs = example_inputs(config, batch)
        inputs["x"][0, 3, 1] = torch.nan
        found = run_onnx(session, {k: v.numpy() for k, v in inputs.items() if k in used})
        with torch.inference_mode():
            expected = model(**inputs).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_same_network_gives_the_same_file(tmp_path: Path) -> None:
    model = noisy(SMALL)
    for name in ("a", "b"):
        write_onnx(model, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_network_of_attending_pairs_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="attend to each other"):
        write_onnx(noisy(MTSTConfig(**{**SMALL.to_dict(), "peers": True})), tmp_path / "m.onnx")


def test_an_artifact_of_before_without_onnx_is_still_read(tmp_path: Path) -> None:
    folder = small_artifact(tmp_path / "a").path
    (folder / ONNX).unlink()
    lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
    (folder / "SHA256SUMS").write_text("".join(line for line in lines if ONNX not in line))
    assert load_artifact(folder).artifact == verify_artifact(folder)


def test_it_loads_and_forecasts_in_a_process_that_knows_no_framework(tmp_path: Path) -> None:
    folder = small_artifact(tmp_path / "a").path
    program = """
import sys
from pathlib import Path
for name in ("ray", "mlflow", "bentoml", "freqtrade", "ccxt", "onnxruntime"):
    sys.modules[name] = None  # importing it raises
from mtst.artifact import load_artifact
import torch
loaded = load_artifact(Path(sys.argv[1]))
c = loaded.model.config
z = loaded.model(torch.randn(2, c.lookback, c.n_channels), torch.full((2,), 0.01))
assert z.shape == (2, len(c.horizons), c.n_outputs) and bool(torch.isfinite(z).all())
assert not [n for n, m in sys.modules.items() if m and n.split(".")[0] in ("ray", "mlflow", "bentoml")]
print("ok")
"""
    done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "ok", done.stderr
