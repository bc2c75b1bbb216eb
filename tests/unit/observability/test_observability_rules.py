"""Every alert is documented, uses metrics that exist, fires when it must and stays silent when it must not."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability.metrics import METRICS
from observability.stack import RULES_DIR

FOREIGN = {"up", "process_start_time_seconds", "process_resident_memory_bytes"}


def rules(kind: str) -> list[dict[str, Any]]:
    groups = [g for f in ("recording.yml", "alerts.yml") for g in yaml.safe_load((RULES_DIR / f).read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def cases() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = yaml.safe_load((RULES_DIR / "tests.yml").read_text())["tests"]
    return loaded


def known_series() -> set[str]:
    plain = {metric.name for metric in METRICS}
    parts = {f"{m.name}{end}" for m in METRICS if m.kind == "histogram" for end in ("_bucket", "_sum", "_count")}
    return plain | parts | {rule["record"] for rule in rules("record")} | FOREIGN


ALERTS = rules("alert")


def promtool(folder: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    argv = ["promtool", "test", "rules", str(folder / "tests.yml")]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_there_are_enough_alerts_to_sleep_by() -> None:
    assert len(ALERTS) >= 14
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_says_how_bad_what_and_what_to_do(alert: dict[str, Any], repo_root: Path) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"].endswith(".")
    runbook = repo_root / alert["annotations"]["runbook_url"]
    text = runbook.read_text()
    assert text.startswith(f"# {alert['alert']}\n")
    for section in ("## What it means", "## What happens by itself", "## Look", "## Do"):
        assert section in text, f"{runbook} lacks {section}"


def test_no_runbook_is_left_of_an_alert_that_is_gone(repo_root: Path) -> None:
    pages = {path.stem for path in (repo_root / "docs" / "runbooks").glob("[A-Z]*.md")} - {"README"}
    assert pages == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("rule", rules("expr"), ids=lambda rule: rule.get("alert") or rule["record"])
def test_each_rule_uses_series_that_exist(rule: dict[str, Any]) -> None:
    text = re.sub(r'"[^"]*"', '""', rule["expr"])
    named = set(re.findall(r"(?:mtst[_:][a-z0-9_:]+|process_[a-z_]+)", text))
    assert named <= known_series()


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_has_a_firing_and_a_silent_case(alert: dict[str, Any]) -> None:
    by_name = {case["name"]: case["promql_expr_test"][0] for case in cases() if "promql_expr_test" in case}
    fires, silent = by_name[f"{alert['alert']} fires"], by_name[f"{alert['alert']} stays silent"]
    assert f'alertname="{alert["alert"]}"' in fires["expr"] == silent["expr"]
    assert fires["exp_samples"]
    assert silent["exp_samples"] == []


def test_promtool_runs_every_case() -> None:
    result = promtool(RULES_DIR)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("expr", ["vector(1) == 2", "vector(1)"], ids=["never", "always"])
def test_the_cases_catch_rules_that_never_or_always_fire(tmp_path: Path, expr: str) -> None:
    broken = yaml.safe_load((RULES_DIR / "alerts.yml").read_text())
    for group in broken["groups"]:
        for rule in group["rules"]:
            rule.update({"expr": expr})
            rule.pop("for", None)
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(broken))
    for name in ("recording.yml", "tests.yml"):
        shutil.copy(RULES_DIR / name, tmp_path / name)
    result = promtool(tmp_path)
    report = result.stdout + result.stderr
    failed = set(re.findall(r'ALERTS{alertname=\\?"(\w+)', report))  # promtool names the expression that differed
    assert failed == {alert["alert"] for alert in ALERTS}
    assert result.returncode != 0


def test_runbooks_name_commands_that_exist(repo_root: Path) -> None:
    pages = [repo_root / "docs" / "monitoring.md", *(repo_root / "docs" / "runbooks").glob("*.md")]
    named = {tuple(pair) for page in pages for pair in re.findall(r"tools/start\.sh (\w+) ([a-z]+)", page.read_text())}
    assert len(named) > 3
    for noun, verb in named:
        commands = import_module(f"cluster.commands.{noun}").app.registered_commands
        assert verb in {command.name or command.callback.__name__ for command in commands}, f"{noun} {verb}"
