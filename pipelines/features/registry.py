"""The list of features: each a function of candles and parameters, registered with the history that it needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from observability.errors import SpecError
from pipelines.features.bars import Bars
from pipelines.features.windows import Array, floats

Param = int | float | str
Build = Callable[..., Array | pl.Expr]


@dataclass(frozen=True)
class Feature:
    """A registered feature.

    Attributes:
        build: from `Bars` and the parameters to a column: an array, or a polars expression over the candle table.
        warmup: from the parameters to the number of candles before row t that row t needs.
        source: enrichment that it reads: "", "funding", "mark", "onchain" or "market" (the closes of all pairs).
        version: part of every spec's hash.
    """

    name: str
    build: Build
    warmup: Callable[..., int]
    source: str
    version: int

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of what it takes besides the candles, in order."""
        return tuple(inspect.signature(self.build).parameters)[1:]

    def check(self, params: Mapping[str, Param]) -> None:
        """Raise SpecError unless `params` are exactly what the feature takes, with windows of at least 1."""
        if set(params) != set(self.parameters):
            raise SpecError(f"feature {self.name!r} takes {sorted(self.parameters)}, got {sorted(params)}")
        for key, value in params.items():
            if isinstance(value, (int, float)) and value < 1:
                raise SpecError(f"feature {self.name!r} got {key}={value}, which is below 1")

    def column(self, params: Mapping[str, Param]) -> str:
        """Column name, for example `log_return_4`."""
        return "_".join((self.name, *(str(params[key]) for key in self.parameters)))

    def values(self, bars: Bars, params: Mapping[str, Param]) -> Array:
        """float64 column, one value a candle; NaN or infinite where there is none."""
        made = self.build(bars, **params)
        if isinstance(made, pl.Expr):
            made = floats(bars.table.select(made).to_series())
        return made


_REGISTRY: dict[str, Feature] = {}


def feature(warmup: Callable[..., int], *, source: str = "", version: int = 1) -> Callable[[Build], Build]:
    """Register a feature under its function's name.

    Args:
        warmup: from the feature's parameters to the number of candles before row t that row t needs.
        source: enrichment that it reads.
        version: raise it with every change of the formula.
    """

    def register(build: Build) -> Build:
        name = getattr(build, "__name__", str(build))
        _REGISTRY[name] = Feature(name, build, warmup, source, version)
        return build

    return register


def get_feature(name: str) -> Feature:
    """The feature of that name; SpecError lists the known ones otherwise."""
    if name not in _REGISTRY:
        raise SpecError(f"unknown feature {name!r}", todo=f"known: {', '.join(sorted(_REGISTRY))}")
    return _REGISTRY[name]


def feature_names() -> tuple[str, ...]:
    """All registered names, sorted."""
    return tuple(sorted(_REGISTRY))
