"""Everything that shapes the network, in one frozen value that a model card can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from observability.errors import ModelError

CALENDAR = 4  # sine and cosine of the hour of the day and of the day of the week
DEFAULT_LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


@dataclass(frozen=True, slots=True)
class MTSTConfig:
    """The network's shape. Lengths in candles.

    The defaults are small on purpose: on 60 days of six 15m pairs larger networks (d_model 32, two layers) learned no
    more and varied more with the seed, and fewer mixed channels lost information by an unlucky first draw.

    Attributes:
        patches, strides: of each branch; no strides: half of each patch.
        channel_mode: "mixed" (channels are features of one target), "independent" (the paper: shared weights, no
            exchange between channels) or "attention" (the same, and after each block the channels attend to each
            other, patch by patch).
        forecast: one forecast a window ("target"), or one a channel ("channels"; not when channels are mixed).
        linear: a linear map from the window to the forecast beside the branches; not when channels are mixed.
        drift: the median starts from a linear forecast (see `MTST.summary`), fitted in closed form before training:
            what is linear need not be learned by steps; only mixed channels, quantiles.
        calendar: hour and weekday of each horizon's moment are known covariates.
        series: names (pairs) whose identity is a static covariate; others are served without.
        peers: windows of the same moment (other pairs) attend to each other before the head; only with mixed channels.
        head_dropout: None: as `dropout`.

    Raises:
        ModelError: a combination cannot be built (patch longer than the look-back, heads do not divide d_model, ...).
    """

    lookback: int = 96
    n_channels: int = 16
    horizons: tuple[int, ...] = (1, 4, 16)
    levels: tuple[float, ...] = DEFAULT_LEVELS
    patches: tuple[int, ...] = (8, 32)
    strides: tuple[int, ...] = ()
    n_layers: int = 1
    d_model: int = 16
    n_heads: int = 4
    d_ff: int = 32
    dropout: float = 0.3
    head_dropout: float | None = None
    head: Literal["quantile", "point"] = "quantile"
    channel_mode: Literal["mixed", "independent", "attention"] = "mixed"
    forecast: Literal["target", "channels"] = "target"
    mixed_channels: int = 16
    fuse_rank: int = 16
    skip: bool = True
    linear: bool = False
    drift: bool = False
    calendar: bool = False
    series: tuple[str, ...] = ()
    peers: bool = False
    instance_norm: Literal["none", "input", "reversible"] = "none"

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise ModelError(
                f"this model cannot be built: {problem}", where="MTSTConfig", todo="mend the configuration"
            )

    @property
    def steps(self) -> tuple[int, ...]:
        """Stride of each branch."""
        return self.strides or tuple(p // 2 for p in self.patches)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Patches a branch cuts, N_k = floor((L - P_k) / S_k) + 2, the last one reaching into the padding."""
        return tuple((self.lookback - p) // s + 2 for p, s in zip(self.patches, self.steps, strict=True))

    @property
    def known(self) -> int:
        """Numbers known of each horizon's moment and of the series."""
        return CALENDAR * self.calendar + len(self.series)

    @property
    def n_outputs(self) -> int:
        """Numbers a horizon: one a quantile level, or one for a point forecast."""
        return len(self.levels) if self.head == "quantile" else 1

    @property
    def head_width(self) -> int:
        """Numbers the network gives a horizon: location, width, and one a gap between levels; or one point."""
        return len(self.levels) + 1 if self.head == "quantile" else 1

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able dictionary for model cards and trial logs."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MTSTConfig:
        """Rebuild from `to_dict`; unknown fields raise ModelError, so a card of a later version is not half-read."""
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            raise ModelError(f"unknown model settings {unknown}", where="MTSTConfig", todo="use its writer's version")
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**settings)


def _problem(c: MTSTConfig) -> str:
    """The first thing that cannot be built, or nothing."""
    return next((text for passed, text in (*_sizes(c), *_choices(c)) if not passed), "")


def _sizes(c: MTSTConfig) -> tuple[tuple[object, str], ...]:
    strides_fit = len(c.strides) in (0, len(c.patches))
    return (
        (
            min(c.n_channels, c.n_layers, c.mixed_channels, c.n_heads, c.d_ff) >= 1 and c.fuse_rank >= 0,
            "sizes must be at least 1, fuse_rank at least 0",
        ),
        (
            c.patches and all(p >= 2 and p % 2 == 0 and p <= c.lookback for p in c.patches),
            f"patches {c.patches} must be even and between 2 and the look-back {c.lookback}",
        ),
        (
            strides_fit and all(1 <= s <= p for p, s in zip(c.patches, c.strides, strict=False)),
            f"strides {c.strides} must be one a patch of {c.patches} and at most as long, so that no candle is skipped",
        ),
        (
            c.d_model >= 2 and c.d_model % max(c.n_heads, 1) == 0 and c.d_model % 2 == 0,
            f"d_model {c.d_model} must be even and a multiple of n_heads {c.n_heads}",
        ),
        (0 <= c.dropout < 1, f"dropout {c.dropout} is outside [0, 1)"),
        (c.head_dropout is None or 0 <= c.head_dropout < 1, f"head_dropout {c.head_dropout} is outside [0, 1)"),
    )


def _choices(c: MTSTConfig) -> tuple[tuple[object, str], ...]:
    levels, horizons = list(c.levels), list(c.horizons)
    median_in_the_middle = len(levels) % 2 == 1 and levels[len(levels) // 2] == 0.5
    inside = all(0 < q < 1 for q in levels) and levels == sorted(set(levels))
    return (
        (
            horizons and horizons == sorted(set(horizons)) and horizons[0] >= 1,
            f"horizons {c.horizons} must be increasing and positive",
        ),
        (c.head in ("quantile", "point"), f"unknown head {c.head!r}"),
        (c.channel_mode in ("mixed", "independent", "attention"), f"unknown channel_mode {c.channel_mode!r}"),
        (c.instance_norm in ("none", "input", "reversible"), f"unknown instance_norm {c.instance_norm!r}"),
        (
            c.forecast == "target" or (c.forecast == "channels" and c.channel_mode != "mixed"),
            f"forecast {c.forecast!r} does not go with channel_mode {c.channel_mode!r}",
        ),
        (
            not (c.peers if c.channel_mode != "mixed" else c.linear),
            "peers go with mixed channels only, and a linear branch with unmixed ones only",
        ),
        (
            not c.drift or (c.head == "quantile" and c.channel_mode == "mixed"),
            "a linear start of the median goes with quantiles of mixed channels only",
        ),
        (
            c.head == "point" or (inside and median_in_the_middle),
            f"levels {c.levels} must increase inside (0, 1), be odd in number and have the median in the middle",
        ),
    )
