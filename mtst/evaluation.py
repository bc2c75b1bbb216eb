"""All folds together: what a promotion is decided on, and what a model card shows.

Tests of significance run on losses that are means over pairs and horizons at each time, see `fold_scores`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from mtst.economics import EconomicValue, PeriodReturns, cash, idle_return, summarise_returns
from mtst.fold_scores import MODEL, REGIMES, EvaluationOptions, FoldScores, OutOfSample, evaluate_fold, score_fold
from mtst.panel import Array
from mtst.scoring import HorizonScores, Scores, expected_return
from mtst.selection import DeflatedSharpe, Overfitting, deflated_sharpe
from mtst.significance import Interval, block_bootstrap, correlation_interval, diebold_mariano, hac_lag
from observability.errors import DataError

__all__ = [
    "MODEL", "Comparison", "Evaluation", "EvaluationOptions", "FoldScores", "HorizonSkill", "OutOfSample",
    "compare", "evaluate_fold", "score_fold", "summarise",
]  # fmt: skip
REFERENCE = "ewma"  # the baseline that regimes and volatility are measured against


@dataclass(frozen=True, slots=True)
class Comparison:
    """The model against one other: relative improvement of the loss and two one-sided p-values."""

    against: str
    improvement: float
    statistic: float
    p_value: float
    bootstrap_p: float
    n: int


@dataclass(frozen=True, slots=True)
class HorizonSkill:
    """Direction at one horizon: information coefficients of expected and actual return with 95 % block-bootstrap
    intervals over time, all unseen windows together."""

    horizon: int
    ic: Interval
    rank_ic: Interval


@dataclass(frozen=True)
class Evaluation:
    """All folds together.

    Attributes:
        scores: by forecaster, folds weighted by their windows.
        regimes: by regime of volatility and trend, the model's loss / the EWMA baseline's - 1 (negative is better).
        economics: "mtst", "cash", "hold" net of costs over all folds.
        profit_p: one-sided bootstrap p-value of the model's mean net return above cash.
        times_ms, losses: the model's loss series, to compare with another evaluation of the same times.
        rivals: the baselines' loss series at the same times.
        skill: direction by horizon. volatility: the forecast of volatility against others' by QLIKE.
        deflated: Sharpe ratio after the number of trials. overfitting: of the sweep's trials; None if not known.
    """

    model: str
    n_folds: int
    n_windows: int
    start_ms: int
    end_ms: int
    horizons: tuple[int, ...]
    levels: tuple[float, ...]
    scores: dict[str, Scores]
    comparisons: dict[str, Comparison]
    regimes: dict[str, float]
    economics: dict[str, EconomicValue]
    profit_p: float
    fold_skill: tuple[float, ...]
    times_ms: tuple[int, ...]
    losses: tuple[float, ...]
    seconds: float
    skill: tuple[HorizonSkill, ...] = ()
    volatility: dict[str, Comparison] = field(default_factory=dict)
    rivals: dict[str, tuple[float, ...]] = field(default_factory=dict)
    equity: dict[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    deflated: DeflatedSharpe | None = None
    overfitting: Overfitting | None = None

    def to_dict(self, *, series: bool = True) -> dict[str, Any]:
        """Plain JSON-able dictionary; `series=False` leaves out the series over time (long)."""
        data = asdict(self)
        if not series:
            data |= {"times_ms": [], "losses": [], "rivals": {}, "equity": {}}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Evaluation:
        """Rebuild from `to_dict`, also after JSON. Raises DataError when it is not an evaluation."""
        try:
            found, deflated = data.get("overfitting"), data.get("deflated")
            return cls(
                **{
                    **data,
                    **{name: tuple(data[name]) for name in ("horizons", "levels", "fold_skill", "times_ms", "losses")},
                    "scores": {k: _scores(v) for k, v in data["scores"].items()},
                    "comparisons": {k: Comparison(**v) for k, v in data["comparisons"].items()},
                    "economics": {k: EconomicValue(**v) for k, v in data["economics"].items()},
                    "skill": tuple(_skill(each) for each in data.get("skill", ())),
                    "volatility": {k: Comparison(**v) for k, v in data.get("volatility", {}).items()},
                    "rivals": {k: tuple(v) for k, v in data.get("rivals", {}).items()},
                    "equity": {k: tuple((int(t), float(x)) for t, x in v) for k, v in data.get("equity", {}).items()},
                    "deflated": None if deflated is None else DeflatedSharpe(**deflated),
                    "overfitting": None if found is None else Overfitting(**found),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not an evaluation: {error!r}", where=str(data)[:80]) from error


def summarise(
    folds: Sequence[FoldScores], model: str = MODEL, *, trials: int = 1, overfitting: Overfitting | None = None
) -> Evaluation:
    """Sum up folds in time order; comparisons run over all their test times together.

    Args:
        trials: configurations that the recipe was chosen from: what the Sharpe ratio is deflated by.
        overfitting: what the sweep's trials say, to be kept with the rest.

    Raises:
        DataError: no folds, or folds of different forecasters.
    """
    if not folds or any(f.scores.keys() != folds[0].scores.keys() for f in folds):
        raise DataError("no folds to sum up, or folds that scored different forecasters", where="summarise")
    folds = sorted(folds, key=lambda f: f.fold.test_start_ms)
    first = folds[0]
    losses = {name: np.concatenate([f.losses[name] for f in folds]) for name in first.losses}
    times = np.concatenate([f.times_ms for f in folds])
    economics = {name: summarise_returns(name, [f.trades[name] for f in folds], first.step_ms) for name in first.trades}
    economics["cash"] = cash(economics[MODEL].periods, first.costs, first.step_ms)
    net = np.concatenate([f.trades[MODEL].net for f in folds])
    idle = idle_return(first.costs, first.step_ms)
    return Evaluation(
        model=model,
        n_folds=len(folds),
        n_windows=sum(len(f.forecasts.timestamps) for f in folds),
        start_ms=int(times.min()),
        end_ms=int(times.max()),
        horizons=first.forecasts.horizons,
        levels=first.forecasts.levels,
        scores={name: _pool([f.scores[name] for f in folds]) for name in first.scores},
        comparisons={n: compare(n, losses[MODEL], losses[n], first.overlap) for n in losses if n != MODEL},
        regimes=_by_regime(folds, losses[MODEL], losses.get(REFERENCE, losses[MODEL])),
        economics=economics,
        profit_p=_profit_p(net, idle),
        fold_skill=tuple(
            float(1 - f.losses[MODEL].mean() / f.losses.get(REFERENCE, f.losses[MODEL]).mean()) for f in folds
        ),
        times_ms=tuple(times.tolist()),
        losses=tuple(losses[MODEL].tolist()),
        seconds=float(sum(sum(f.seconds.values()) for f in folds)),
        skill=_direction(folds),
        volatility=_volatility(folds),
        rivals={name: tuple(series.tolist()) for name, series in losses.items() if name != MODEL},
        equity={name: _equity([f.trades[name] for f in folds]) for name in first.trades},
        deflated=deflated_sharpe(net - idle, trials),
        overfitting=overfitting,
    )


def compare(against: str, ours: Array, theirs: Array, overlap: int) -> Comparison:
    """Both tests on two loss series of the same times; labels overlap by `overlap` times."""
    lag = hac_lag(len(ours), overlap)
    test = diebold_mariano(ours, theirs, lag)
    resampled = block_bootstrap(ours, theirs, 2 * lag)
    improvement = test.difference / abs(float(np.mean(theirs)))
    return Comparison(against, improvement, test.statistic, test.p_value, resampled.p_value, test.n)


def _by_regime(folds: Sequence[FoldScores], ours: Array, reference: Array) -> dict[str, float]:
    found = {}
    for kind, names in REGIMES.items():
        regime = np.concatenate([f.regimes[kind] for f in folds])
        for i, name in enumerate(names):
            if (regime == i).any():
                found[name] = float(ours[regime == i].sum() / reference[regime == i].sum() - 1)
    return found


def _direction(folds: Sequence[FoldScores]) -> tuple[HorizonSkill, ...]:
    """Correlations over all unseen windows; returns in units of recent volatility, so that no wild day decides."""
    parts = [f.forecasts for f in folds]
    times = np.concatenate([p.timestamps for p in parts])
    rows = []
    for i, h in enumerate(parts[0].horizons):
        unit = np.concatenate([p.scale for p in parts]).astype(np.float64) * np.sqrt(h)
        expected = np.concatenate([expected_return(p.values.astype(np.float64), p.levels)[:, i] for p in parts]) / unit
        actual = np.concatenate([p.target[:, i] for p in parts]).astype(np.float64) / unit
        block = 2 * hac_lag(len(times), h)
        ic, rank_ic = (correlation_interval(expected, actual, times, block, ranks=ranks) for ranks in (False, True))
        rows.append(HorizonSkill(h, ic, rank_ic))
    return tuple(rows)


def _volatility(folds: Sequence[FoldScores]) -> dict[str, Comparison]:
    """QLIKE, ln sigma^2 + r^2 / sigma^2 (Patton 2011): robust to the noise of r^2 as a proxy of the variance.

    sigma is read from the central 80 %, which fat tails make too small by a constant; so each forecaster's is first
    scaled by the one factor that makes its mean r^2 / sigma^2 equal 1, ours and theirs alike.
    """
    series = {}
    for name in folds[0].surprise:
        surprise = np.concatenate([f.surprise[name] for f in folds])
        log_variance = np.concatenate([f.log_variance[name] for f in folds])
        factor = float(surprise.mean())
        series[name] = log_variance + np.log(factor) + surprise / factor if factor > 0 else log_variance
    return {
        name: _absolute(compare(name, series[MODEL], series[name], folds[0].overlap), series[name])
        for name in (REFERENCE, "garch")
        if name in series
    }


def _absolute(c: Comparison, theirs: Array) -> Comparison:
    # A QLIKE has no natural zero, so its difference is told as it is and not as a share.
    return replace(c, improvement=c.improvement * abs(float(theirs.mean())))


def _equity(parts: Sequence[PeriodReturns]) -> tuple[tuple[int, float], ...]:
    """Capital at the start of each period, from 1."""
    times = np.concatenate([p.times_ms for p in parts])
    grown = np.cumprod(1.0 + np.concatenate([p.net for p in parts]))
    return tuple(zip(times.tolist(), [1.0, *grown[:-1].tolist()], strict=True))


def _profit_p(net: Array, idle: float) -> float:
    if len(net) < 10 or np.ptp(net) == 0:
        return 1.0
    return block_bootstrap(-net, np.full(len(net), -idle), block=5).p_value


def _skill(data: Mapping[str, Any]) -> HorizonSkill:
    return HorizonSkill(int(data["horizon"]), Interval(**data["ic"]), Interval(**data["rank_ic"]))


def _pool(scores: Sequence[Scores]) -> Scores:
    """Folds' scores weighted by their windows."""

    def mean(values: Sequence[float], weights: Sequence[int]) -> float:
        return float(np.average(values, weights=weights))

    rows = []
    for parts in zip(*(s.horizons for s in scores), strict=True):
        n = [p.n for p in parts]
        names = ("pinball", "crps", "coverage", "direction", "direction_low", "direction_high", "ic", "rank_ic")
        pooled = {name: mean([getattr(p, name) for p in parts], n) for name in names}
        calibration = tuple(mean(column, n) for column in zip(*(p.calibration for p in parts), strict=True))
        rows.append(HorizonScores(horizon=parts[0].horizon, n=sum(n), calibration=calibration, **pooled))
    return Scores(scores[0].model, mean([s.pinball for s in scores], [s.horizons[0].n for s in scores]), tuple(rows))


def _scores(data: Mapping[str, Any]) -> Scores:
    rows = [HorizonScores(**{**row, "calibration": tuple(row["calibration"])}) for row in data["horizons"]]
    return Scores(data["model"], data["pinball"], tuple(rows))
