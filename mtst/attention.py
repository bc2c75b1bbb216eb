"""Attention and dropout as the processor likes them: the plain formula in pieces that stay in its cache.

With 84 patches, 16 heads and 896 sequences one matrix of attention weights is 400 MB, and training touches it a dozen
times: memory, not arithmetic, bounds it. So on a CPU large ones are computed a few sequences at a time, and the weights
are computed again in the backward pass instead of being kept. Small ones, GPUs, compiled and exported models take the
plain formula, whose result is the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

BLOCK = 1 << 18  # attention weights at a time: with their gradients about 2 MB of fp32, the share of one core's cache
BLOCKED_FROM = 1 << 23  # attention weights in all; below, the calls for the pieces cost more than the cache saves


def attend(qkv: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q.k / sqrt(d_head) + bias) v.

    Args:
        qkv: [B, N, 3, heads, d_head].
        bias: broadcastable to [B, heads, N, N], or None.

    Returns:
        [B, N, heads * d_head].
    """
    B, N, _, heads, width = qkv.shape
    if bias is not None and bias.shape == (heads, N, N) and _in_blocks(qkv, B * heads * N * N):
        out: Tensor = _Blocked.apply(qkv, bias)  # type: ignore[no-untyped-call]
        return out.reshape(B, N, heads * width)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B, heads, N, d_head]
    logits = ((q * width**-0.5) @ k.transpose(-1, -2)).float()
    weights = (logits if bias is None else logits + bias).softmax(-1)
    return (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)  # type: ignore[no-any-return]


def _in_blocks(qkv: Tensor, weights: int) -> bool:
    plain = torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
    return weights >= BLOCKED_FROM and torch.is_grad_enabled() and qkv.device.type == "cpu" and not plain


class _Blocked(torch.autograd.Function):
    """`attend` with a bias [heads, N, N], a block of sequences at a time."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor) -> Tensor:
        B, N, _, heads, width = qkv.shape
        out = qkv.new_empty(B, N, heads, width)
        for part in _parts(B, heads * N * N):
            q, k, v = _heads_first(qkv[part])
            out[part] = torch.bmm(_weights(q, k, bias).to(v.dtype), v).view(-1, heads, N, width).transpose(1, 2)
        ctx.save_for_backward(qkv, bias, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of a softmax row p with output o: ds = p * (do.v - do.o)."""
        (grad,) = grads
        qkv, bias, out = ctx.saved_tensors
        B, N, _, heads, width = qkv.shape
        d_qkv, d_bias = torch.empty_like(qkv), torch.zeros_like(bias)
        for part in _parts(B, heads * N * N):
            q, k, v = _heads_first(qkv[part])
            d_out = grad[part].transpose(1, 2).reshape(-1, N, width)
            mean = (grad[part].float() * out[part].float()).sum(-1).transpose(1, 2).reshape(-1, N, 1)
            weights = _weights(q, k, bias)
            d_logits = torch.bmm(d_out, v.transpose(1, 2)).float().sub_(mean).mul_(weights)
            d_bias += d_logits.view(-1, heads, N, N).sum(0)
            d_v = torch.bmm(weights.to(v.dtype).transpose(1, 2), d_out)
            d_logits = d_logits.mul_(width**-0.5).to(q.dtype)
            for place, d in enumerate((torch.bmm(d_logits, k), torch.bmm(d_logits.transpose(1, 2), q), d_v)):
                d_qkv[part, :, place] = d.view(-1, heads, N, width).transpose(1, 2)
        return d_qkv, d_bias


def _parts(rows: int, weights_a_row: int) -> list[slice]:
    step = max(1, BLOCK // weights_a_row)
    return [slice(i, i + step) for i in range(0, rows, step)]


def _heads_first(qkv: Tensor) -> list[Tensor]:
    """Queries, keys, values [B * heads, N, d_head]."""
    B, N, _, heads, width = qkv.shape
    return [qkv[:, :, i].transpose(1, 2).reshape(B * heads, N, width) for i in range(3)]


def _weights(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    logits = torch.bmm(q, k.transpose(1, 2)).float().mul_(q.shape[-1] ** -0.5)
    logits.view(-1, *bias.shape).add_(bias)
    return logits.softmax(-1)


class CheapDropout(nn.Module):
    """Dropout whose mask takes a byte of random bits a number instead of a draw: a tenth of the usual cost.

    The rate is rounded to 1/256; kept numbers are scaled by the rate that is really used.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.dropped = round(256 * rate)

    def forward(self, x: Tensor) -> Tensor:
        """Identity in eval mode."""
        if not self.training or not self.dropped:
            return x
        if torch.compiler.is_compiling() or x.device.type != "cpu":
            return nn.functional.dropout(x, self.dropped / 256)
        bits = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        mask = bits.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped
        return x * mask.to(x.dtype).mul_(256 / (256 - self.dropped))
