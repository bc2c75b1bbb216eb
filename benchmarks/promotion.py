"""Does the gate promote what is there and refuse what is not? The same code as the pipeline, seed by seed.

Four kinds of market, each judged with the pipeline's default folds, stride and short list of baselines, by the recipe
that every sweep tries first: `edge` (simulated, the default planted edge), `noise` (the same without it), `shuffled`
(real candles, their time shuffled in blocks), and `labels` (the market with the edge, its labels shuffled: any
correlation found there is a leak). `real` reports real candles as they are.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, Figures
from benchmarks.markets import panel_of, real_candles, shuffled, simulated_candles, with_shuffled_labels
from cluster.settings import MarketSettings, Settings
from cluster.stages.exchange import DRIFT_SHARE
from cluster.stages.train import judge_config, sweep_config
from mtst.adapters.search_space import configs_of, default_choice
from mtst.adapters.walkforward import JudgeConfig, blocks_of
from mtst.baselines import CHEAP, BaselineConfig
from mtst.evaluation import MODEL, Evaluation, EvaluationOptions, evaluate_fold, summarise
from mtst.panel import Panel
from mtst.promotion import PromotionPolicy, decide_promotion
from observability.errors import DataError
from observability.progress import Progress
from pipelines.spec import DatasetSpec

PLANTED = DRIFT_SHARE * MarketSettings().edge  # what a demo on the simulated market plants
REAL = {
    "binance 15m": ("binance", "15m"),
    "binance 1h": ("binance", "1h"),
    "binanceusdm 15m": ("binanceusdm", "15m"),
    "coinbase 1h": ("coinbase", "1h"),
}
KINDS = ("edge", "noise", "shuffled", "labels", "real")


@dataclass(frozen=True)
class Run:
    """One judged market; `strict` is the decision if every learning baseline had to be beaten outright."""

    kind: str
    seed: int
    name: str
    status: str
    strict: str
    failed: tuple[str, ...]
    improvements: dict[str, float]
    p_values: dict[str, float]
    ic: tuple[float, float, float]
    volatility: dict[str, tuple[float, float]]  # against ewma and garch: QLIKE difference and p
    net_return: float
    entries: int
    profit_p: float
    seconds: float


def run(
    progress: Progress,
    *,
    seeds: int = 20,
    kinds: Sequence[str] = KINDS,
    data: Path | None = None,
    rows: Path | None = None,
    config: JudgeConfig | None = None,
) -> Figures:
    """Judge `seeds` markets of each kind; `rows` keeps what is done, one JSON line a market, to go on from."""
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise DataError(f"unknown kinds {unknown}", where="bench promotion", todo=f"choose from {', '.join(KINDS)}")
    data = data or Path(os.environ.get("MTST_SHARED_DATA", "../shared/data"))
    done = _read(rows)
    for kind in kinds:
        jobs = _jobs(kind, seeds, data / "market")
        with progress.task(kind, total=len(jobs)) as task:
            for seed, name, make in jobs:
                if not any((each.kind, each.seed, each.name) == (kind, seed, name) for each in done):
                    done.append(_judge((kind, seed, name), make, config))
                    _append(rows, done[-1])
                task.advance(1, f"{sum(each.status == 'champion' for each in done if each.kind == kind)} promoted")
    wanted = [each for each in done if each.kind in kinds and (each.kind == "real" or each.seed <= seeds)]
    return figures(wanted)


def evaluate(panel: Panel, spec: DatasetSpec, seed: int, config: JudgeConfig) -> Evaluation:
    """The pipeline's blocks in this process, by the recipe that every sweep tries first."""
    sweep = replace(sweep_config(Settings(), spec), seed=seed)
    model, training = configs_of(default_choice(spec.lookback), spec, asdict(sweep))
    blocks = blocks_of(panel, config)
    return summarise([evaluate_fold(panel, block, model, training, config.options) for block in blocks])


def _jobs(kind: str, seeds: int, market: Path) -> list[tuple[int, str, Callable[[], tuple[Panel, DatasetSpec]]]]:
    def simulated(seed: int, edge: float) -> Callable[[], tuple[Panel, DatasetSpec]]:
        return lambda: panel_of(simulated_candles(seed, edge))

    def in_blocks(seed: int) -> Callable[[], tuple[Panel, DatasetSpec]]:
        return lambda: panel_of(shuffled(real_candles(market / "binance"), seed))

    def relabelled(seed: int) -> tuple[Panel, DatasetSpec]:
        panel, spec = panel_of(simulated_candles(seed, PLANTED))
        return with_shuffled_labels(panel, seed), spec

    numbers = range(1, seeds + 1)
    if kind in ("edge", "noise"):
        return [(seed, "", simulated(seed, PLANTED if kind == "edge" else 0.0)) for seed in numbers]
    if kind == "labels":
        return [(seed, "", lambda seed=seed: relabelled(seed)) for seed in numbers]  # type: ignore[misc]
    if not market.is_dir():
        raise DataError("there are no real candles", where=str(market), todo="set MTST_SHARED_DATA, or leave it out")
    if kind == "shuffled":
        return [(seed, "", in_blocks(seed)) for seed in numbers]
    return [
        (0, name, lambda folder=folder, tf=tf: panel_of(real_candles(market / folder, tf, 0), tf))  # type: ignore[misc]
        for name, (folder, tf) in REAL.items()
        if (market / folder).is_dir()
    ]


