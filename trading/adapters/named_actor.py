"""How the system's Ray actors are made: found by name, restarted for ever, never asked twice by Ray itself."""

from __future__ import annotations

from typing import Any

from observability.errors import GateError


def actor_options(name: str, namespace: str, concurrency: int, *, detached: bool) -> dict[str, Any]:
    """Options of an actor that Ray restarts for ever; `detached` outlives the program that makes it."""
    options: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "num_cpus": 0,
        "max_restarts": -1,
        # a repeated call could be a repeated order; what got lost is looked up instead
        "max_task_retries": 0,
        "max_concurrency": concurrency,
    }
    return {**options, "lifetime": "detached"} if detached else options


def answering(handle: Any, what: str, name: str, timeout_s: float) -> Any:
    """The handle of an actor with a method `ping`, once it answers; raises GateError when it does not in time."""
    import ray

    try:
        ray.get(handle.ping.remote(), timeout=timeout_s)
    except ray.exceptions.RayError as error:
        raise GateError(
            f"{what} does not answer within {timeout_s:.0f} s",
            where=name,
            todo="look at its log in the Ray session; entries stay refused",
        ) from error
    return handle
