"""Long-horizon forecasting of an ETT series: the field's own table, measured on the full test set.

Split 12/4/4 months, z-scores from the training part. The recipe below was chosen on validation parts only; it is an
average of six networks and two ridge regressions, the shorter of which is also its baseline. The table scores squared
and absolute errors, so networks of both losses are in it: one forecasts nearer the mean, one nearer the median.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.ett_published import DROP_BATCH, GOALS, PUBLISHED
from benchmarks.ett_ridge import ridge, truth
from benchmarks.figures import Figure, Figures
from mtst.loop import TrainingConfig
from mtst.model import MTSTConfig, count_parameters
from mtst.panel import Array
from mtst.series import Series, SeriesResult, forecast_series, train_series
from mtst.threads import keep_freed_memory
from observability.errors import DataError
from observability.progress import Progress

MONTH_DAYS, DAY_SECONDS = 30, 86_400
RIDGE_LOOKBACKS = (336, 512)  # the first is the baseline
MEMBERS = ("mae", "mae", "mse") * 2  # the networks' losses; each starts from a seed of its own
NETWORKS_SHARE = 0.6  # of the average; the ridges have the rest
NETWORK = MTSTConfig(
    lookback=336, patches=(24, 48), strides=(22, 20),  # 16 tokens a branch suit the vector unit
    channel_mode="independent", forecast="channels", head="point", instance_norm="reversible", n_layers=1, d_model=32,
    n_heads=4, d_ff=64, dropout=0.3, head_dropout=0.4, fuse_rank=0,
)  # fmt: skip
TRAINING = TrainingConfig(
    lr=1e-3, batch=128, epochs=5, patience=5, weight_decay=0.01, max_windows=0, max_valid=0, ema=0.99, precision="bf16"
)


def load_series(csv: Path) -> Series:
    """A series with a `date` column, standardised by its first 12 months.

    Raises:
        DataError: not such a file, dates that do not rise by one step, values that are missing or never change, or
            shorter than 20 months.
    """
    todo = "give a CSV with evenly spaced dates in a column `date` and finite numbers in all others"
    try:
        table = pl.read_csv(csv, try_parse_dates=True)
        steps = table["date"].diff().slice(1)
        step = steps[0].total_seconds()
        values = table.drop("date").to_numpy().astype(np.float64)
    except (OSError, pl.exceptions.PolarsError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"not an ETT file: {error}", where=str(csv), todo=todo) from error
    if step <= 0 or steps.n_unique() != 1:
        raise DataError("the dates do not rise by one step", where=str(csv), todo=todo)
    month = round(MONTH_DAYS * DAY_SECONDS / step)
    if len(values) < 20 * month:
        raise DataError(f"{len(values)} rows are less than 20 months", where=str(csv))
    train = values[: 12 * month]
    if not values.size or not np.isfinite(values).all() or not train.std(0).all():
        raise DataError("values are missing, or a column never changes", where=str(csv), todo=todo)
    scaled = (values[: 20 * month] - train.mean(0)) / train.std(0)
    return Series(scaled.astype(np.float32), 12 * month, 16 * month, 20 * month)


def network_of(channels: int, horizon: int) -> MTSTConfig:
    """The network for so many channels and rows ahead."""
    return replace(NETWORK, n_channels=channels, horizons=tuple(range(1, horizon + 1)))


def train_member(
    loss: str, series: Series, horizon: int, seed: int, training: TrainingConfig = TRAINING
) -> SeriesResult:
    """One network, trained by the frozen recipe."""
    config = replace(training, seed=seed)
    return train_series(network_of(series.values.shape[1], horizon), config, series, loss)


def errors(forecast: Array, series: Series, part: str, horizon: int, windows: int = 0) -> tuple[float, float]:
    """Mean squared and mean absolute error over the first `windows` (0: all) windows of a part."""
    target = truth(series, series.starts(part, 0, horizon), horizon)
    error = (forecast - target)[: windows or None]
    return float(np.square(error).mean()), float(np.abs(error).mean())


def run(
    progress: Progress, *, csv: Path, horizons: Sequence[int], seeds: int, threads: int = 1, epochs: int = 0
) -> Figures:
    """Train, average, score. `epochs` 0 means the recipe's; fewer are for a look at whether it runs."""
    keep_freed_memory()
    series, training = load_series(csv), replace(TRAINING, n_threads=threads, epochs=epochs or TRAINING.epochs)
    known = csv.stem
    rows: list[Figure] = []
    facts: dict[str, Any] = {
        "members": list(MEMBERS), "network": NETWORK.to_dict(), "training": training.to_dict(),
        "published": PUBLISHED.get(known, {}), "runs": [],
    }  # fmt: skip
    with progress.task(f"{known}: {len(horizons)} horizons, {seeds} seeds", total=len(horizons) * seeds) as task:
        for horizon in horizons:
            plain = [ridge(series, lookback, horizon) for lookback in RIDGE_LOOKBACKS]
            runs = []
            for seed in range(seeds):
                runs.append(_one(series, horizon, seed, plain, training))
                task.advance(1, f"horizon {horizon}, seed {seed}: {runs[-1]['mse']:.4f} / {runs[-1]['mae']:.4f}")
            facts["runs"] += runs
            rows += _rows(series, horizon, runs, plain[0]["test"], known)
    bound = "the series: one test part, to which training and validation parts are no faithful guide"
    return Figures(f"{known}: errors on the full test part", tuple(rows), bound, facts)


