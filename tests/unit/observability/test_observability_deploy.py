"""The files for containers and clusters keep the rules: loopback, secrets as files, nothing writable without need."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cluster.settings import Settings
from mtst.adapters.service_env import ServiceEnvironment
from observability.priority import PLAIN
from observability.stack import RULES_DIR

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "cluster" / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
WRITABLE = {
    ("ray-head", "/workspace/data"),
    ("ray-head", "/workspace/mlruns"),
    ("ray-head", "/workspace/var"),
    ("nn_infer", "/workspace/var/targets"),
    ("mlflow", "/workspace/mlruns"),
    ("prometheus", "/prometheus"),
    ("alertmanager", "/alertmanager"),
}


def filled(text: str) -> str:
    """Compose's `${NAME:-default}` with the default in place."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def mounts(service: str) -> list[tuple[str, str, str]]:
    parts = [filled(mount).split(":") for mount in SERVICES[service].get("volumes", [])]
    return [(source, target, mode[0] if mode else "rw") for source, target, *mode in parts]


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_is_confined_and_watched(service: str) -> None:
    definition = SERVICES[service]
    assert definition["healthcheck"]["test"][0] == "CMD"
    assert definition["read_only"] is True
    assert definition["cap_drop"] == ["ALL"]
    assert definition["security_opt"] == ["no-new-privileges:true"]
    assert definition["restart"] == "unless-stopped"
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", definition["image"])  # a version, never `latest`
    assert not {"privileged", "pid", "devices"} & set(definition)
    assert definition.get("network_mode", "service:ray-head") == "service:ray-head"  # never the host's


def test_bots_have_the_nodes_own_priority() -> None:
    assert PLAIN.items() <= SERVICES["ray-head"]["environment"].items()


def test_ports_are_published_on_loopback_and_only_once() -> None:
    published = [port for definition in SERVICES.values() for port in definition.get("ports", [])]
    assert published
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)
    assert len({port.split(":")[1] for port in published}) == len(published)
    # A service in another's network namespace cannot publish ports of its own.
    assert not any("ports" in s and "network_mode" in s for s in SERVICES.values())


@pytest.mark.parametrize("service", SERVICES)
def test_mounts_are_read_only_unless_needed_and_exist(service: str) -> None:
    for source, target, mode in mounts(service):
        assert (mode == "ro") != ((service, target) in WRITABLE), (service, target)
        if source.startswith("."):
            path = (DEPLOY / source).resolve()
            made_at_run_time = any(path.is_relative_to(ROOT / folder) for folder in ("data", "mlruns", "var"))
            assert made_at_run_time or path.exists(), path


@pytest.mark.parametrize("name", ["compose.yaml", "compose.webhook.yaml"])
def test_secrets_are_files_and_nothing_else(name: str) -> None:
    compose = yaml.safe_load((DEPLOY / name).read_text())
    for secret in compose["secrets"].values():
        assert list(secret) == ["file"]
        assert filled(secret["file"]).startswith("../../var/secrets/")
    used = {secret for service in compose["services"].values() for secret in service.get("secrets", [])}
    assert used == set(compose["secrets"])
    for service in compose["services"].values():
        for variable, value in service.get("environment", {}).items():
            if re.search("TOKEN|PASSWORD|SECRET|KEY", variable) and variable != "RAY_AUTH_MODE":
                assert str(value).startswith("/run/secrets/"), variable


def test_what_the_processes_are_told_is_what_they_understand() -> None:
    """Settings and variables in the environment are checked against the code that reads them."""
    head = SERVICES["ray-head"]["environment"]
    for variable in (name for name in head if name.startswith("MTST__")):
        group, name = variable.removeprefix("MTST__").lower().split("__")
        assert name in type(getattr(Settings(), group)).model_fields, variable
    env = SERVICES["nn_infer"]["environment"]
    known = {f"MTST_SERVE_{field.name.upper()}" for field in fields(ServiceEnvironment)}
    assert {name for name in env if name.startswith("MTST_SERVE_")} == known - {"MTST_SERVE_INSTANCE"}
    read = ServiceEnvironment.from_env({name: filled(value) for name, value in env.items()})
    assert (read.status, read.artifact) == ("shadow", Path("/artifact"))
    module, name = SERVICES["nn_infer"]["entrypoint"][-1].split(":")
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
    assert f"class {name}:" in source


