"""Training: search for a model, judge it on data it never saw, decide in words whether it may trade."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from cluster.card import write_card
from cluster.ray_local import ray_session
from cluster.settings import Settings
from cluster.stages.data import data_spec, open_store
from cluster.stages.enrichment import enrichment_facts
from mtst.adapters.registry import Registered, Registry
from mtst.adapters.sweep import SweepConfig, SweepResult, latest_sweep, run_sweep
from mtst.adapters.tracking import Tracker
from mtst.adapters.walkforward import FinalFit, JudgeConfig, Judgement, judge, judge_frozen, log_judgement
from mtst.artifact import CARD, Artifact, load_artifact, save_artifact
from mtst.baselines import BASELINES, CHEAP, BaselineConfig
from mtst.economics import CostPolicy
from mtst.evaluation import Evaluation, EvaluationOptions
from mtst.model import MTST, MTSTConfig
from mtst.panel import Scaler
from mtst.promotion import PromotionPolicy, Reason, decide_promotion
from mtst.provenance import code_version
from mtst.selection import Overfitting
from observability.errors import DataError, TrainingError
from observability.files import write_whole
from observability.progress import Progress
from pipelines.enrich import SOURCES
from pipelines.frames import enrichment_keys
from pipelines.spec import DatasetSpec
from pipelines.store import SeriesKey

CANDIDATE = "candidate.json"


@dataclass(frozen=True)
class EvaluateSummary:
    """A judged recipe and the artifact fitted by it; `losses` by forecaster, lower is better."""

    name: str
    version: str
    artifact: Path
    forecasts: Path
    blocks: int
    windows: int
    losses: dict[str, float]
    improvements: dict[str, float]
    p_values: dict[str, float]
    net_returns: dict[str, float]
    levels: tuple[float, ...]
    observed: dict[str, tuple[float, ...]]
    absent: tuple[str, ...]
    run_id: str
    seconds: float


@dataclass(frozen=True)
class PromoteSummary:
    """The decision: `status` champion or shadow, its reasons, where the model is registered, and its card to read."""

    name: str
    version: str
    number: str
    status: str
    text: str
    reasons: tuple[Reason, ...]
    champion: str
    run_id: str
    card: Path | None = None


def sweep(settings: Settings, progress: Progress, *, resume: bool = False) -> SweepResult:
    """Search on the data set that the settings name.

    Raises:
        SpecError: its features are not built. TrainingError: no trial gave a loss.
    """
    spec = data_spec(settings)
    with ray_session(settings):
        return run_sweep(
            sweep_config(settings, spec),
            settings.workspace.features,
            spec,
            settings.workspace.mlflow_uri,
            _tune_folder(settings),
            progress=progress,
            resume=resume,
        )


def sweep_config(settings: Settings, spec: DatasetSpec) -> SweepConfig:
    """The search that the settings ask for; search and evaluation share folds and embargo."""
    chosen = settings.sweep
    return SweepConfig(
        trials=chosen.trials,
        epochs=chosen.max_epochs,
        max_windows=chosen.max_windows,
        folds=chosen.folds,
        embargo=max(spec.horizons),
        seed=chosen.seed,
        scheduler=chosen.scheduler,
        gpus_per_trial=chosen.gpus_per_trial,
    )


def evaluate(settings: Settings, progress: Progress, *, short: bool = False) -> EvaluateSummary:
    """Judge the best configuration of the newest sweep by walk-forward, and fit and pack the model for use.

    Args:
        short: leave out the baselines that take long (`mtst.baselines.DEAR`).

    Raises:
        TrainingError: there is no finished sweep of this data set.
    """
    spec = data_spec(settings)
    found = latest_sweep(_tune_folder(settings), spec.hash)
    if found is None:
        raise TrainingError(f"no finished sweep of data set {spec.hash}", where="train evaluate", todo="train sweep")
    best, run_id, name = found["best_config"], str(found["parent_run_id"]), settings.sweep.model_name
    folder = settings.workspace.models / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
    config = judge_config(settings, spec, found, short=short)
    with ray_session(settings):
        judged = judge(best, settings.workspace.features, spec, config, folder / "evaluation", progress=progress)
    assert judged.final is not None
    card = make_card(settings, spec, best, judged)
    artifact = pack(folder / "artifact", spec, best, judged.final, card)
    tracker = Tracker(settings.workspace.mlflow_uri)
    log_judgement(tracker, run_id, judged)
    candidate = {"folder": str(folder.resolve()), "version": artifact.version, "run_id": run_id}
    write_whole(settings.workspace.models / CANDIDATE, json.dumps(candidate, indent=1))
    return summarise_judgement(judged, artifact, run_id, card)


def judge_config(
    settings: Settings, spec: DatasetSpec, sweep: Mapping[str, Any] | None = None, *, short: bool = True
) -> JudgeConfig:
    """How every model is judged here: a perpetual pays funding and may be sold short, a spot pair neither."""
    perpetual = any(":" in pair for pair in spec.pairs)
    overfit = (sweep or {}).get("overfitting")
    return JudgeConfig(
        folds=settings.sweep.folds,
        embargo=max(spec.horizons),
        options=EvaluationOptions(
            baselines=BaselineConfig(names=CHEAP if short else tuple(BASELINES)),
            costs=CostPolicy(perpetual=perpetual and "funding" in spec.sources, allow_short=perpetual),
        ),
        trials=int((sweep or {}).get("trials", 1)),
        overfitting=None if overfit is None else Overfitting(**overfit),
        gpus_per_fit=settings.sweep.gpus_per_trial,
        workers=settings.sweep.workers_per_fit,
    )


def promote(settings: Settings, progress: Progress) -> PromoteSummary:
    """Decide on the newest judged model, register it with the decision, and move the aliases.

    Raises:
        TrainingError: nothing has been evaluated yet.
    """
    policy = PromotionPolicy(rival_share=settings.promotion.rival_share)
    file = settings.workspace.models / CANDIDATE
    if not file.is_file():
        raise TrainingError("no model has been evaluated", where=str(file), todo="train evaluate")
    candidate = json.loads(file.read_text())
    folder, name = Path(candidate["folder"]), settings.sweep.model_name
    challenger = Evaluation.from_dict(json.loads((folder / "evaluation" / "evaluation.json").read_text()))
    registry = Registry(settings.workspace.mlflow_uri)
    with progress.task("promotion") as task:
        champion = registry.find(name, "champion")
        rival = None if champion is None else _rival(settings, registry, champion, policy, progress)
        decision = decide_promotion(challenger, rival, policy)
        artifact = Artifact(folder / "artifact", candidate["version"])
        card = json.loads((artifact.path / CARD).read_text())
        page = write_card(folder / "card", card, challenger, decision)
        files = {"card": page.parent}
        made = registry.register(name, artifact, challenger, decision, run_id=candidate["run_id"], files=files)
        now = registry.find(name, "champion")
        task.done(decision.text)
    return PromoteSummary(
        name=name,
        version=artifact.version,
        number=made.number,
        status=decision.status,
        text=decision.text,
        reasons=decision.reasons,
        champion=now.number if now is not None else "",
        run_id=made.run_id,
        card=page,
    )


def roll_back(settings: Settings) -> PromoteSummary:
    """Give the champion's place back to the version before it."""
    registry = Registry(settings.workspace.mlflow_uri)
    back = registry.roll_back(settings.sweep.model_name)
    text = f"Version {back.number} is champion again."
    return PromoteSummary(back.name, back.artifact.version, back.number, "champion", text, (), back.number, back.run_id)