def _one(
    series: Series, horizon: int, seed: int, plain: list[dict[str, Array]], training: TrainingConfig
) -> dict[str, Any]:
    began = time.process_time()
    results = [train_member(loss, series, horizon, seed * 101 + n, training) for n, loss in enumerate(MEMBERS)]
    row: dict[str, Any] = {"horizon": horizon, "seed": seed}
    for part in ("valid", "test"):
        each = [forecast_series(result, series, part, training) for result in results]
        mean = NETWORKS_SHARE * np.mean(each, 0) + (1 - NETWORKS_SHARE) * np.mean([one[part] for one in plain], 0)
        names = ("mse", "mae") if part == "test" else ("valid_mse", "valid_mae")
        row |= dict(zip(names, errors(mean, series, part, horizon), strict=True))
        if part == "test":
            row["networks"] = [errors(forecast, series, part, horizon) for forecast in each]
            whole = len(mean) // DROP_BATCH * DROP_BATCH
            row["drop_last"] = errors(mean, series, part, horizon, whole)
    row["parameters"] = [count_parameters(result.model) for result in results]
    row["windows_per_second"] = [float(np.median([h["windows_per_second"] for h in r.history])) for r in results]
    row["cpu_seconds"] = time.process_time() - began
    return row


def _rows(series: Series, horizon: int, runs: list[dict[str, Any]], plain: Array, known: str) -> list[Figure]:
    published, goals = PUBLISHED.get(known, {}), GOALS.get(known, {})
    rows = []
    for number, name in enumerate(("mse", "mae")):
        values = [run[name] for run in runs]
        peer = errors(plain, series, "test", horizon)[number]
        single = np.mean([run["networks"][0][number] for run in runs])
        drop = np.mean([run["drop_last"][number] for run in runs])
        others = ", ".join(
            f"{who} {table[horizon][number]:.3f}" for who, table in published.items() if horizon in table
        )
        note = f"± {np.std(values):.4f}; one network {single:.4f}; last batch dropped {drop:.4f}; {others}"
        value, goal = float(np.mean(values)), goals.get(horizon)
        rows.append(
            Figure(
                f"{horizon} {name.upper()}", value, "", "ridge", peer, value / peer,
                goal=goal[number] if goal else None, at_most=True, goal_of="value", note=note,
            )
        )  # fmt: skip
    seconds = max(run["cpu_seconds"] for run in runs)
    rows.append(Figure(f"{horizon} CPU, worst seed", seconds, "s", goal=900, at_most=True, goal_of="value"))
    return rows
