"""MTST: the multi-resolution time-series transformer, after Zhang et al., AISTATS 2024 (arXiv 2311.04147).

The network, layer by layer. A layer has K branches, one a resolution. Branch k replicate-pads the sequence by its
stride S_k (P_k / 2 unless told), cuts it into N_k = floor((L - P_k) / S_k) + 2 patches of length P_k, maps each to d
features, and passes them through one post-norm encoder block whose attention logits are q.k / sqrt(d_head) +
r_head(i - j), r being a small MLP of a sinusoidal code of the offset: no absolute position. Between layers the
branches are flattened, concatenated and mapped by a Linear back to a sequence of length L, which the next layer cuts
again. After the last layer every branch has a Linear head and the heads are summed.

Decided here, where the paper leaves it open, lacks it, or a small model wants otherwise:
- the fusing Linear is each layer's own, may be of low rank (`fuse_rank`; 0 = full, as in the paper), and there is a
  skip around layer and fusion (`skip`); `linear` puts a linear map from window to forecast beside the branches;
- `channel_mode="independent"` is the paper: each channel is its own sequence through shared weights; with
  `forecast="channels"` each gets its own forecast, with "target" they are added by a learned Linear. `"attention"` lets
  the channels attend to each other, patch by patch, after each block; without a code of their own they keep no order.
  `"mixed"` is for markets, where channels are features of one target: a first Linear mixes C features into
  `mixed_channels` sequences and a patch holds all of them, so there are N_k tokens a window and not C * N_k;
- `peers` lets windows of the same moment (other pairs) attend to each other before the head; `known` adds what is known
  of each horizon ahead (calendar) or of the series (static). Both start at zero: they can only correct;
- `instance_norm="reversible"` is the paper's RevIN without affine, for a target that continues channel 0 (or each
  channel its own); `"input"` normalises the window only; `"none"` leaves it to the scaler, as levels (of volatility)
  carry information.

The output is tied to recent volatility. The head forecasts quantiles of z = r_h / (scale * sqrt(h)), r_h being the
log-return over h candles and `scale` a causal volatility of one candle (`panel.recent_volatility`). So forecasts are
scale-equivariant (twice the volatility, twice the quantiles, whatever the pair), and the untrained network equals
the classic "zero mean + EWMA volatility" forecast with the residual quantiles given by `set_base`: training can only
learn a correction to a strong baseline, and does not spend its capacity on finding the unit. With `drift` the medians
start from a ridge regression on the newest row and patches, for the same reason: what is linear in a noisy return is
found in closed form, where a few epochs of steps find half of it.

Quantiles cannot cross: the head gives the median and, outward from it, gaps softplus(width + shape) * base gap, summed
cumulatively. At the end `trust`, chosen by horizon on validation windows, keeps a share of the learned correction.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mtst.attention import CheapDropout, attend
from mtst.config import DEFAULT_LEVELS, MTSTConfig
from observability.errors import ModelError

__all__ = ["DEFAULT_LEVELS", "MTST", "MTSTConfig", "count_parameters"]

INPUT_CLIP = 20.0  # standard units; beyond it an input is a data error and must not decide a forecast
LOCATION_GAIN = 0.03  # returns' direction is almost noise and their width is not: the network learns direction slowly,
SHAPE_GAIN = 0.05  # the distribution's shape a little faster, and its width at full speed
ONE = math.log(math.e - 1.0)  # softplus(ONE) == 1: a zero head reproduces the base gaps


class MTST(nn.Module):
    """The network: `MTST(config)(x, scale)` maps windows [B, L, C] to quantiles [B, H, Q], ascending in Q.

    Without `scale` the quantiles are in units of scale * sqrt(h); with it ([B], volatility a candle) they are
    log-returns. A point head gives Q = 1. Non-finite inputs count as missing (0, the scaler's centre).
    """

    def __init__(self, config: MTSTConfig) -> None:
        super().__init__()
        self.config = c = config
        mixed = c.channel_mode == "mixed"
        self.mix = nn.Linear(c.n_channels, c.mixed_channels) if mixed else nn.Identity()
        width = c.mixed_channels if mixed else 1
        self.layers = nn.ModuleList(Layer(c, width) for _ in range(c.n_layers))
        self.fuse = nn.ModuleList(Fusion(c, width) for _ in range(c.n_layers - 1))
        outputs = len(c.horizons) * c.head_width
        heads = [nn.Linear(n * c.d_model, outputs) for n in c.tokens]
        self.heads = nn.ModuleList(heads)
        self.head_dropout = CheapDropout(c.dropout if c.head_dropout is None else c.head_dropout)
        summed = not mixed and c.n_channels > 1 and c.forecast == "target"
        self.combine = nn.Linear(c.n_channels, 1, bias=False) if summed else nn.Identity()
        for head in heads:  # start at the base forecast, with a little of every token in it
            nn.init.normal_(head.weight, std=0.002)
            nn.init.zeros_(head.bias)
        self.linear = silent(nn.Linear(c.lookback, outputs)) if c.linear else None
        self.known = None
        if c.known:
            self.known = nn.Sequential(nn.Linear(c.known, c.d_ff), nn.GELU(), silent(nn.Linear(c.d_ff, c.head_width)))
        self.peers = Peers(c, outputs) if c.peers else None
        roots = torch.tensor([math.sqrt(h) for h in c.horizons])
        self.register_buffer("root_h", roots, persistent=False)
        self.root_h: Tensor
        self.register_buffer("base", torch.tensor(_normal_base(c)))
        self.base: Tensor  # [H, Q] residual quantiles that the forecast starts from
        if c.drift:
            self.register_buffer("drift_weight", torch.zeros(len(c.horizons), c.n_channels * (1 + len(c.patches))))
            self.register_buffer("drift_bias", torch.zeros(len(c.horizons)))
        self.drift_weight: Tensor  # [H, S]: the part of the forecast that is linear in `summary`
        self.drift_bias: Tensor
        self.register_buffer("trust", torch.ones(len(c.horizons)))
        self.trust: Tensor  # [H] share of the learned correction that is kept

    def set_base(self, quantiles: Tensor) -> None:
        """Start from these residual quantiles [H, Q] of z on the training rows instead of the normal law's."""
        if quantiles.shape != self.base.shape or not bool(torch.isfinite(quantiles).all()):
            raise ModelError(f"base quantiles must be finite and {tuple(self.base.shape)}", where="MTST.set_base")
        self.base.copy_(quantiles)

    def set_drift(self, weights: Tensor, bias: Tensor) -> None:
        """Start the medians from weights [H, S] @ `summary` + bias [H], in units of z; needs `drift` in the config."""
        self.drift_weight.copy_(weights)
        self.drift_bias.copy_(bias)

    def summary(self, x: Tensor) -> Tensor:
        """The newest row, and the mean of the newest patch at each resolution: [B, L, C] -> [B, C * (1 + K)]."""
        x = torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0).clamp(-INPUT_CLIP, INPUT_CLIP)
        return torch.cat([x[:, -1], *(x[:, -patch:].mean(1) for patch in self.config.patches)], 1)

    def forward(
        self, x: Tensor, scale: Tensor | None = None, known: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        """Forecast windows.

        Args:
            x: [B, L, C], oldest row first.
            scale: [B], volatility a candle, or None.
            known: [B, H, K], given if and only if the configuration has known covariates.
            present: with `peers`, bool [T, G], B = T * G: the windows are T moments of G series each, moment after
                moment, and nobody attends to those that are not present. None: each window is alone.

        Returns:
            [B, H, Q], or [B, C, H, Q] with a forecast a channel.
        """
        c = self.config
        self._check(x, known)
        x, mean, std = normalise(torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0), c.instance_norm)
        raw = self._raw(x.clamp(-INPUT_CLIP, INPUT_CLIP), present).float()
        if self.known is not None and known is not None:
            raw = raw + self.known(known)[:, None].float()
        if c.drift:
            linear = (self.summary(x) @ self.drift_weight.T + self.drift_bias)[:, None, :, None].float()
            raw = torch.cat([raw[..., :1] + linear / LOCATION_GAIN, raw[..., 1:]], -1)
        z = self._ordered(raw)  # [B, C or 1, H, Q]
        if c.instance_norm == "reversible":  # the target continues its own channel, or channel 0
            mean, std = (part.transpose(1, 2)[..., None][:, : z.shape[1]] for part in (mean, std))
            z = z * std + mean
        elif scale is not None:
            z = z * (scale[:, None] * self.root_h)[:, None, :, None]
        return z if c.forecast == "channels" else z[:, 0]

    def _check(self, x: Tensor, known: Tensor | None) -> None:
        c = self.config
        if x.ndim != 3 or x.shape[1:] != (c.lookback, c.n_channels):
            raise ModelError(f"input is {tuple(x.shape)}, expected [B, {c.lookback}, {c.n_channels}]", where="MTST")
        if (known is None) != (c.known == 0):
            raise ModelError(f"known covariates are {'missing' if known is None else 'not expected'}", where="MTST")

    def _raw(self, x: Tensor, present: Tensor | None) -> Tensor:
        """Head numbers [B, C or 1, H, W] of normalised windows [B, L, C]."""
        c, channels = self.config, 1
        if c.channel_mode == "mixed":
            x = self.mix(x)
        else:
            channels, x = x.shape[2], x.transpose(1, 2).flatten(0, 1)[..., None]
        sequence = x
        for layer, fuse in zip(self.layers[:-1], self.fuse, strict=True):
            fused = fuse(layer(x))
            x = x + fused if c.skip else fused
        branches = self.layers[-1](x)
        raw = torch.stack([h(self.head_dropout(b)) for h, b in zip(self.heads, branches, strict=True)]).sum(0)
        if self.linear is not None:
            raw = raw + self.linear(sequence[..., 0])
        if self.peers is not None:
            raw = raw + self.peers(torch.cat(branches, -1), present)
        raw = raw.reshape(-1, channels, len(c.horizons) * c.head_width)
        if not isinstance(self.combine, nn.Identity):
            channels, raw = 1, self.combine(raw.transpose(1, 2)).transpose(1, 2)
        return raw.reshape(-1, channels, len(c.horizons), c.head_width)

    def _ordered(self, raw: Tensor) -> Tensor:
        """Median plus outward cumulative positive gaps: quantiles ascend whatever the weights. [..., W] -> [..., Q]."""
        if self.config.head == "point":
            return self.trust[:, None] * raw + self.base
        m = self.config.n_outputs // 2
        location, width, shape = raw[..., :1], raw[..., 1:2], raw[..., 2:]
        trust = self.trust[:, None]
        gaps = (1 + trust * (softplus(width + SHAPE_GAIN * shape + ONE) - 1)) * (self.base[:, 1:] - self.base[:, :-1])
        middle = trust * LOCATION_GAIN * location + self.base[:, m : m + 1]
        below = middle - gaps[..., :m].flip(-1).cumsum(-1).flip(-1)
        above = middle + gaps[..., m:].cumsum(-1)
        return torch.cat([below, middle, above], -1)


