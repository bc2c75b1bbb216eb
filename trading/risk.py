"""May this order be sent? One pure function over an ordered list of small rules.

`decide` answers Approved or Refused(code, text) from the intent, the book, the limits and the time, and from nothing
else: the same four give the same answer, today, in a test and when a journal is replayed. Exits are always approved.
An entry must pass every rule of `RULES`, in order; the first that objects gives the code and the words. Where only a
limit on size objects, the entry is cut to what fits, if that is still most of it, and judged anew at that size.
"""

from __future__ import annotations

import math
from dataclasses import replace

from trading.book import Book
from trading.checks import CHECKS, Check
from trading.clock import Clock
from trading.limits import RiskLimits
from trading.measures import MEASURES, SIZEABLE, Measure
from trading.orders import Approved, Decision, LimitUse, OrderIntent, Refused
from trading.question import Question
from trading.rulebook import Rule

__all__ = ["RULES", "RiskLimits", "Rule", "decide", "reservation_of"]

CUTS = 4  # times that one entry is cut; each limit that objects cuts it once
_new = tuple.__new__  # a named tuple's own constructor takes four times as long, and every decision makes dozens
MARGIN = 1.0 - 1e-9  # what is cut off more than needed, for the sake of floating point


def decide(intent: OrderIntent, book: Book, limits: RiskLimits, clock: Clock) -> Decision:
    """Judge one intent; reads the clock once, changes nothing and raises nothing."""
    if intent.action == "exit":
        return Approved(intent.intent_id, "", intent.amount, intent.price)
    now_ms = clock.now_ms()
    least, asked = 0.0, intent
    for _ in range(CUTS):
        verdict = _judge(Question(asked, book, limits, now_ms), least)
        if not isinstance(verdict, float):
            return verdict
        least = least or intent.amount * limits.min_shrink
        asked = replace(asked, amount=verdict)
    return Refused(intent.intent_id, Rule.POSITION_LIMIT.value, "no size that fits every limit was found")


def _judge(ask: Question, least: float) -> Decision | float:
    """The verdict on one size; a smaller amount to ask again with, where that may pass.

    Args:
        ask: the entry.
        least: smallest amount that may be proposed; 0 for the first look.
    """
    intent, uses = ask.intent, []
    for code, objection, measure, sizeable in _STEPS:
        if measure is None:
            text = objection(ask)
            if text is not None:
                return Refused(intent.intent_id, code, text)
            continue
        used, limit = measure(ask)
        if not used <= limit:  # written so that NaN objects too
            fits = _fitting(ask, measure, used, limit) if sizeable else 0.0
            if fits > 0 and fits >= (least or intent.amount * ask.limits.min_shrink):
                return fits
            return Refused(intent.intent_id, code, _text(used, limit))
        uses.append(_new(LimitUse, (code, used, limit)))
    return Approved(intent.intent_id, reservation_of(intent.intent_id), intent.amount, intent.price, tuple(uses))


def _fitting(ask: Question, measure: Measure, used: float, limit: float) -> float:
    """The amount that stays within one limit; 0 when none does.

    The measure is convex in size, so the straight line between its values at nothing and at what was asked lies above
    it, and where that line meets the limit the measure does not exceed it.
    """
    asked, ask.notional = ask.notional, 0.0
    before, _ = measure(ask)
    ask.notional = asked
    if not before < limit or not math.isfinite(used):
        return 0.0
    return ask.intent.amount * (limit - before) / (used - before) * MARGIN


def _text(used: float, limit: float) -> str:
    return f"{used:.8g} would exceed the limit {limit:.8g}"


def reservation_of(intent_id: str) -> str:
    """Id of the reservation that an intent gets when approved; a bot whose answer was lost can settle by it."""
    return f"r-{intent_id}"


# JOURNAL is raised by the keeper of the journal, not here
RULES: tuple[Rule, ...] = tuple(rule for rule in Rule if rule is not Rule.JOURNAL)


def _never(_ask: Question) -> str | None:
    return None


# code, predicate, measure and whether less of it may pass, in the order in which the rules are asked
_STEPS: tuple[tuple[str, Check, Measure | None, bool], ...] = tuple(
    (rule.value, CHECKS.get(rule, _never), MEASURES.get(rule), rule in SIZEABLE) for rule in RULES
)
