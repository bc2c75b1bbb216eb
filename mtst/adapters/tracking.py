"""MLflow as a notebook of runs, by its explicit client: no fluent global run, no telemetry, nothing pickled.

Only the driver writes runs. Workers that log for themselves race on creating the experiment and leave runs RUNNING
when their process is ended; here every run has one owner, and `close_open_runs` and `open_runs` make "all runs
ended" something that can be checked. A server that restarts, a locked database or a full disk is waited for.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

from observability.errors import RegistryError
from observability.logging import get_logger

PARENT_TAG = "mlflow.parentRunId"
PARAM_LIMIT = 500  # MLflow refuses longer parameter values
EXPERIMENT = "mtst"
PATIENCE_S = 60.0
AWAY = ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED")  # what another try may mend
FULL = (errno.ENOSPC, errno.EDQUOT)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
PAGE = 1000
T = TypeVar("T")


def quiet_environment() -> dict[str, str]:
    """Variables that keep MLflow from calling home and from unpickling anything, for us and for our children."""
    return {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the tracker itself is patient, and can be told to hurry
    }


class Tracker:
    """Runs of one experiment at one tracking address.

    Args:
        uri: `sqlite:///.../mlflow.db` (the folder is made) or the address of a tracking server.
        experiment: name; created first, with an explicit artifact location beside a local database.
        patience_s: how long an MLflow that is away is waited for before a call raises RegistryError. May be changed;
            a call that waits takes notice.

    Raises:
        RegistryError: the address cannot be opened.
    """

    def __init__(self, uri: str, experiment: str = EXPERIMENT, patience_s: float = PATIENCE_S) -> None:
        os.environ.update(quiet_environment())  # MLflow reads them while it is imported
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.uri, self.patience_s = uri, patience_s
        folder = _local_folder(uri)
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            found = self.client.get_experiment_by_name(experiment)
            if found is None:
                location = None if folder is None else (folder / "artifacts").resolve().as_uri()
                self.experiment_id = self.client.create_experiment(experiment, artifact_location=location)
            else:
                self.experiment_id = found.experiment_id
        except (MlflowException, OSError) as error:
            raise RegistryError(
                f"MLflow cannot be opened: {error}", where=uri, todo="check the folder or server"
            ) from error

    def start(self, name: str, *, parent: str = "", tags: Mapping[str, str] | None = None) -> str:
        """Begin a run, nested under `parent` when given; returns its id."""
        every = {**(tags or {}), **({PARENT_TAG: parent} if parent else {})}
        run = self._patiently(lambda: self.client.create_run(self.experiment_id, run_name=name, tags=every))
        return str(run.info.run_id)

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        """Write parameters, finite metrics at `step`, and tags in one batch."""
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)  # one stamp for all tries: a batch whose answer was lost is not written twice
        numbers = [Metric(k, float(v), now, step) for k, v in (metrics or {}).items() if math.isfinite(v)]
        texts = [Param(k, str(v)[:PARAM_LIMIT]) for k, v in (params or {}).items()]
        marks = [RunTag(k, str(v)) for k, v in (tags or {}).items()]
        self._patiently(lambda: self.client.log_batch(run_id, metrics=numbers, params=texts, tags=marks))

    def log_folder(self, run_id: str, folder: Path, name: str) -> None:
        """Copy a folder's files to the run's artifacts under `name`."""
        self._patiently(lambda: self.client.log_artifacts(run_id, str(folder), name))

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Store a text file among the run's artifacts."""
        self._patiently(lambda: self.client.log_text(run_id, text, name))

    def get(self, run_id: str) -> Any:
        """A run as MLflow knows it."""
        return self._patiently(lambda: self.client.get_run(run_id))

    def steps(self, run_id: str, metric: str) -> set[int]:
        """Steps of a run at which a metric was logged."""
        return {each.step for each in self._patiently(lambda: self.client.get_metric_history(run_id, metric))}

    def end(self, run_id: str, status: str = "FINISHED") -> None:
        """Close a run as FINISHED, KILLED (ended early on purpose) or FAILED."""
        self._patiently(lambda: self.client.set_terminated(run_id, status))

    @contextmanager
    def run(self, name: str, *, parent: str = "", tags: Mapping[str, str] | None = None) -> Iterator[str]:
        """A run that always ends: FINISHED, or FAILED with the error as a tag when the block raises."""
        run_id = self.start(name, parent=parent, tags=tags)
        try:
            yield run_id
        except BaseException as error:
            self.log(run_id, tags={"error": f"{type(error).__name__}: {error}"[:PARAM_LIMIT]})
            self.end(run_id, "FAILED")
            raise
        self.end(run_id)

    def children(self, parent: str) -> list[Any]:
        """All runs nested under `parent`, as MLflow's Run objects."""
        from mlflow.entities import ViewType

        query, found = f"tags.`{PARENT_TAG}` = '{parent}'", list[Any]()
        ask = partial(self.client.search_runs, [self.experiment_id], query, ViewType.ACTIVE_ONLY, PAGE)
        page = self._patiently(ask)
        found += page
        while page.token:
            page = self._patiently(partial(ask, page_token=page.token))
            found += page
        return found

    def open_runs(self, parent: str) -> list[str]:
        """Ids of nested runs that have not ended."""
        return [run.info.run_id for run in self.children(parent) if run.info.status in ("RUNNING", "SCHEDULED")]

    def close_open_runs(self, parent: str, reason: str) -> list[str]:
        """End, as KILLED, whatever nested run an earlier death of the driver left open; returns their ids."""
        left = self.open_runs(parent)
        for run_id in left:
            self.log(run_id, tags={"closed_by": reason})
            self.end(run_id, "KILLED")
        return left

    def _patiently(self, call: Callable[[], T]) -> T:
        """What a call of MLflow's client gives, asked again while MLflow is away.

        Raises:
            RegistryError: it refuses, or was away for longer than `patience_s`.
        """
        from mlflow.exceptions import MlflowException

        retry = Retrying(
            retry=retry_if_exception(_is_away),
            wait=wait_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
            stop=lambda state: (state.seconds_since_start or 0.0) > self.patience_s,  # may change meanwhile
            before_sleep=_tell_of_waiting,
            reraise=True,
        )
        try:
            return retry(call)
        except (MlflowException, OSError) as error:
            raise RegistryError(
                f"MLflow {'is away' if _is_away(error) else 'refuses'}: {_in_words(error)}",
                where=self.uri,
                todo="start it or free its disk; train sweep --resume writes what a sweep could not",
            ) from error


def _is_away(error: BaseException) -> bool:
    """Whether another try may go well: a server that restarts, a locked database, a full disk."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return getattr(error, "error_code", "") in AWAY  # MlflowException's; MLflow is not imported up here


def _tell_of_waiting(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    waited = round(state.seconds_since_start or 0.0, 1)
    get_logger(__name__).warning("MLflow is away", waited_s=waited, error=_in_words(error))


def _in_words(error: BaseException | None) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:300]


def _local_folder(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).parent if uri.startswith("sqlite:///") else None
