from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtst.model import MTST, Branch, MTSTConfig, RelativeAttention, count_parameters
from observability.errors import ModelError

SMALL = MTSTConfig(
    lookback=24, n_channels=3, horizons=(1, 4), patches=(4, 8), d_model=8, n_heads=2, d_ff=16, n_layers=2
)


def build(config: MTSTConfig = SMALL, seed: int = 0, *, spread: float = 0.0) -> MTST:
    """A model in eval mode; `spread` > 0 replaces every weight by noise of that size."""
    torch.manual_seed(seed)
    model = MTST(config).eval()
    if spread:
        with torch.no_grad():
            for p in model.parameters():
                p.normal_(0, spread)
    return model


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.5, 3.0]), st.sampled_from([0.1, 1.0, 100.0]), st.booleans())
def test_quantiles_never_cross_whatever_the_weights(seed: int, spread: float, size: float, independent: bool) -> None:
    config = MTSTConfig(**{**SMALL.to_dict(), "channel_mode": "independent" if independent else "mixed"})
    model = build(config, seed, spread=spread)
    model.trust.copy_(torch.tensor([0.3, 1.0]))
    z = model(size * torch.randn(5, 24, 3))
    assert z.shape == (5, 2, 7)
    assert bool((z.diff(dim=-1) >= 0).all())
    assert bool(torch.isfinite(z).all())


def test_untrained_it_is_the_base_forecast() -> None:
    model = build()
    base = torch.tensor([[-2.0, -1.5, -0.6, 0.01, 0.6, 1.4, 2.1], [-2.2, -1.2, -0.5, 0.0, 0.7, 1.3, 2.0]])
    model.set_base(base)
    with torch.no_grad():
        for head in model.heads:
            head.weight.zero_()
        assert torch.allclose(model(torch.randn(4, 24, 3)), base.expand(4, -1, -1), atol=1e-5)
        scaled = model(torch.randn(4, 24, 3), torch.full((4,), 0.02))
    assert torch.allclose(scaled[:, 1], (0.02 * 2 * base[1]).expand(4, -1), atol=1e-6)


