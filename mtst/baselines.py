"""What a forecaster must beat: simple models fitted on the same training rows, scored on the same test rows."""

from __future__ import annotations

from collections.abc import Callable

from mtst.baseline_kit import BaselineConfig
from mtst.naive import ewma, garch, majority
from mtst.panel import Array, Panel, Split
from mtst.rivals import ar, dlinear, lightgbm, logistic, revin_ridge, ridge
from observability.errors import ModelError

__all__ = ["BASELINES", "CHEAP", "DEAR", "IN_WORDS", "NAIVE", "BaselineConfig", "baseline_forecasts"]

BASELINES: dict[str, Callable[[Panel, Split, BaselineConfig], Array]] = {
    "ewma": ewma,
    "majority": majority,
    "ar": ar,
    "ridge": ridge,
    "revin_ridge": revin_ridge,
    "logistic": logistic,
    "lightgbm": lightgbm,
    "garch": garch,
    "dlinear": dlinear,
}
NAIVE = ("ewma", "garch", "majority")  # know nothing of direction; the others learn
DEAR = ("garch", "dlinear")  # seconds a fold; `train evaluate` fits them, short runs leave them out
CHEAP = tuple(name for name in BASELINES if name not in DEAR)
IN_WORDS = {
    "ewma": "recent volatility alone (EWMA)",
    "majority": "the past's average distribution",
    "ar": "an autoregression of the window's returns",
    "ridge": "a linear model of the newest features (ridge)",
    "revin_ridge": "a linear model of the normalised window (RevIN ridge)",
    "logistic": "a logistic regression of the sign",
    "lightgbm": "boosted trees (LightGBM)",
    "garch": "volatility by GARCH",
    "dlinear": "a linear model of trend and rest (DLinear)",
}


def baseline_forecasts(name: str, panel: Panel, split: Split, config: BaselineConfig) -> Array:
    """Fit a baseline on `split.train`, forecast `split.test`: float64 [n_test, H, Q]. ModelError on an unknown name."""
    if name not in BASELINES:
        raise ModelError(f"unknown baseline {name!r}", where="baselines", todo=f"choose from {', '.join(BASELINES)}")
    return BASELINES[name](panel, split, config)
