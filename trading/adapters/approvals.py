"""The risk manager's approval of an entry, from the question to what became of the order, as a bot holds it.

Whatever goes wrong on the way (no answer in time, an answer that cannot be one, a strategy that does not know its stop)
means that nobody approved. An approval is a reservation, and it is outstanding until its outcome could be told.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from freqtrade.exceptions import DependencyException

from observability.errors import GateError, RefusedError
from observability.logging import get_logger
from observability.metrics import Meters
from trading.adapters.entry_intent import EntryFacts, GateId, entry_intent
from trading.adapters.order_lookup import outcome_of
from trading.adapters.risk_port import Breaker, RiskPort, bounded
from trading.kill_switch import KillSwitch
from trading.orders import Approved, Decision, OrderIntent, Refused
from trading.risk import reservation_of
from trading.rulebook import Rule

log = get_logger(__name__)

DEADLINE_S = 0.5
REST_MS = 60_000  # a refused pair is not asked for again for so long: Freqtrade repeats an entry every few seconds


class EntryRefused(RefusedError, DependencyException):  # noqa: N818 - reads as what happened
    """No order was made; Freqtrade takes it as one of its own and goes on with the next pair."""


@dataclass(frozen=True)
class OrderCount:
    """Counts a bot's orders by side and outcome, those that were refused included; without meters nothing."""

    bot: str
    meters: Meters | None = None

    def __call__(self, side: str, outcome: str) -> None:
        """One order more."""
        if self.meters is not None:
            self.meters.inc("mtst_orders_total", bot=self.bot, side=side, outcome=outcome)


class Approvals:
    """Asks for entries, and tells what became of them.

    Args:
        who: identity written into every intent.
        risk: the risk manager.
        facts: asks the strategy about (pair, price, side); any exception refuses the entry.
        epoch: epoch of the lease that the bot holds now; None when it holds none.
        count: told of every refused entry.
        switch: the kill switch, looked at before every entry.
        deadline_s: how long one decision may take, in real seconds.
    """

    def __init__(
        self,
        who: GateId,
        risk: RiskPort,
        facts: Callable[[str, float, str], EntryFacts],
        epoch: Callable[[], int | None],
        *,
        count: OrderCount,
        switch: KillSwitch | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self.who, self.risk = who, risk
        self.outstanding: dict[str, str | None] = {}
        """Reservations without outcome -> the exchange's order id, None while unknown."""
        self.refusals: dict[str, int] = {}
        self._facts, self._epoch, self._deadline_s = facts, epoch, deadline_s
        self._count, self._switch = count, switch
        self._breaker = Breaker(clock=time.time)  # the bot's own time, virtual or not, as a refused pair's rest
        self._resting: dict[str, int] = {}
        self._noted: dict[str, int] = {}

    def ask(self, pair: str, side: str, amount: float, price: float) -> Approved:
        """The approval, perhaps of a smaller amount; outstanding from now on.

        Raises:
            EntryRefused: there is none, so nothing may be sent.
        """
        now_ms = int(time.time() * 1000)
        if self._switch is not None and (command := self._switch.read()).closed:
            self._refused(Rule.STATE_HALTED, side)  # and no rest for the pair: a resume counts at once
            self._note(pair, side, amount, price, now_ms)
            raise EntryRefused(f"{command.verb} by {command.who}: {command.reason}", where=pair)
        if now_ms < self._resting.get(pair, 0):
            raise EntryRefused("refused a moment ago", where=pair)
        try:
            decision = self._decision(self._intent(pair, side, amount, price, now_ms))
        except Exception as error:
            # Whatever went wrong, nobody approved.
            self._rest(pair, side, now_ms, "GATE")
            raise EntryRefused(f"entries are closed: {error}", where=pair) from error
        if isinstance(decision, Refused):
            self._rest(pair, side, now_ms, str(decision.code))
            raise EntryRefused(f"{decision.code}: {decision.text}", where=pair)
        self.outstanding[decision.reservation_id] = None
        return decision

    def settle(self, reservation_id: str, order: dict[str, Any] | None) -> None:
        """Tell the risk manager what became of a reservation; it stays outstanding until that succeeded.

        Args:
            reservation_id: the reservation.
            order: the exchange's order, None when the exchange never got one.
        """
        outcome, filled, price = outcome_of(order)
        if outcome is None:
            return
        try:
            self.risk.settle(reservation_id, outcome, filled, price)
            self.outstanding.pop(reservation_id, None)
        except Exception as error:  # noqa: BLE001 - the order is made; the next loop tells it again
            log.warning("not_settled", reservation=reservation_id, error=str(error))

    def _note(self, pair: str, side: str, amount: float, price: float, now_ms: int) -> None:
        """Have an entry that the kill switch keeps back journalled too, now and then; it is not sent in any case."""
        if now_ms < self._noted.get(pair, 0):
            return
        self._noted[pair] = now_ms + REST_MS
        try:
            decision = self._decision(self._intent(pair, side, amount, price, now_ms))
        except Exception as error:  # noqa: BLE001 - it is only for the record
            log.warning("not_noted", pair=pair, error=str(error)[:200])
            return
        if isinstance(decision, Approved):  # it has not looked at the switch yet
            self.outstanding[decision.reservation_id] = None
            self.settle(decision.reservation_id, None)

    def _intent(self, pair: str, side: str, amount: float, price: float, now_ms: int) -> OrderIntent:
        epoch = self._epoch()
        if epoch is None:
            raise GateError("the bot does not hold its account's lease", where=self.who.account)
        facts = self._facts(pair, price, side)
        return entry_intent(self.who, facts, pair, side, amount=amount, price=price, epoch=epoch, now_ms=now_ms)

    def _decision(self, intent: OrderIntent) -> Decision:
        if self._breaker.open:
            raise GateError("the risk manager failed several times; waiting before asking again")
        try:
            decision = bounded(lambda: self.risk.decide(intent), self._deadline_s)
            checked(decision, intent)
        except TimeoutError as error:
            self._breaker.failure()
            # It may have approved meanwhile: nothing was sent, so the room can be given back later.
            self.outstanding[reservation_of(intent.intent_id)] = None
            raise GateError(f"the risk manager gave {error}") from error
        except Exception:
            self._breaker.failure()
            raise
        self._breaker.success()
        return decision

    def _rest(self, pair: str, side: str, now_ms: int, code: str) -> None:
        self._resting[pair] = now_ms + REST_MS
        self._refused(code, side)

    def _refused(self, code: str, side: str) -> None:
        self.refusals[code] = self.refusals.get(code, 0) + 1
        self._count(side, "refused")


def checked(decision: object, intent: OrderIntent) -> None:
    """Believe an answer only if it can be one.

    Raises:
        GateError: of another intent, of a wrong kind, or approving more or something else than was asked.
    """
    if isinstance(decision, Refused) and decision.intent_id == intent.intent_id:
        return
    if not isinstance(decision, Approved) or decision.intent_id != intent.intent_id:
        raise GateError("the risk manager answered another question", where=repr(decision)[:120])
    numbers = (decision.amount, decision.price)
    if not all(isinstance(number, (int, float)) and math.isfinite(number) and number > 0 for number in numbers):
        raise GateError("the risk manager approved impossible numbers", where=repr(numbers))
    if decision.amount > intent.amount or decision.price != intent.price:
        raise GateError("the risk manager approved more than was asked", where=repr(numbers))
    if decision.reservation_id != reservation_of(intent.intent_id):
        raise GateError("the risk manager approved without a reservation", where=repr(decision.reservation_id))