def test_without_trust_only_the_base_is_left() -> None:
    model = build(spread=0.5)
    model.trust.zero_()
    assert torch.allclose(model(torch.randn(3, 24, 3)), model.base.expand(3, -1, -1), atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(st.floats(1e-3, 1e3), st.integers(0, 100))
def test_forecasts_scale_with_the_volatility(factor: float, seed: int) -> None:
    model = build(seed=seed, spread=0.3)
    x, scale = torch.randn(4, 24, 3), torch.rand(4) * 0.02 + 1e-4
    assert torch.allclose(model(x, scale * factor), model(x, scale) * factor, rtol=1e-4, atol=1e-8)


def test_a_window_alone_gets_what_it_gets_in_a_batch() -> None:
    model, x = build(spread=0.3), torch.randn(9, 24, 3)
    alone = torch.cat([model(row[None]) for row in x])
    assert torch.allclose(model(x), alone, atol=1e-5)


@pytest.mark.parametrize("norm", ["none", "input", "reversible"])
def test_absurd_input_gives_finite_forecasts(norm: str) -> None:
    model = build(MTSTConfig(**{**SMALL.to_dict(), "instance_norm": norm}), spread=0.3)
    missing = torch.full((1, 24, 3), math.nan)
    half = torch.randn(1, 24, 3).where(torch.rand(1, 24, 3) > 0.5, torch.tensor(math.nan))
    x = torch.cat([torch.zeros(1, 24, 3), torch.full((1, 24, 3), 7.0), missing, half, torch.full((1, 24, 3), math.inf)])
    assert bool(torch.isfinite(model(x)).all())
    if norm != "reversible":  # there the level of the input is the level of the forecast
        assert bool(torch.isfinite(model(torch.full((1, 24, 3), 1e30))).all())


def test_tokens_follow_the_paper() -> None:
    config = MTSTConfig(lookback=336, n_channels=1, patches=(8, 16, 96), d_model=16)
    assert config.tokens == ((336 - 8) // 4 + 2, (336 - 16) // 8 + 2, (336 - 96) // 48 + 2)
    branch = Branch(96, 48, config.tokens[2], 1, config).eval()
    assert branch(torch.randn(2, 336, 1)).shape == (2, config.tokens[2] * 16)


def test_attention_equals_the_formula_written_pair_by_pair() -> None:
    torch.manual_seed(1)
    attention = RelativeAttention(8, 2, 5)
    x = torch.randn(1, 5, 8)
    q, k, v = attention.qkv(x).split(8, -1)
    bias = attention.relative(attention.code)  # [9, heads], offsets -4..4
    out = torch.zeros(1, 5, 8)
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        for i in range(5):
            logits = torch.stack([q[0, i, part] @ k[0, j, part] / 2 + bias[i - j + 4, head] for j in range(5)])
            out[0, i, part] = logits.softmax(0) @ v[0, :, part]
    assert torch.allclose(attention(x), attention.out(out), atol=1e-6)


def test_the_past_is_told_from_the_future_by_offset_alone() -> None:
    torch.manual_seed(2)
    bias = RelativeAttention(8, 2, 6).bias()
    for offset in range(-5, 6):
        diagonal = torch.diagonal(bias, offset, 1, 2)
        assert torch.allclose(diagonal, diagonal[:, :1].expand_as(diagonal))
    assert not torch.allclose(bias, bias.transpose(1, 2))


def test_independent_channels_share_weights_and_are_not_mixed_before_the_head() -> None:
    config = MTSTConfig(**{**SMALL.to_dict(), "channel_mode": "independent", "head": "point"})
    model, x = build(config, spread=0.3), torch.randn(4, 24, 3)
    shuffled = [2, 0, 1]
    with torch.no_grad():
        before = model(x)
        model.combine.weight.copy_(model.combine.weight[:, shuffled].clone())
        assert torch.allclose(model(x[:, :, shuffled]), before, atol=1e-5)


def test_reversible_normalisation_follows_level_and_size_of_its_channel() -> None:
    config = MTSTConfig(
        lookback=24, n_channels=1, horizons=tuple(range(1, 7)), patches=(4, 8), d_model=8, n_heads=2, d_ff=16,
        head="point", channel_mode="independent", instance_norm="reversible",
    )  # fmt: skip
    model, x = build(config, spread=0.3), torch.randn(4, 24, 1)
    assert model(x).shape == (4, 6, 1)
    assert torch.allclose(model(3 * x + 50), 3 * model(x) + 50, atol=1e-2)


@pytest.mark.parametrize("changes", [{}, {"fuse_rank": 0}, {"channel_mode": "independent"}, {"skip": False}])
def test_every_weight_learns(changes: dict[str, object]) -> None:
    model = build(MTSTConfig(**{**SMALL.to_dict(), **changes, "dropout": 0.0}), spread=0.2).train()
    model(torch.randn(16, 24, 3)).square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A constant added to every key shifts all logits of a query alike, and the last bias of the relative MLP likewise.
    assert [name for name in idle if "relative.2.bias" not in name] == []


def test_the_default_is_small() -> None:
    assert 20_000 < count_parameters(MTST(MTSTConfig())) < 40_000
    assert count_parameters(MTST(MTSTConfig(n_layers=2, d_model=32, d_ff=64))) < 150_000


def test_config_survives_json_and_refuses_what_it_does_not_know() -> None:
    assert MTSTConfig.from_dict(json.loads(json.dumps(SMALL.to_dict()))) == SMALL
    with pytest.raises(ModelError, match="surprise"):
        MTSTConfig.from_dict({"surprise": 1})


@pytest.mark.parametrize(
    "changes",
    [
        {"patches": (128,)}, {"patches": (7,)}, {"patches": ()}, {"d_model": 30, "n_heads": 4}, {"n_heads": 0},
        {"levels": (0.1, 0.9)}, {"levels": (0.1, 0.4, 0.9)}, {"levels": (0.5, 0.1, 0.9)}, {"horizons": (4, 1)},
        {"horizons": ()}, {"head": "mean"}, {"channel_mode": "both"}, {"dropout": 1.0}, {"n_layers": 0},
        {"instance_norm": "batch"}, {"fuse_rank": -1},
    ],
)  # fmt: skip
def test_impossible_models_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="cannot be built"):
        MTSTConfig(**changes)


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ModelError, match="expected"):
        build()(torch.randn(2, 23, 3))
    with pytest.raises(ModelError, match="base"):
        build().set_base(torch.zeros(1, 7))
