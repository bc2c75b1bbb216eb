"""What a forecaster must do whatever it learned: no frame of mind of the machine may change a forecast."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mtst.covariates import Moments, known_covariates
from mtst.model import MTST, MTSTConfig
from mtst.panel import Panel
from mtst.training import predict, train
from observability.errors import ModelError
from tests.unit.mtst.test_mtst_training import QUICK, split_of

SMALL = MTSTConfig(
    lookback=24, n_channels=3, horizons=(1, 4), patches=(4, 8), d_model=8, n_heads=2, d_ff=16, n_layers=2
)
MODES = [
    {},
    {"channel_mode": "independent", "linear": True},
    {"channel_mode": "attention", "strides": (4, 4)},
    {"calendar": True, "series": ("A", "B")},
    {"channel_mode": "attention", "forecast": "channels", "head": "point", "instance_norm": "reversible"},
]


def build(changes: dict[str, object], spread: float = 0.3) -> MTST:
    torch.manual_seed(0)
    model = MTST(MTSTConfig(**{**SMALL.to_dict(), **changes})).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, spread)
    return model


def known_of(model: MTST, batch: int) -> Tensor | None:
    c = model.config
    return torch.randn(batch, len(c.horizons), c.known) if c.known else None


@pytest.mark.parametrize("changes", MODES)
def test_batched_equals_alone_and_every_input_gives_finite_forecasts(changes: dict[str, object]) -> None:
    model = build(changes)
    x = torch.randn(6, 24, 3)
    x[1], x[2], x[3, 5], x[4, :, 1] = 7.0, torch.nan, torch.inf, -torch.inf
    known, scale = known_of(model, 6), torch.rand(6) * 0.01
    whole = model(x, scale, known)
    alone = torch.cat(
        [model(x[i : i + 1], scale[i : i + 1], None if known is None else known[i : i + 1]) for i in range(6)]
    )
    assert bool(torch.isfinite(whole).all())
    assert torch.allclose(whole, alone, atol=1e-5)


@pytest.mark.parametrize("changes", MODES)
def test_bf16_is_close_to_full_precision(changes: dict[str, object]) -> None:
    model = build(changes, spread=0.1)
    x, known = torch.randn(64, 24, 3), known_of(model, 64)
    with torch.inference_mode():
        full = model(x, None, known)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(x, None, known)
    assert half.dtype == torch.float32
    assert bool(((full - half).abs() < 0.03 * full.std() + 0.02).all())
    if model.config.head == "quantile":
        assert bool((half.diff(dim=-1) >= 0).all())


@pytest.mark.slow
def test_compiled_equals_eager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # another run's half-written cache must not fail it
    model = build({})
    x, scale = torch.randn(5, 24, 3), torch.rand(5) * 0.01
    with torch.inference_mode():
        assert torch.allclose(torch.compile(model)(x, scale), model(x, scale), atol=1e-6, rtol=1e-4)


def test_a_forecast_follows_its_weights_however_they_changed() -> None:
    """Nothing may be kept between forecasts that outlives the weights it came from; fused optimizers tell nobody."""
    model, x = build({}), torch.randn(2, 24, 3)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with torch.inference_mode():
        before = model(x)
    model(x).square().sum().backward()
    optimizer.step()
    with torch.inference_mode():
        after = model(x)
    fresh = MTST(model.config).eval()
    fresh.load_state_dict(model.state_dict())
    assert not torch.equal(before, after)
    assert torch.equal(after, fresh(x))


def test_channels_that_attend_have_no_order() -> None:
    model = build({"channel_mode": "attention", "forecast": "channels", "head": "point"})
    x, order = torch.randn(4, 24, 3), [2, 0, 1]
    assert torch.allclose(model(x[:, :, order]), model(x)[:, order], atol=1e-5)
    changed = x.clone()
    changed[:, :, 2] += torch.randn(4, 24)
    assert not torch.allclose(model(changed)[:, 0], model(x)[:, 0], atol=1e-4)  # but they hear each other


def test_independent_channels_do_not_hear_each_other() -> None:
    model = build({"channel_mode": "independent", "forecast": "channels"})
    x = torch.randn(4, 24, 3)
    changed = x.clone()
    changed[:, :, 2] += torch.randn(4, 24)
    one, two = model(x), model(changed)
    assert one.shape == (4, 3, 2, 7)
    assert torch.equal(one[:, :2], two[:, :2])
    assert not torch.allclose(one[:, 2], two[:, 2])


def test_pairs_that_attend_hear_those_present_and_nobody_else() -> None:
    model = build({"peers": True})
    x = torch.randn(2 * 3, 24, 3)
    everyone = torch.ones(2, 3, dtype=torch.bool)
    absent = everyone.clone()
    absent[:, 2] = False
    other = x.clone()
    other[2::3] += 1.0  # the third series
    assert not torch.allclose(model(x, present=everyone)[0], model(other, present=everyone)[0], atol=1e-4)
    assert torch.equal(model(x, present=absent)[[0, 1, 3, 4]], model(other, present=absent)[[0, 1, 3, 4]])
    order = [1, 0, 2]  # their order does not matter
    swapped = model(x.view(2, 3, 24, 3)[:, order].flatten(0, 1), present=everyone)
    assert torch.allclose(swapped.view(2, 3, 2, 7), model(x, present=everyone).view(2, 3, 2, 7)[:, order], atol=1e-5)


def test_known_covariates_are_asked_for_by_name() -> None:
    with pytest.raises(ModelError, match="missing"):
        build({"calendar": True})(torch.randn(2, 24, 3))
    with pytest.raises(ModelError, match="not expected"):
        build({})(torch.randn(2, 24, 3), None, torch.randn(2, 2, 4))


def test_the_calendar_is_that_of_the_moment_ahead(noise: Panel) -> None:
    config = MTSTConfig(horizons=(1, 24), calendar=True, series=("ETH/USDT", "ELSE/USDT"))
    rows = np.array([100, 1700])
    known = known_covariates(noise, rows, config)
    hours = (noise.timestamps[rows] // 3_600_000 + 1) % 24
    np.testing.assert_allclose(known[:, 0, 0], np.sin(2 * np.pi * hours / 24), atol=1e-6)
    hours = noise.timestamps[rows] // 3_600_000 % 24  # a day ahead it is the same hour
    np.testing.assert_allclose(known[:, 1, 1], np.cos(2 * np.pi * hours / 24), atol=1e-6)
    assert known[:, :, 4].tolist() == [[0, 0], [1, 1]]
    assert not known[:, :, 5].any()


def test_a_moment_holds_each_pairs_window_of_that_time(noise: Panel) -> None:
    rows = noise.rows(32)[[5, 900, 2500]]
    every, present, at = Moments(noise, 32).gather(rows)
    assert present.shape[1] == len(noise.pairs)
    assert every[at].tolist() == rows.tolist()
    times = noise.timestamps[every].reshape(present.shape)
    assert bool((times == times[:, :1])[present].all())


@pytest.mark.parametrize("changes", [{"calendar": True, "series": ("BTC/USDT",)}, {"peers": True}])
def test_covariates_and_peers_train_and_forecast_the_same_for_one_row_or_many(
    noise: Panel, changes: dict[str, object]
) -> None:
    config = replace(
        MTSTConfig(lookback=32, horizons=(1, 2, 4), patches=(4, 8), d_model=8, n_heads=2, d_ff=16), **changes
    )
    split = split_of(noise)
    result = train(config, replace(QUICK, epochs=1, max_windows=128, max_valid=64), noise, split)
    many = predict(result.model, result.scaler, noise, split.test[:40])
    one = predict(result.model, result.scaler, noise, split.test[7:8])
    np.testing.assert_allclose(many[7:8], one, atol=1e-6)
