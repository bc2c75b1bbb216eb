"""A Ray cluster of several raylets on this machine, of which one can be killed."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

from cluster.environment import ray_environment, token_file
from cluster.ray_local import make_token, remove_temp_root, temp_root
from cluster.settings import Settings

QUICK = {  # a dead node is noticed in seconds, as cluster/deploy has it
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


class Raylets(AbstractContextManager["Raylets", None]):
    """A head without processors and some nodes of `cores` each; the driver has joined."""

    def __init__(self, settings: Settings, nodes: int = 2, cores: int = 1) -> None:
        make_token(token_file(settings))
        os.environ.update(ray_environment(settings) | QUICK)
        import ray
        from ray.cluster_utils import Cluster

        self.root = temp_root(settings.workspace.var)
        # Ray's Cluster notes its address in the default folder, and on a fresh machine nobody has made that yet.
        (self.root.parent / "ray").mkdir()
        os.environ["RAY_TMPDIR"] = str(self.root.parent)
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "temp_dir": str(self.root)})
        self.cores = cores
        self.nodes: list[Any] = []
        for _ in range(nodes):
            self.add()
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level="ERROR")

    def add(self, **resources: float) -> None:
        """One more node, with these resources of its own."""
        self.nodes.append(self.cluster.add_node(num_cpus=self.cores, resources=resources))

    def kill(self, node: int = 0) -> bool:
        """kill -9 a node's raylet; its workers end with it."""
        self.cluster.remove_node(self.nodes[node], allow_graceful=False)
        return True

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()
        self.cluster.shutdown()
        os.environ.pop("RAY_TMPDIR", None)
        remove_temp_root(self.root)