class Layer(nn.Module):
    """K branches over one sequence [B, L, M]; returns each branch's flattened tokens [B, N_k * d]."""

    def __init__(self, c: MTSTConfig, width: int) -> None:
        super().__init__()
        sizes = zip(c.patches, c.steps, c.tokens, strict=True)
        self.branches = nn.ModuleList(Branch(p, s, n, width, c) for p, s, n in sizes)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Run every resolution on the same sequence."""
        return [branch(x) for branch in self.branches]


class Branch(nn.Module):
    """One resolution: pad, cut into overlapping patches, embed, one encoder block. [B, L, M] -> [B, N * d]."""

    def __init__(self, patch: int, stride: int, tokens: int, width: int, c: MTSTConfig) -> None:
        super().__init__()
        self.patch, self.stride = patch, stride
        self.embed = nn.Linear(patch * width, c.d_model)
        self.block = Block(c, tokens)
        self.across = Across(c) if c.channel_mode == "attention" else None

    def forward(self, x: Tensor) -> Tensor:
        """The pad repeats the newest row, so the last patch is about the present."""
        pad = x[:, -1:].expand(-1, self.stride, -1)
        patches = torch.cat([x, pad], 1).unfold(1, self.patch, self.stride)  # [B, N, M, P]
        tokens: Tensor = self.block(self.embed(patches.flatten(2)))
        if self.across is not None:
            tokens = self.across(tokens)
        return tokens.flatten(1)


class Block(nn.Module):
    """Post-norm encoder block: attention, add, BatchNorm; GELU feed-forward, add, BatchNorm. [B, N, d] -> same."""

    def __init__(self, c: MTSTConfig, tokens: int) -> None:
        super().__init__()
        self.attend = RelativeAttention(c.d_model, c.n_heads, tokens)
        self.norm1, self.norm2 = nn.BatchNorm1d(c.d_model), nn.BatchNorm1d(c.d_model)
        self.feed = nn.Sequential(nn.Linear(c.d_model, c.d_ff), nn.GELU(), nn.Linear(c.d_ff, c.d_model))
        self.dropout = CheapDropout(c.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """BatchNorm per feature over batch and patches, as in the paper; on rows, where it is several times faster."""
        tokens, d = x.shape[1:]
        x = self.norm1((x + self.dropout(self.attend(x))).flatten(0, 1))
        x = self.norm2(x + self.dropout(self.feed(x)))
        return x.reshape(-1, tokens, d)


class RelativeAttention(nn.Module):
    """Multi-head attention with a learned bias a head and offset i - j, computed on the 2N - 1 distinct offsets."""

    def __init__(self, d_model: int, n_heads: int, tokens: int) -> None:
        super().__init__()
        self.heads, self.tokens = n_heads, tokens
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.relative = nn.Sequential(nn.Linear(d_model, d_model), nn.GELU(), nn.Linear(d_model, n_heads))
        self.register_buffer("code", offset_code(tokens, d_model), persistent=False)
        self.code: Tensor
        i = torch.arange(tokens)
        self.register_buffer("offset", (i[:, None] - i[None, :] + tokens - 1).flatten(), persistent=False)
        self.offset: Tensor

    def bias(self) -> Tensor:
        """Relative bias [heads, N, N]."""
        by_offset = self.relative(self.code).float()  # [2N - 1, heads]
        return by_offset[self.offset].T.reshape(self.heads, self.tokens, self.tokens)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, d] -> [B, N, d]."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        return self.out(attend(qkv, self.bias()))  # type: ignore[no-any-return]


class Across(nn.Module):
    """Channels attend to each other, patch by patch; nothing tells their order. [B * C, N, d] -> same."""

    def __init__(self, c: MTSTConfig) -> None:
        super().__init__()
        self.channels, self.heads = c.n_channels, c.n_heads
        self.qkv, self.out = nn.Linear(c.d_model, 3 * c.d_model), nn.Linear(c.d_model, c.d_model)
        self.norm, self.dropout = nn.BatchNorm1d(c.d_model), CheapDropout(c.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Attention without a positional term, add, BatchNorm."""
        N, d = x.shape[1:]
        x = x.reshape(-1, self.channels, N, d).transpose(1, 2).reshape(-1, self.channels, d)  # [B * N, C, d]
        x = x + self.dropout(self.out(attend(self.qkv(x).unflatten(-1, (3, self.heads, -1)))))
        x = self.norm(x.flatten(0, 1)).reshape(-1, N, self.channels, d)
        return x.transpose(1, 2).reshape(-1, N, d)


