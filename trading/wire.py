"""How the two questions that hurry reach the risk manager's process, as JSON bytes: may I, and what became of it.

Ray encodes a dataclass by its own means, field by field and class by class, which costs more than judging the entry;
bytes it hands on as they are. All other questions are rare and travel as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from observability.errors import OrderError
from trading.events import Outcome, outcome_of
from trading.orders import Approved, Decision, OrderIntent, Reader, decision_from_dict, plain_number


class Settlement(NamedTuple):
    """What became of an approved entry; see `trading.manager.RiskManager.settle`."""

    reservation_id: str
    outcome: Outcome
    filled: float
    price: float


def intent_bytes(intent: OrderIntent) -> bytes:
    """The question; NaN and infinities travel as texts, so that the rules can refuse them."""
    return orjson.dumps(intent.to_dict())


def intent_from(data: bytes) -> OrderIntent:
    """Read `intent_bytes` back; raises OrderError, and then nobody has approved anything."""
    return OrderIntent.from_dict(_table(data))


def decision_bytes(decision: Decision) -> bytes:
    """The answer without `limits_used`, which the journal keeps and no bot looks at."""
    if isinstance(decision, Approved):
        decision = Approved(decision.intent_id, decision.reservation_id, decision.amount, decision.price)
    return orjson.dumps(decision.to_dict())


def decision_from(data: bytes) -> Decision:
    """Read `decision_bytes` back; raises OrderError."""
    return decision_from_dict(_table(data))


def settlement_bytes(settlement: Settlement) -> bytes:
    """What is told; numbers that are none travel as texts, so that they are refused with a reason."""
    return orjson.dumps({name: plain_number(value) for name, value in settlement._asdict().items()})


def settlement_from(data: bytes) -> Settlement:
    """Read `settlement_bytes` back; raises OrderError."""
    read = Reader(_table(data), "settlement")
    return Settlement(read.text("reservation_id"), outcome_of(read), read.number("filled"), read.number("price"))


def _table(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except ValueError as error:
        raise OrderError("what arrived is not JSON", where=repr(data[:60])) from error
    if not isinstance(value, dict):
        raise OrderError("what arrived is not a table", where=repr(data[:60]))
    return value
