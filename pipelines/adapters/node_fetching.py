"""A backfill on every node of a Ray cluster: exchanges count requests by address, and each node has its own.

One fetcher a node, with as many threads as a backfill without Ray has, held back by that node's own budget. On a
cluster of one node this would only cost a start: there `fetch_all` does the same.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from observability.errors import ClusterError, UnreachableError
from observability.logging import get_logger
from observability.priority import step_back
from pipelines.adapters.ccxt_source import open_exchange
from pipelines.adapters.fetching import WORKERS, fetch
from pipelines.backfill import Fetched, Job

log = get_logger(__name__)


class NodeFetcher:
    """The actor's body: an exchange, opened from this node.

    Args:
        name: of the exchange.
        url: of a sandbox exchange; None for a real one.
    """

    def __init__(self, name: str, url: str | None) -> None:
        step_back()
        self._source = open_exchange(name, url)
        self._source.markets()

    def fetch(self, job: Job) -> tuple[Fetched, int]:
        """One job, and the requests that this node has made so far."""
        return fetch(self._source, job), self._source.requests


class NodeFetchers:
    """Fetchers on all nodes of the cluster that this process has joined; use `close` at the end.

    Args:
        name: of the exchange.
        url: of a sandbox exchange; None for a real one.

    Raises:
        ClusterError: Ray is not running.
    """

    def __init__(self, name: str, url: str | None) -> None:
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            raise ClusterError("Ray is not running", where="backfill", todo="start it (`cluster up`) or join one")
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray: Any = ray
        actor = ray.remote(NodeFetcher)
        self._actors: list[Any] = [
            actor.options(
                num_cpus=0,
                max_concurrency=WORKERS,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            ).remote(name, url)
            for node in sorted(each["NodeID"] for each in ray.nodes() if each["Alive"])
        ]
        self._asked = dict.fromkeys(self._actors, 0)

    @property
    def requests(self) -> int:
        """Requests that the nodes have made so far."""
        return sum(self._asked.values())

    def __call__(self, jobs: Sequence[Job]) -> Iterator[Sequence[Fetched]]:
        """Yield what each job brought; the jobs of a node that is lost go to the others.

        Raises:
            UnreachableError: the exchange is away. ClusterError: no node is left.
        """
        todo, running = deque(jobs), dict[Any, tuple[Any, Job]]()
        while todo or running:
            self._hand_out(todo, running)
            ready, _ = self._ray.wait(list(running))
            actor, job = running.pop(ready[0])
            try:
                fetched, asked = self._ray.get(ready[0])
            except self._ray.exceptions.RayActorError as error:
                log.warning("node_lost", error=str(error)[:200])
                self._actors = [each for each in self._actors if each is not actor]
                todo.append(job)
                continue
            self._asked[actor] = max(self._asked[actor], asked)
            if isinstance(fetched.error, UnreachableError):
                raise fetched.error
            yield [fetched]

    def close(self) -> None:
        """End the fetchers."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _hand_out(self, todo: deque[Job], running: dict[Any, tuple[Any, Job]]) -> None:
        if not self._actors:
            raise ClusterError("every node that fetched is lost", where="backfill", todo="run it again: it goes on")
        for actor in self._actors * WORKERS:
            busy = sum(1 for each, _ in running.values() if each is actor)
            if todo and busy < WORKERS:
                job = todo.popleft()
                running[actor.fetch.remote(job)] = actor, job
