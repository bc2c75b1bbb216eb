"""How a bot reaches the risk manager: every question has a deadline, and a breaker spares the bot hopeless ones.

Freqtrade holds its exit lock while it enters, so a slow answer here would delay every stop-loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar, cast

from observability.errors import GateError, MtstError
from trading.book import Reservation
from trading.directive import Directive
from trading.events import AccountReport, Fill, Outcome
from trading.lease import Lease
from trading.orders import Decision, OrderIntent
from trading.wire import Settlement, decision_from, intent_bytes, settlement_bytes

T = TypeVar("T")


class RiskPort(Protocol):
    """What bots use of `trading.manager.RiskManager`, which fulfils it in process."""

    def decide(self, intent: OrderIntent) -> Decision: ...  # noqa: D102 - documented at RiskManager

    def settle(self, reservation_id: str, outcome: Outcome, filled: float = 0.0, price: float = 0.0) -> bool: ...  # noqa: D102

    def report(self, report: AccountReport) -> Directive: ...  # noqa: D102

    def directive(self, account: str | None = None) -> Directive: ...  # noqa: D102

    def record_fill(self, fill: Fill) -> int: ...  # noqa: D102

    def acquire_lease(self, account: str, holder: str, born_ms: int = 0) -> Lease: ...  # noqa: D102

    def renew_lease(self, account: str, holder: str, epoch: int) -> Lease: ...  # noqa: D102

    def release_lease(self, account: str, holder: str, epoch: int) -> bool: ...  # noqa: D102

    def reservations(self, account: str | None = None) -> tuple[Reservation, ...]: ...  # noqa: D102


class ActorCalls:
    """Calls of a Ray actor's methods; errors of ours pass, everything else becomes GateError.

    Args:
        handle: the actor's handle; stays good when Ray restarts it.
        who: what it is called in messages.
        timeout_s: deadline of every call.
    """

    def __init__(self, handle: Any, who: str, timeout_s: float = 2.0) -> None:
        self._handle, self._who, self._timeout_s = handle, who, timeout_s
        self._breaker = Breaker(failures=1, rest_s=1.0)

    def call(self, method: str, *args: Any) -> Any:
        """The method's answer.

        Raises:
            GateError: none came in time, or none came a moment ago; MtstError: the actor's own.
        """
        import ray

        if self._breaker.open:  # one loop asks several questions, and stops wait behind every one
            raise GateError(f"{self._who} did not answer a moment ago, so {method} is not asked")
        try:
            answer = ray.get(getattr(self._handle, method).remote(*args), timeout=self._timeout_s)
        except ray.exceptions.GetTimeoutError as error:
            self._breaker.failure()
            raise GateError(f"{self._who} gave no answer to {method} within {self._timeout_s} s") from error
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, MtstError):
                raise error.cause from error
            raise GateError(f"{self._who} failed in {method}: {error.cause!r}") from error
        except ray.exceptions.RayError as error:
            raise GateError(f"{self._who} cannot be reached for {method}: {type(error).__name__}") from error
        self._breaker.success()
        return answer


class RayRisk:
    """`RiskPort` over the risk actor's handle; every call has a deadline of `timeout_s`."""

    def __init__(self, handle: Any, timeout_s: float = 2.0) -> None:
        self._call = ActorCalls(handle, "the risk manager", timeout_s).call

    def decide(self, intent: OrderIntent) -> Decision:
        """See RiskManager; the gate sets its own, shorter deadline."""
        return decision_from(self._call("decide_bytes", intent_bytes(intent)))

    def settle(self, reservation_id: str, outcome: Outcome, filled: float = 0.0, price: float = 0.0) -> bool:
        """See RiskManager."""
        return bool(self._call("settle_bytes", settlement_bytes(Settlement(reservation_id, outcome, filled, price))))

    def report(self, report: AccountReport) -> Directive:
        """See RiskManager."""
        return cast(Directive, self._call("report", report))

    def directive(self, account: str | None = None) -> Directive:
        """See RiskManager."""
        return cast(Directive, self._call("directive", account))

    def record_fill(self, fill: Fill) -> int:
        """See RiskManager."""
        return int(self._call("record_fill", fill))

    def acquire_lease(self, account: str, holder: str, born_ms: int = 0) -> Lease:
        """See RiskManager."""
        return cast(Lease, self._call("acquire_lease", account, holder, born_ms))

    def renew_lease(self, account: str, holder: str, epoch: int) -> Lease:
        """See RiskManager."""
        return cast(Lease, self._call("renew_lease", account, holder, epoch))

    def release_lease(self, account: str, holder: str, epoch: int) -> bool:
        """See RiskManager."""
        return bool(self._call("release_lease", account, holder, epoch))

    def reservations(self, account: str | None = None) -> tuple[Reservation, ...]:
        """See RiskManager."""
        return tuple(self._call("reservations", account))


class Breaker:
    """Opens after `failures` in a row and stays open for `rest_s` real seconds; then one call may try again."""

    def __init__(self, failures: int = 3, rest_s: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed, self._rest_s, self._clock = failures, rest_s, clock
        self._failed, self._open_until = 0, 0.0

    @property
    def open(self) -> bool:
        """Whether calls are spared now."""
        return self._clock() < self._open_until

    def success(self) -> None:
        """A call went well."""
        self._failed = 0

    def failure(self) -> None:
        """A call failed or was late."""
        self._failed += 1
        if self._failed >= self._allowed:
            self._open_until = self._clock() + self._rest_s


def bounded(call: Callable[[], T], timeout_s: float) -> T:
    """The result of `call`, or TimeoutError after `timeout_s` real seconds; a late call is left to itself."""
    results: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            results.put((call(), None))
        except BaseException as error:  # noqa: BLE001 - carried to the caller below
            results.put((None, error))

    Thread(target=run, name="bounded-call", daemon=True).start()
    try:
        result, error = results.get(timeout=timeout_s)
    except Empty:
        raise TimeoutError(f"no answer within {timeout_s} s") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