def _judge(key: tuple[str, int, str], make: Callable[[], tuple[Panel, DatasetSpec]], config: JudgeConfig | None) -> Run:
    began = time.perf_counter()
    kind, seed, name = key
    panel, spec = make()
    config = config or judge_config(Settings(), spec)
    if kind == "real":
        config = replace(config, options=EvaluationOptions(BaselineConfig(names=(*CHEAP, "garch"))))
    evaluation = evaluate(panel, spec, seed, config)
    decision = decide_promotion(evaluation)
    strict = decide_promotion(evaluation, policy=PromotionPolicy(rival_share=1.0))
    value, longest = evaluation.economics[MODEL], evaluation.skill[-1].ic
    return Run(
        kind=kind,
        seed=seed,
        name=name,
        status=decision.status,
        strict=strict.status,
        failed=tuple(reason.text for reason in decision.reasons if not reason.passed),
        improvements={n: c.improvement for n, c in evaluation.comparisons.items()},
        p_values={n: max(c.p_value, c.bootstrap_p) for n, c in evaluation.comparisons.items()},
        ic=(longest.value, longest.low, longest.high),
        volatility={n: (c.improvement, max(c.p_value, c.bootstrap_p)) for n, c in evaluation.volatility.items()},
        net_return=value.net_return,
        entries=value.entries,
        profit_p=evaluation.profit_p,
        seconds=time.perf_counter() - began,
    )


def figures(runs: Sequence[Run]) -> Figures:
    """The table: how many were promoted of each kind, and what else the issue asks of them."""
    lines: list[Figure] = []
    for kind, goal, at_most in (("edge", 19 / 20, False), ("noise", 1 / 20, True), ("shuffled", 1 / 20, True)):
        chosen = [each for each in runs if each.kind == kind]
        if chosen:
            share = float(np.mean([each.status == "champion" for each in chosen]))
            outright = sum(each.strict == "champion" for each in chosen)
            note = f"of {len(chosen)} seeds; {outright} beat every learning baseline outright"
            lines.append(
                Figure(f"{kind}: promoted", share, "share", goal=goal, at_most=at_most, goal_of="value", note=note)
            )
    relabelled = np.asarray([each.ic for each in runs if each.kind == "labels"])
    if len(relabelled):
        error = float(relabelled[:, 0].std(ddof=1) / np.sqrt(len(relabelled))) if len(relabelled) > 1 else float("nan")
        hit = int(((relabelled[:, 1] <= 0) & (relabelled[:, 2] >= 0)).sum())
        note = f"+- {error:.4f}; zero lies in the 95 % interval of {hit} of {len(relabelled)}"
        lines.append(Figure("labels: information coefficient", float(relabelled[:, 0].mean()), "", note=note))
    for each in (each for each in runs if each.kind == "real"):
        for rival, (better, p) in each.volatility.items():
            note = f"p {p:.4f}"
            lines.append(Figure(f"{each.name}: volatility better than {rival}, QLIKE", better, "", note=note))
        note = f"95 % {each.ic[1]:+.3f} to {each.ic[2]:+.3f}; {each.status}, net {each.net_return:+.1%}"
        lines.append(Figure(f"{each.name}: information coefficient", each.ic[0], "", note=note))
    seconds = float(np.median([each.seconds for each in runs])) if runs else 0.0
    bound = f"a market takes {seconds:.0f} s; most of it trains the network and the trees on four blocks"
    return Figures("what the gate promotes", tuple(lines), bound, {"runs": [asdict(each) for each in runs]})


def _read(rows: Path | None) -> list[Run]:
    if rows is None or not rows.is_file():
        return []
    found = [json.loads(line) for line in rows.read_text().splitlines() if line]
    return [replace(Run(**each), failed=tuple(each["failed"]), ic=tuple(each["ic"])) for each in found]


def _append(rows: Path | None, run_: Run) -> None:
    if rows is not None:
        with rows.open("a") as file:
            file.write(json.dumps(asdict(run_)) + "\n")