def make_card(settings: Settings, spec: DatasetSpec, recipe: dict[str, Any], judged: Judgement) -> dict[str, Any]:
    """Everything about a model that its files do not tell already."""
    final = judged.final
    assert final is not None
    return {
        "name": settings.sweep.model_name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe,
        "folds": [vars(fold) for fold in judged.folds],
        "scores": judged.evaluation.to_dict(series=False),
        "fit": {
            "windows": final.train_windows,
            "start_ms": final.start_ms,
            "end_ms": final.end_ms,
            "history": list(final.history),
        },
        "data": data_hashes(settings, spec),
        "enrichment": enrichment_facts(settings, spec),
        "absent": [source for source in SOURCES if source not in spec.sources],
        "code": code_version(),
    }


def data_hashes(settings: Settings, spec: DatasetSpec) -> dict[str, dict[str, Any]]:
    """Content hash and span of every series that the data set was made of."""
    store, exchange = open_store(settings), settings.market.exchange
    keys = {SeriesKey(exchange, "ohlcv", pair, spec.timeframe) for pair in spec.pairs}
    for pair in spec.pairs:
        keys |= set(enrichment_keys(spec, exchange, pair).values())
    manifests = {str(key): store.manifest(key) for key in sorted(keys) if store.exists(key)}
    return {
        name: {
            "sha256": each.content_hash,
            "rows": each.rows,
            "start_ms": each.start_ms,
            "end_ms": each.end_ms,
        }
        for name, each in manifests.items()
    }


