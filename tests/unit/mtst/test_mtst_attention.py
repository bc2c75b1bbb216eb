from __future__ import annotations

import pytest
import torch

import mtst.attention as attention
from mtst.attention import CheapDropout, attend


@pytest.mark.parametrize(("tokens", "block"), [(5, 1), (7, 200), (16, 1 << 18)])
def test_attention_in_blocks_equals_the_formula_with_its_gradients(
    monkeypatch: pytest.MonkeyPatch, tokens: int, block: int
) -> None:
    monkeypatch.setattr(attention, "BLOCK", block)
    torch.manual_seed(0)
    qkv = torch.randn(9, tokens, 3, 2, 4, requires_grad=True)
    bias, out = torch.randn(2, tokens, tokens, requires_grad=True), torch.randn(9, tokens, 8)
    found = {}
    for name, threshold in (("blocks", 0), ("plain", 1 << 40)):
        monkeypatch.setattr(attention, "BLOCKED_FROM", threshold)
        value = attend(qkv, bias)
        found[name] = (value, *torch.autograd.grad((value * out).sum(), (qkv, bias)))
    assert type(found["blocks"][0].grad_fn).__name__ != type(found["plain"][0].grad_fn).__name__
    for one, other in zip(found["blocks"], found["plain"], strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_cheap_dropout_drops_its_share_everywhere_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropout = CheapDropout(0.3)
    x = torch.ones(400_003)
    kept = dropout(x)
    assert abs((kept == 0).float().mean() - 0.3) < 0.004
    assert abs(kept.mean() - 1) < 0.005
    by_byte = (kept[:400_000].view(-1, 8) == 0).float().mean(0)  # each byte of a random number is as good
    assert bool(((by_byte - 0.3).abs() < 0.01).all())
    torch.manual_seed(0)
    assert torch.equal(kept, dropout(x))
    assert torch.equal(dropout.eval()(x), x)
    assert torch.equal(CheapDropout(0.0)(x), x)


def test_dropout_passes_gradients_where_it_kept() -> None:
    x = torch.ones(1000, requires_grad=True)
    y = CheapDropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
