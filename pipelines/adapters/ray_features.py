"""Features for many pairs with Ray Data: a map over partitions that reads, computes, writes and returns facts.

The rows that flow through Ray are names and facts; candles and features never leave the worker that reads and writes
them, so memory is bounded by the partitions in flight. Grouping or splitting by blocks would ignore pair boundaries or
cost several times as much. A partition whose inputs have not changed since its file was written is left as it is.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from observability import errors
from observability.errors import ClusterError, DataError, SpecError
from observability.priority import YIELDING
from observability.progress import Progress
from pipelines.blobs import Blobs
from pipelines.frames import SPEC_FILE
from pipelines.partitions import PartFacts, Partition, build_partition, plan, reusable, task_sizes
from pipelines.spec import DatasetSpec
from pipelines.store import CandleStore

# One thread a worker, since the workers are the parallelism; and freed memory is kept for the next column, since asking
# the system for it again costs several times the arithmetic.
WORKER_ENVIRONMENT = {
    "POLARS_MAX_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    **YIELDING,
}
_FACTS_A_BLOCK = 4096  # bytes of facts that a running task hands over at a time, so that progress is seen as it is made


@dataclass(frozen=True)
class Standing:
    """Every partition of a data set with the hash of its inputs, and those that are made from them already."""

    planned: dict[Partition, str]
    made: dict[Partition, PartFacts]

    @property
    def is_current(self) -> bool:
        """Whether every partition's file is there and made from what is stored now, so that nothing needs Ray."""
        return len(self.made) == len(self.planned)


@dataclass(frozen=True)
class FeatureSummary:
    """A built data set: `rows` over all `pairs`, the folder `path`, each partition's file, and how many were reused."""

    rows: int
    pairs: int
    seconds: float
    path: str
    spec_hash: str
    reused: int
    files: tuple[PartFacts, ...]


def build_features(
    store_root: str,
    exchange: str,
    spec: DatasetSpec,
    out_root: str,
    progress: Progress,
    *,
    found: Standing | None = None,
) -> FeatureSummary:
    """Write `<out_root>/<spec hash>/<PAIR>/<period>.parquet` for every pair of the spec, in parallel on Ray.

    Columns: `timestamp`, `close`, `spec.columns`, labels (Float64; null where history or future is missing). Both roots
    are folders or fsspec URLs, such as s3://bucket/features, that every worker can reach. `found` spares looking
    again at what `standing` has just seen.

    Raises:
        StoreError: if a series is missing or damaged.
        SpecError: if a pair has no row with every feature.
        ClusterError: if Ray is not running, or fewer files than partitions came back.
    """
    started = time.monotonic()
    out = Blobs.at(f"{out_root}/{spec.hash}")
    # Workers stand in another folder: they need whole addresses.
    job = (Blobs.at(store_root).url, exchange, spec.to_json(), out.url)
    found = found or standing(store_root, exchange, spec, out_root)
    planned, made = found.planned, dict(found.made)
    reused, todo = len(made), [part for part in planned if part not in made]
    if not out.exists(SPEC_FILE):
        out.write(SPEC_FILE, spec.to_json().encode())
    with progress.task("features", total=len(planned)) as task:
        task.advance(reused, f"{reused} up to date")
        for part, facts in _run(todo, job):
            if facts.inputs != planned[part]:
                raise DataError("the series changed while features were computed", where=part.name, todo="run it again")
            made[part] = facts
            task.advance(1, f"{part.name}: {facts.complete} rows")
    lost = sorted(part.name for part in planned if part not in made)
    if lost:
        raise ClusterError(f"no features came back for {lost}", where=out.root, todo="see the Ray logs, then run again")
    files = tuple(made[part] for part in planned)
    full = {facts.pair for facts in files if facts.complete}
    empty = [pair for pair in spec.pairs if pair not in full]
    if empty:
        raise SpecError(
            f"no row of {empty} has every feature and label",
            where=out.root,
            todo=f"fetch more than {spec.warmup + max(spec.horizons)} candles, and enrichment of the same time",
        )
    rows = sum(facts.rows for facts in files)
    return FeatureSummary(rows, len(spec.pairs), time.monotonic() - started, out.root, spec.hash, reused, files)


def standing(store_root: str, exchange: str, spec: DatasetSpec, out_root: str) -> Standing:
    """What there is to make and what is made; reads every local file that it counts as made.

    Raises:
        StoreError: if a series is missing or damaged.
    """
    planned, out = plan(CandleStore(store_root), exchange, spec), Blobs.at(f"{out_root}/{spec.hash}")
    seen = ((part, reusable(out, part, inputs)) for part, inputs in planned.items())
    return Standing(planned, {part: facts for part, facts in seen if facts is not None})


def _run(parts: Sequence[Partition], job: tuple[str, str, str, str]) -> Iterator[tuple[Partition, PartFacts]]:
    """Yield each partition's facts as its worker hands them over."""
    if not parts:
        return
    # Importing Ray fixes its authentication mode, so whoever starts the cluster must be the first to do it.
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        raise ClusterError("Ray is not running", where="features", todo="start it (`cluster up`) or join one")
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.target_max_block_size = False, _FACTS_A_BLOCK
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # progress is ours to tell, and errors are raised as well
    rest = iter(parts)
    sizes = task_sizes(len(parts), round(ray.cluster_resources().get("CPU", 1)))
    # One row a task, for blocks of one size is all that a table of rows can be cut into.
    tasks = [{"parts": json.dumps([asdict(part) for part in islice(rest, size)])} for size in sizes]
    rows = ray.data.from_items(tasks, override_num_blocks=len(tasks))
    for row in rows.flat_map(_Work(job), runtime_env={"env_vars": WORKER_ENVIRONMENT}).iter_rows():
        if row["error"]:
            kind, what, where, todo = json.loads(row["error"])
            raise getattr(errors, kind)(what, where=where, todo=todo)
        yield Partition(**json.loads(row["part"])), PartFacts(**json.loads(row["facts"]))


@dataclass(frozen=True)
class _Work:
    """What a worker does with a task's partitions, one after the other; only names and facts travel."""

    job: tuple[str, str, str, str]

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        return (self._made(Partition(**part)) for part in json.loads(row["parts"]))

    def _made(self, part: Partition) -> dict[str, Any]:
        store, exchange, spec, out = self.job
        try:
            facts = build_partition(CandleStore(store), exchange, DatasetSpec.from_json(spec), Blobs.at(out), part)
            return {"part": json.dumps(asdict(part)), "facts": json.dumps(asdict(facts)), "error": ""}
        except DataError as error:
            # Ray would bury it in a stack of its own; the driver raises it again.
            told = json.dumps([type(error).__name__, error.what, error.where, error.todo])
            return {"part": "", "facts": "", "error": told}