def pack(folder: Path, spec: DatasetSpec, recipe: dict[str, Any], final: FinalFit, card: dict[str, Any]) -> Artifact:
    """An artifact from a final fit's arrays."""
    model = MTST(MTSTConfig.from_dict(recipe["model"]))
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in final.weights.items()})
    return save_artifact(folder, model.eval(), Scaler.from_dict(final.scaler), spec, card)


def summarise_judgement(judged: Judgement, artifact: Artifact, run_id: str, card: dict[str, Any]) -> EvaluateSummary:
    """The numbers that a person asks for first."""
    evaluation = judged.evaluation
    return EvaluateSummary(
        name=str(card["name"]),
        version=artifact.version,
        artifact=artifact.path,
        forecasts=judged.forecasts,
        blocks=evaluation.n_folds,
        windows=evaluation.n_windows,
        losses={name: scores.pinball for name, scores in evaluation.scores.items()},
        improvements={name: each.improvement for name, each in evaluation.comparisons.items()},
        p_values={name: max(each.p_value, each.bootstrap_p) for name, each in evaluation.comparisons.items()},
        net_returns={name: each.net_return for name, each in evaluation.economics.items()},
        levels=evaluation.levels,
        observed={f"{row.horizon} candles": row.calibration for row in evaluation.scores[evaluation.model].horizons},
        absent=tuple(card["absent"]),
        run_id=run_id,
        seconds=judged.seconds,
    )


def _rival(
    settings: Settings, registry: Registry, champion: Registered, policy: PromotionPolicy, progress: Progress
) -> Evaluation:
    """The champion on the challenger's blocks: its very weights on times after its fit, else its recipe trained anew.

    The second is for a champion too young to be judged frozen; a challenger of the same recipe then cannot beat it.
    """
    loaded = load_artifact(champion.artifact.path, champion.artifact.version)
    spec, features = loaded.spec, settings.workspace.features
    config = judge_config(settings, spec)
    try:
        frozen = judge_frozen(loaded, features, config)
        if frozen is not None and len(frozen.times_ms) >= policy.min_times:
            return frozen
        folder = settings.workspace.models / f"champion-{champion.artifact.version}-again"
        with ray_session(settings):
            return judge(
                loaded.card["recipe"], features, spec, config, folder,
                progress=progress, with_final=False, title="the champion on the same blocks",
            ).evaluation  # fmt: skip
    except DataError:
        # Its data set is no longer here: by its own record, which the decision counts only where times are shared.
        return registry.evaluation(champion)


def _tune_folder(settings: Settings) -> Path:
    return settings.workspace.var / "tune"
