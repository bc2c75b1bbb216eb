"""A plain PatchTST (Nie et al., ICLR 2023) of the official ETTh1 size, as the peer of the training benchmark.

Written for the benchmark from the paper: channel-independent, RevIN, patch 16 and stride 8 with an end pad, a learned
absolute position, post-norm encoder layers with BatchNorm and residual attention logits, one flattened linear head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PatchTSTSize:
    lookback: int = 336
    horizon: int = 96
    patch: int = 16
    stride: int = 8
    layers: int = 3
    d_model: int = 16
    heads: int = 4
    d_ff: int = 128
    dropout: float = 0.3

    @property
    def tokens(self) -> int:
        return (self.lookback - self.patch) // self.stride + 2


class PatchTST(nn.Module):
    """[B, L, C] -> [B, H, C]."""

    def __init__(self, size: PatchTSTSize | None = None) -> None:
        super().__init__()
        self.size = s = size or PatchTSTSize()
        self.embed = nn.Linear(s.patch, s.d_model)
        self.position = nn.Parameter(torch.empty(s.tokens, s.d_model).uniform_(-0.02, 0.02))
        self.dropout = nn.Dropout(s.dropout)
        self.layers = nn.ModuleList(EncoderLayer(s) for _ in range(s.layers))
        self.head = nn.Linear(s.tokens * s.d_model, s.horizon)

    def forward(self, x: Tensor) -> Tensor:
        s, channels = self.size, x.shape[2]
        mean, std = x.mean(1, keepdim=True), (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        series = ((x - mean) / std).transpose(1, 2).flatten(0, 1)
        padded = torch.cat([series, series[:, -1:].expand(-1, s.stride)], 1)
        tokens = self.dropout(self.embed(padded.unfold(1, s.patch, s.stride)) + self.position)
        logits = None
        for layer in self.layers:
            tokens, logits = layer(tokens, logits)
        out = self.head(tokens.transpose(1, 2).flatten(1))
        return out.unflatten(0, (-1, channels)).transpose(1, 2) * std + mean


class EncoderLayer(nn.Module):
    def __init__(self, s: PatchTSTSize) -> None:
        super().__init__()
        self.heads = s.heads
        self.query, self.key, self.value, self.out = (nn.Linear(s.d_model, s.d_model) for _ in range(4))
        self.norm1, self.norm2 = nn.BatchNorm1d(s.d_model), nn.BatchNorm1d(s.d_model)
        self.feed = nn.Sequential(
            nn.Linear(s.d_model, s.d_ff), nn.GELU(), nn.Dropout(s.dropout), nn.Linear(s.d_ff, s.d_model)
        )
        self.dropout = nn.Dropout(s.dropout)

    def forward(self, x: Tensor, logits: Tensor | None) -> tuple[Tensor, Tensor]:
        q, k, v = (m(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (self.query, self.key, self.value))
        own = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        logits = own if logits is None else own + logits
        mixed = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = self.norm1((x + self.dropout(self.out(mixed))).transpose(1, 2)).transpose(1, 2)
        x = self.norm2((x + self.dropout(self.feed(x))).transpose(1, 2)).transpose(1, 2)
        return x, logits