def test_promtool_and_amtool_accept_what_containers_mount(tmp_path: Path) -> None:
    if shutil.which("promtool") is None or shutil.which("amtool") is None:
        pytest.skip("promtool or amtool is not installed")
    text = (DEPLOY / "prometheus.yml").read_text().replace("/etc/prometheus/rules", str(RULES_DIR))
    (tmp_path / "prometheus.yml").write_text(text)
    for argv in (
        ["promtool", "check", "config", str(tmp_path / "prometheus.yml")],
        ["amtool", "check-config", str(DEPLOY / "alertmanager.yml")],
    ):
        result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


def test_docker_reads_the_compose_file() -> None:
    compose = ["docker", "compose"]
    if (
        shutil.which("docker") is None
        or subprocess.run([*compose, "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker has no compose plug-in here")
    argv = [*compose, "-f", str(DEPLOY / "compose.yaml"), "-f", str(DEPLOY / "compose.webhook.yaml"), "config", "-q"]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_the_image_is_built_from_the_lock_and_copies_what_exists() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert "--require-hashes -r /tmp/requirements.lock" in text
    assert not re.search(r"--(extra-)?index-url|--find-links|https?://", text)
    assert re.search(r"^USER trader$", text, re.MULTILINE)
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    copied = [word for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE) for word in line.split()]
    assert {f"!{name}" for name in copied} == {line for line in ignored if line.startswith("!")}
    rooms = {"observability", "pipelines", "mtst", "trading", "cluster"}
    assert rooms | {"requirements.lock", "pyproject.toml"} <= set(copied)
    assert all((ROOT / name).exists() for name in rooms | {"requirements.lock", "pyproject.toml"})


def test_the_autoscaler_file_fits_rays_own_schema() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    import ray

    config = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text())
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    util.validate_config(util.prepare_config(config))
    broken = {**config, "max_workers": "many"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_the_autoscaler_starts_ray_with_a_token_file_and_a_closed_dashboard() -> None:
    config = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text())
    (target,) = config["file_mounts"]
    assert f"-e RAY_AUTH_TOKEN_PATH={target}" in config["docker"]["run_options"]
    assert "-e RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert {f"-e {name}={value}" for name, value in PLAIN.items()} <= set(config["docker"]["run_options"])
    assert any("--dashboard-host=127.0.0.1" in command for command in config["head_start_ray_commands"])
    kinds = config["available_node_types"]
    assert kinds[config["head_node_type"]]["max_workers"] == 0
    assert kinds["gpu_worker"]["resources"]["GPU"] >= 1


def test_kuberay_mounts_the_token_everywhere_as_a_file() -> None:
    cluster, claim, policy = yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text())
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    pods = [group["template"]["spec"] for group in groups]
    for holder in [container for pod in pods for container in pod["containers"]] + [
        cluster["spec"]["autoscalerOptions"]
    ]:
        env = {entry["name"]: entry["value"] for entry in holder["env"]}
        assert env["RAY_AUTH_MODE"] == "token"
        assert PLAIN.items() <= env.items(), "bots have the node's own priority"
        folders = {mount["mountPath"] for mount in holder["volumeMounts"]}
        assert str(Path(env["RAY_AUTH_TOKEN_PATH"]).parent) in folders
    for pod in pods:
        assert {m["name"] for c in pod["containers"] for m in c["volumeMounts"]} <= {v["name"] for v in pod["volumes"]}
        assert pod["securityContext"]["runAsNonRoot"] is True
    claims = {
        v["persistentVolumeClaim"]["claimName"] for p in pods for v in p["volumes"] if "persistentVolumeClaim" in v
    }
    assert claims == {claim["metadata"]["name"]}
    assert policy["kind"] == "NetworkPolicy"
    assert cluster["spec"]["rayVersion"] in (ROOT / "requirements.lock").read_text()
