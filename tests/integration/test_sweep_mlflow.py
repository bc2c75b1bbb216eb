"""A real sweep in its own Ray: trials nested and ended in MLflow, deaths of worker and driver survived."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest

from mtst.adapters.search_space import PERTURBED
from mtst.adapters.sweep import latest_sweep
from mtst.adapters.tracking import Tracker
from mtst.blocks import BLOCK_NAMES, BLOCKS
from mtst.model import MTSTConfig
from mtst.oos import read_forecasts
from mtst.training import TrainingConfig
from observability.priority import BACKGROUND
from tests.integration.sweep_driver import CONFIG, POPULATION, ROWS
from tests.unit.mtst_serving.serving_kit import PAIRS, small_spec

pytestmark = pytest.mark.slow


def drive(root: Path, mode: str, repo_root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.integration.sweep_driver", str(root), mode]
    return subprocess.run(command, cwd=repo_root, capture_output=True, text=True, timeout=180, check=False)


def facts(root: Path, mode: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((root / f"{mode}.json").read_text())
    return read


def tracker(root: Path) -> Tracker:
    return Tracker(f"sqlite:///{(root / 'mlruns' / 'mlflow.db').resolve()}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Path:
    root = tmp_path_factory.mktemp("sweep")
    done = drive(root, "whole", repo_root)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


def test_every_trial_is_a_nested_run_that_ended(whole: Path) -> None:
    found, book = facts(whole, "whole"), tracker(whole)
    parent = book.client.get_run(found["parent_run_id"])
    runs = book.children(found["parent_run_id"])
    assert parent.info.status == "FINISHED"
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == len(found["trials"]) == CONFIG.trials
    assert {run.info.run_id for run in runs} == {row["run_id"] for row in found["trials"]}
    assert book.open_runs(found["parent_run_id"]) == []
    assert parent.info.artifact_uri.startswith((whole / "mlruns" / "artifacts").resolve().as_uri())


def test_runs_tell_parameters_curves_and_whether_they_were_pruned(whole: Path) -> None:
    found, book = facts(whole, "whole"), tracker(whole)
    outcomes = []
    for row in found["trials"]:
        run = book.client.get_run(row["run_id"])
        outcomes.append(run.data.tags["outcome"])
        assert run.data.tags["outcome"] == row["outcome"]
        assert run.data.params.keys() == row["config"].keys()
        curve = book.client.get_metric_history(row["run_id"], "valid_loss")
        assert [m.value for m in sorted(curve, key=lambda m: m.step)] == pytest.approx(row["curve"])
        assert run.data.metrics["final_loss"] == pytest.approx(row["loss"])
        assert len(row["blocks"]) == BLOCKS  # also of a trial that was stopped early
        assert BLOCK_NAMES[0] in run.data.metrics
        assert run.data.metrics["system/memory_megabytes"] > 50
        assert run.data.metrics["system/cpu_percent"] > 0
        kept = {each.path for each in book.client.list_artifacts(row["run_id"], "trial")}
        assert kept == {"trial/curves.svg", "trial/config.json"}
        assert (row["epochs"] == CONFIG.epochs) == (row["outcome"] == "completed")
    assert "completed" in outcomes
    assert set(outcomes) <= {"completed", "pruned"}


def test_the_sweep_tells_what_it_spent_and_what_mattered(whole: Path) -> None:
    found = facts(whole, "whole")
    spent, told = found["budget"], tracker(whole).get(found["parent_run_id"]).data.metrics
    assert spent["epochs"] == sum(row["epochs"] for row in found["trials"]) == told["budget_epochs"]
    assert spent["planned_epochs"] == CONFIG.trials * CONFIG.epochs
    assert spent["trial_seconds"] > 0
    assert set(found["importance"]) == set(found["trials"][0]["config"])
    assert sum(found["importance"].values()) == pytest.approx(1)
    assert told["importance_lr"] == pytest.approx(found["importance"]["lr"])


def test_the_best_is_the_lowest_loss_and_can_be_trained(whole: Path) -> None:
    found = facts(whole, "whole")
    losses = [row["loss"] for row in found["trials"]]
    assert found["best_loss"] == min(losses)
    assert losses == sorted(losses)
    assert math.isfinite(found["base_loss"])
    model = MTSTConfig.from_dict(found["best_config"]["model"])
    training = TrainingConfig.from_dict(found["best_config"]["training"])
    assert (model.lookback, model.n_channels, training.epochs) == (16, 4, CONFIG.epochs)
    state = latest_sweep(whole / "var" / "tune", small_spec().hash)
    assert state is not None
    assert state["best_config"] == found["best_config"]
    assert state["trials"] == state["overfitting"]["trials"] == CONFIG.trials
    assert 0 <= state["overfitting"]["probability"] <= 1


def test_a_killed_worker_cost_no_trial(whole: Path) -> None:
    found = facts(whole, "whole")
    assert found["acted"] == 1, "no worker was found to kill"
    assert [row["outcome"] for row in found["trials"]].count("failed") == 0


def test_trials_and_the_tasks_that_judge_yield_to_trading(whole: Path) -> None:
    found = facts(whole, "whole")
    in_front = [value for value in found["nice"] if value < BACKGROUND]
    assert len(in_front) < len(found["nice"])
    assert len(in_front) <= found["acted"], "only one that was killed while it still started"
    assert set(found["nice_of_folds"]) == {min(19, psutil.Process().nice() + BACKGROUND)}


def test_progress_is_told_after_every_epoch_and_adds_up(whole: Path) -> None:
    found = facts(whole, "whole")
    assert sum("epoch" in note for note in found["notes"]) >= sum(row["epochs"] for row in found["trials"])
    assert found["count"] >= CONFIG.trials - 1e-6


def test_out_of_sample_forecasts_cover_only_test_blocks(whole: Path) -> None:
    found = facts(whole, "whole")
    path = whole / "var" / "models" / "evaluation" / "forecasts.parquet"
    table = pl.read_parquet(path)
    times = table["timestamp"].dt.epoch("ms").to_numpy()
    blocks = [(fold["test_start_ms"], fold["test_end_ms"]) for fold in found["folds"]]
    inside = np.zeros(len(times), dtype=bool)
    for start, end in blocks:
        inside |= (times >= start) & (times < end)
    assert inside.all()
    assert table.height == found["windows"]
    assert not table.select("timestamp", "pair").is_duplicated().any()
    assert table.height < ROWS * len(PAIRS) * 0.7
    assert (table["trained_until"] <= table["timestamp"]).all()
    assert table["trained_until"].n_unique() == len(blocks)
    forecasts = list(read_forecasts(path, timeframe="15m", model_name="m", model_version="1", spec_hash="s"))
    assert len(forecasts) == table.height
    assert forecasts[0].horizons == (1, 4)
    assert forecasts[0].values[1][3] == table["q_4_0.5"][0]


def test_a_sweep_whose_driver_is_killed_goes_on_and_leaves_no_running_run(tmp_path: Path, repo_root: Path) -> None:
    cut = drive(tmp_path, "cut", repo_root)
    assert cut.returncode == -signal.SIGKILL
    book = tracker(tmp_path)
    (folder,) = (tmp_path / "var" / "tune").iterdir()
    parent = json.loads((folder / "sweep.json").read_text())["parent_run_id"]
    before = {run.data.tags["trial_id"]: run.info.run_id for run in book.children(parent)}
    assert book.open_runs(parent), "the driver was killed after everything had ended"
    resumed = drive(tmp_path, "resume", repo_root)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    found = facts(tmp_path, "resume")
    assert found["parent_run_id"] == parent
    assert len(found["trials"]) == CONFIG.trials
    assert all(math.isfinite(row["loss"]) for row in found["trials"])
    runs = {run.data.tags["trial_id"]: run.info for run in book.children(parent)}
    assert book.open_runs(parent) == []
    assert book.client.get_run(parent).info.status == "FINISHED"
    assert {trial: runs[trial].run_id for trial in before} == before
    leftovers = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert not leftovers


def test_a_population_clones_and_perturbs_and_its_runs_tell_how(tmp_path: Path, repo_root: Path) -> None:
    done = drive(tmp_path, "population", repo_root)
    assert done.returncode == 0, done.stderr[-3000:]
    found, book = facts(tmp_path, "population"), tracker(tmp_path)
    assert [row["outcome"] for row in found["trials"]] == ["completed"] * POPULATION.trials
    assert book.open_runs(found["parent_run_id"]) == []
    cloned = 0
    for row in found["trials"]:
        run = book.get(row["run_id"])
        assert run.info.status == "FINISHED"
        drawn = {name: float(run.data.params[name]) for name in PERTURBED}
        at_last = {name: row["config"][name] for name in PERTURBED}
        told = {"lr": run.data.metrics["peak_lr"], **{name: run.data.metrics[name] for name in PERTURBED[1:]}}
        assert told == pytest.approx(at_last)
        cloned += at_last != pytest.approx(drawn)
        assert row["epochs"] == POPULATION.epochs
        assert 0 < row["config"]["dropout"] < 1
    assert cloned >= 1, "nobody was cloned"
    best = found["best_config"]
    assert best["training"]["lr"] == found["trials"][0]["config"]["lr"]
    assert not best["training"]["perturbed"], "a recipe is trained as it stands"
