"""The environment that this process and its children share, set by the command line before any framework loads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from cluster.settings import Settings
from observability.priority import PLAIN

LONGEST_SCRATCH = 48  # frameworks put sockets there, and a socket's path ends at 107 bytes
QUIET = {
    "BENTOML_DO_NOT_TRACK": "True",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    # What goes wrong reaches us as an exception; printed as well it would bury our one sentence.
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    # Tune would take Ctrl-C for itself: it ends the search early and lets the program go on.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


def prepare_environment(settings: Settings) -> None:
    """No telemetry, no pickle from tracking, Ray's token, and every framework's own files inside the workspace.

    Ray reads its token settings while it is imported, so this comes before every import of a stage.
    """
    home = (settings.workspace.var / "home").resolve()
    folders = {
        "BENTOML_HOME": home / "bentoml",
        "MPLCONFIGDIR": home / "matplotlib",
        "XDG_CONFIG_HOME": home / "config",
        "XDG_CACHE_HOME": home / "cache",
        "NUMBA_CACHE_DIR": home / "numba",
        "TORCHINDUCTOR_CACHE_DIR": home / "torch",
    }
    os.environ.update(QUIET)
    os.environ.update(ray_environment(settings))
    scratch = (settings.workspace.var / "tmp").resolve()
    if len(str(scratch)) <= LONGEST_SCRATCH:
        folders["TMPDIR"] = scratch
    for name, folder in folders.items():
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder)
    tempfile.tempdir = None  # forget a folder chosen before


def ray_environment(settings: Settings) -> dict[str, str]:
    """What every process of the cluster shares: token, loopback, no telemetry, priority, our code on the path."""
    # Worker processes and the served Bento import our packages from here, whatever folder the user stands in.
    root = str(Path(__file__).resolve().parent.parent)
    path = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != root]
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file(settings).resolve()),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        **PLAIN,
        "PYTHONPATH": os.pathsep.join([root, *path]),
    }


def token_file(settings: Settings) -> Path:
    """Where Ray's token lies: the configured file, else one in the secrets folder."""
    return settings.cluster.token_file or settings.workspace.secrets / "ray.token"
