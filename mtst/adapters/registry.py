"""The model registry: versions in MLflow, artifact files beside them, and who may trade as an alias.

Aliases: `challenger` is the newest candidate, `champion` the one that may trade, `shadow` the newest one that is only
scored. The artifact's files are plain MLflow artifacts; MLflow's own model formats, which can hold code, are not used.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtst.adapters.tracking import Tracker
from mtst.artifact import Artifact, verify_artifact
from observability.errors import RegistryError

if TYPE_CHECKING:
    from mtst.evaluation import Evaluation
    from mtst.promotion import PromotionDecision

ALIASES = ("champion", "challenger", "shadow")
FOLDER = "model"


@dataclass(frozen=True)
class Registered:
    """A version in the registry: `number` counts up, `artifact` is verified, `status` is what was decided of it."""

    name: str
    number: str
    artifact: Artifact
    run_id: str
    status: str
    decision: str
    aliases: tuple[str, ...]


class Registry:
    """Versions of models at one MLflow address.

    Args:
        uri: tracking address; see `Tracker`.
    """

    def __init__(self, uri: str) -> None:
        self.tracker = Tracker(uri)
        self._client = self.tracker.client

    def register(
        self,
        name: str,
        artifact: Artifact,
        evaluation: Evaluation,
        decision: PromotionDecision,
        *,
        run_id: str = "",
        files: Mapping[str, Path] | None = None,
    ) -> Registered:
        """Store an artifact as the next version, with the decision in words, and move the aliases accordingly.

        A champion takes over at once and remembers whom it replaced; a shadow leaves the champion where it is.

        Args:
            run_id: MLflow run that made it; a new run is opened and ended when empty.
            files: further files to keep with it, by artifact folder.

        Raises:
            RegistryError: MLflow refuses. ArtifactError: the artifact is damaged.
        """
        verify_artifact(artifact.path, artifact.version)
        if not run_id:
            run_id = self.tracker.start(f"{name}-{artifact.version}", tags={"kind": "model"})
            self.tracker.end(run_id)
        self.tracker.log_folder(run_id, artifact.path, FOLDER)
        source = f"{self.tracker.get(run_id).info.artifact_uri}/{FOLDER}"
        for folder, path in (files or {}).items():
            self.tracker.log_folder(run_id, path, folder)
        self.tracker.log_text(run_id, json.dumps(evaluation.to_dict()), "evaluation.json")
        self.tracker.log_text(run_id, json.dumps(decision.to_dict(), indent=1), "decision.json")
        self.tracker.log_text(run_id, _in_words(decision), "decision.txt")
        before = self.find(name, "champion")
        tags = {
            "artifact_version": artifact.version,
            "status": decision.status,
            "replaced": before.number if before is not None else "",
            **_bars(decision),
        }
        with _refusals(name):
            if not self._client.search_registered_models(f"name = '{name}'"):
                self._client.create_registered_model(name)
            version = self._client.create_model_version(
                name, source=source, run_id=run_id, tags=tags, description=decision.text
            )
            self._client.set_registered_model_alias(name, "challenger", version.version)
            self._client.set_registered_model_alias(name, decision.status, version.version)
        return self.get(name, str(version.version))

    def find(self, name: str, alias: str) -> Registered | None:
        """The version that carries an alias, or None."""
        from mlflow.exceptions import MlflowException

        try:
            number = str(self._client.get_model_version_by_alias(name, alias).version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise RegistryError(f"MLflow does not answer: {error}", where=name) from error
        return self.get(name, number)

    def get(self, name: str, number: str) -> Registered:
        """A version by its number, its files fetched and verified.

        Raises:
            RegistryError: there is none. ArtifactError: its files are damaged.
        """
        with _refusals(name):
            version = self._client.get_model_version(name, number)
            # search results carry no aliases; the registered model does
            aliases = self._client.get_registered_model(name).aliases
        folder = self._fetch(version)
        tags: dict[str, str] = dict(version.tags)
        return Registered(
            name=name,
            number=number,
            artifact=verify_artifact(folder, tags.get("artifact_version", "")),
            run_id=str(version.run_id),
            status=tags.get("status", "shadow"),
            decision=str(version.description or ""),
            aliases=tuple(sorted(alias for alias, held in aliases.items() if str(held) == number)),
        )

    def resolve(self, name: str, alias: str) -> Registered:
        """The version that carries an alias.

        Raises:
            RegistryError: no version does.
        """
        found = self.find(name, alias)
        if found is None:
            raise RegistryError(
                f"no version of {name} is {alias}", where=self.tracker.uri, todo="run `train promote` first"
            )
        return found

    def roll_back(self, name: str) -> Registered:
        """Give the champion's place back to the version it replaced.

        Raises:
            RegistryError: there is no champion, or it replaced nobody.
        """
        champion = self.resolve(name, "champion")
        with _refusals(name):
            before = self._client.get_model_version(name, champion.number).tags.get("replaced", "")
            if not before:
                raise RegistryError(
                    f"version {champion.number} of {name} replaced no other champion",
                    where=name,
                    todo="train and promote",
                )
            self._client.set_registered_model_alias(name, "champion", before)
            self._client.set_model_version_tag(name, champion.number, "rolled_back", "true")
            self._client.set_model_version_tag(name, champion.number, "status", "shadow")
        return self.get(name, before)

    def evaluation(self, registered: Registered) -> Evaluation:
        """The evaluation that a version was judged by."""
        from mtst.evaluation import Evaluation

        with tempfile.TemporaryDirectory() as folder:
            text = Path(self._client.download_artifacts(registered.run_id, "evaluation.json", folder)).read_text()
        return Evaluation.from_dict(json.loads(text))

    def _fetch(self, version: Any) -> Path:
        from mlflow.artifacts import download_artifacts

        with _refusals(str(version.name)):
            return Path(download_artifacts(artifact_uri=version.source, tracking_uri=self.tracker.uri))


@contextmanager
def _refusals(where: str) -> Iterator[None]:
    """Turns MLflow's errors into ours."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise RegistryError(f"the model registry refuses: {error}"[:400], where=where) from error


def _bars(decision: PromotionDecision) -> dict[str, str]:
    """One tag a bar; several reasons of one bar pass only together."""
    failed = {reason.code for reason in decision.reasons if not reason.passed}
    return {f"bar_{reason.code}": "failed" if reason.code in failed else "passed" for reason in decision.reasons}


def _in_words(decision: PromotionDecision) -> str:
    lines = [f"{'passed' if r.passed else 'FAILED'}  {r.code}: {r.text}" for r in decision.reasons]
    return "\n".join([decision.text, "", *lines, ""])