class Peers(nn.Module):
    """Series of the same moment attend to each other; what it adds to the head starts at zero."""

    def __init__(self, c: MTSTConfig, outputs: int) -> None:
        super().__init__()
        self.heads = c.n_heads
        self.embed = nn.Linear(sum(c.tokens) * c.d_model, c.d_model)
        self.qkv, self.out = nn.Linear(c.d_model, 3 * c.d_model), silent(nn.Linear(c.d_model, outputs))

    def forward(self, features: Tensor, present: Tensor | None) -> Tensor:
        """features [T * G, inner], present bool [T, G] or None (G = 1). Returns [T * G, outputs]."""
        moments, series = (features.shape[0], 1) if present is None else present.shape
        x = self.embed(features).reshape(moments, series, -1)
        bias = None if present is None else torch.where(present, 0.0, -1e9)[:, None, None, :]
        mixed = attend(self.qkv(x).unflatten(-1, (3, self.heads, -1)), bias)
        return self.out(mixed.flatten(0, 1))  # type: ignore[no-any-return]


class Fusion(nn.Module):
    """All branches' tokens back to one sequence [B, L, M], by one Linear or a product of two thin ones."""

    def __init__(self, c: MTSTConfig, width: int) -> None:
        super().__init__()
        self.shape = (c.lookback, width)
        inner, outer = sum(c.tokens) * c.d_model, c.lookback * width
        self.map: nn.Module = nn.Linear(inner, outer)
        if c.fuse_rank:
            self.map = nn.Sequential(nn.Linear(inner, c.fuse_rank, bias=False), nn.Linear(c.fuse_rank, outer))

    def forward(self, branches: list[Tensor]) -> Tensor:
        """K tensors [B, N_k * d] -> [B, L, M]."""
        return self.map(torch.cat(branches, -1)).unflatten(-1, self.shape)  # type: ignore[no-any-return]


def normalise(x: Tensor, how: str) -> tuple[Tensor, Tensor, Tensor]:
    """Instance normalisation over time: the window, its mean and its deviation ([B, 1, C]); identity for "none"."""
    if how == "none":
        return x, torch.zeros(()), torch.ones(())
    mean = x.mean(1, keepdim=True)
    std = (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()  # a constant window becomes zeros, not a division by 0
    return (x - mean) / std, mean, std


def offset_code(tokens: int, width: int) -> Tensor:
    """Sinusoidal code [2N - 1, width] of the signed offsets -(N-1)..N-1; sines tell past from future."""
    offsets = torch.arange(-(tokens - 1), tokens, dtype=torch.float32)
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = offsets[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)[:, :width]


def silent(layer: nn.Linear) -> nn.Linear:
    """A Linear whose output starts at zero."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers in a network."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _normal_base(c: MTSTConfig) -> list[list[float]]:
    row = [NormalDist().inv_cdf(q) for q in c.levels] if c.head == "quantile" else [0.0]
    return [row for _ in c.horizons]
