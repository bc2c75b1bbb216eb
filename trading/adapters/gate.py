"""The gate: the one place through which every order of a bot passes on its way to the exchange.

It stands at `exchange.create_order`, because Freqtrade's own veto fails open and is not asked for position additions,
forced entries and replaced orders; all of them end here. Whatever adds risk needs the risk manager's approval in time,
or no order is made. What lowers risk always passes. Every order carries an id of ours, so that an order whose answer
was lost is found again instead of being sent twice.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from freqtrade.exceptions import (
    DependencyException,
    ExchangeError,
    FreqtradeException,
    InsufficientFundsError,
    InvalidOrderException,
    TemporaryError,
)

from observability.errors import GateError, RefusedError
from observability.logging import get_logger
from observability.metrics import Meters
from trading.adapters.order_lookup import OrderLookup, outcome_of
from trading.adapters.risk_port import Breaker, RiskPort, bounded
from trading.adapters.venue_kind import is_spot
from trading.kill_switch import KillSwitch
from trading.orders import Approved, Decision, ForecastRef, OrderIntent, Refused
from trading.risk import reservation_of
from trading.rulebook import Rule

log = get_logger(__name__)

DEADLINE_S = 0.5
EXIT, STOP = "x-", "s-"  # how the ids of our exits and stops begin; an entry's is its reservation's
REST_MS = 60_000  # a refused pair is not asked for again for so long: Freqtrade repeats an entry every few seconds


class EntryRefused(RefusedError, DependencyException):  # noqa: N818 - reads as what happened
    """No order was made; Freqtrade takes it as one of its own and goes on with the next pair."""


@dataclass(frozen=True)
class GateId:
    """Who stands behind the gate."""

    bot: str
    account: str
    venue: str
    timeframe_ms: int


@dataclass(frozen=True)
class EntryFacts:
    """What the strategy knows about an entry: newest closed candle, stop, and the forecast behind it, if any."""

    candle_ms: int
    stop_price: float
    forecast: ForecastRef | None


def entry_intent(
    who: GateId, facts: EntryFacts, pair: str, side: str, *, amount: float, price: float, epoch: int, now_ms: int
) -> OrderIntent:
    """What the risk manager is asked before an entry, live and in backtests alike."""
    return OrderIntent(
        intent_id=uuid.uuid4().hex,
        bot=who.bot,
        account=who.account,
        venue=who.venue,
        pair=pair,
        side="buy" if side == "buy" else "sell",
        action="entry",
        amount=amount,
        price=price,
        stop_price=facts.stop_price,
        lease_epoch=epoch,
        created_ms=now_ms,
        candle_ms=facts.candle_ms,
        forecast=facts.forecast,
        timeframe_ms=who.timeframe_ms,
    )


class OrderGate:
    """Wraps one exchange object.

    Args:
        who: identity written into every intent.
        risk: the risk manager.
        facts: asks the strategy about (pair, price, side); any exception refuses the entry.
        epoch: epoch of the lease that the bot holds now; None when it holds none.
        meters: where orders are counted.
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
        meters: Meters | None = None,
        switch: KillSwitch | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._switch = switch
        self.who, self.risk = who, risk
        self.outstanding: dict[str, str | None] = {}
        """Reservations without outcome -> the exchange's order id, None while unknown."""
        self.refusals: dict[str, int] = {}
        self.orphans_likely = True
        """Whether the exchange may hold orders that the bot does not know: at the start, and when one got lost."""
        self._facts, self._epoch, self._meters, self._deadline_s = facts, epoch, meters, deadline_s
        self._breaker = Breaker(clock=time.time)  # the bot's own time, virtual or not, as a refused pair's rest
        self._resting: dict[str, int] = {}
        self._noted: dict[str, int] = {}
        self._adopted: dict[str, Any] | None = None
        self._client_id = ""

    def stand_at(self, exchange: Any) -> None:
        """Take the place of the exchange's `create_order`; once per exchange object."""
        self._exchange, self._send, self._rest_stop = exchange, exchange.create_order, exchange.create_stoploss
        self._lookup = OrderLookup(exchange)
        live = not exchange._config["dry_run"]

        def with_client_id(params: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
            def named(*args: Any, **kwargs: Any) -> dict[str, Any]:
                return {**params(*args, **kwargs), **({"clientOrderId": self._client_id} if live else {})}

            return named

        exchange._get_params = with_client_id(exchange._get_params)
        exchange._get_stop_params = with_client_id(exchange._get_stop_params)
        exchange.create_order = self.create_order
        exchange.create_stoploss = self.create_stop

    @property
    def lookup(self) -> OrderLookup:
        """Finds orders by the ids that this gate gave them."""
        return self._lookup

    @contextmanager
    def adopting(self, order: dict[str, Any]) -> Iterator[None]:
        """While inside, `create_order` answers with `order`, which the exchange has already, and sends nothing."""
        self._adopted = order
        try:
            yield
        finally:
            self._adopted = None

    def create_order(self, **order: Any) -> dict[str, Any]:
        """Freqtrade's `Exchange.create_order`, same arguments and result.

        Raises:
            EntryRefused: the order would add risk and was not approved in time; nothing was sent.
            FreqtradeException: the exchange refused or failed, as without the gate.
        """
        if self._adopted is not None:
            return self._adopted
        adds_risk = order["side"] == "buy" if is_spot(self._exchange) else not order.get("reduceOnly", False)
        return self._enter(order) if adds_risk else self._exit(order)

    def create_stop(self, **order: Any) -> dict[str, Any]:
        """Freqtrade's `Exchange.create_stoploss`, same arguments and result.

        A stop that the exchange refuses is no reason to sell at once, as Freqtrade would, and perhaps to buy again a
        moment later: the loop watches the price meanwhile, every loop tries the stop again, and no entry is allowed
        on the account until it rests (UNPROTECTED).

        Raises:
            ExchangeError: no stop rests now. InsufficientFundsError: the coins are sold or locked elsewhere.
        """
        client_id = f"{STOP}{uuid.uuid4().hex}"
        try:
            made = self._place(client_id, order, self._rest_stop)
        except InsufficientFundsError:
            self.orphans_likely = True  # an unknown order of an earlier life may hold the coins
            self._count(order["side"], "rejected")
            raise
        except InvalidOrderException as error:
            self._count(order["side"], "rejected")
            raise ExchangeError(f"the stop was refused: {error}") from error
        except FreqtradeException as error:
            found = self._lookup.by_client_id(client_id, order["pair"], stop=True)
            if found is None:
                self.orphans_likely = True
                raise
            log.warning("lost_reply", pair=order["pair"], order=found["id"], error=str(error)[:200])
            made = found
        return made

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

    def _exit(self, order: dict[str, Any]) -> dict[str, Any]:
        client_id = f"{EXIT}{uuid.uuid4().hex}"
        try:
            made = self._place(client_id, order)
        except (InsufficientFundsError, InvalidOrderException):
            self._count(order["side"], "rejected")
            raise
        except FreqtradeException as error:
            found = self._lookup.by_client_id(client_id, order["pair"])
            if found is None:
                self._count(order["side"], "unknown")
                raise
            log.warning("lost_reply", pair=order["pair"], order=found["id"], error=str(error)[:200])
            made = found
        self._count(order["side"], "placed")
        return made

    def _enter(self, order: dict[str, Any]) -> dict[str, Any]:
        pair, amount, price = order["pair"], float(order["amount"]), float(order["rate"])
        approved = self._ask(pair, order["side"], amount, price)
        key = approved.reservation_id
        self.outstanding[key] = None
        try:
            made = self._place(key, {**order, "amount": approved.amount})
        except (InsufficientFundsError, InvalidOrderException):
            self._count(order["side"], "rejected")
            self.settle(key, None)
            raise
        except FreqtradeException as error:
            found = self._lookup.by_client_id(key, pair)
            if found is None:
                # Perhaps still on its way: the reservation holds the pair until the order can no longer arrive.
                self._count(order["side"], "unknown")
                raise EntryRefused(f"no answer from the exchange: {error}", where=pair) from error
            log.warning("lost_reply", pair=pair, order=found["id"], error=str(error)[:200])
            made = found
        # Not settled here, even when it is filled: the bot has not committed it yet, and what it forgets (a crash, a
        # locked database) must still be reserved, so that the next loop finds and adopts it.
        self.outstanding[key] = str(made["id"])
        self._count(order["side"], "placed")
        return made

    def _ask(self, pair: str, side: str, amount: float, price: float) -> Approved:
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
        return decision

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

    def _place(self, client_id: str, order: dict[str, Any], send: Callable[..., Any] | None = None) -> dict[str, Any]:
        self._client_id = client_id
        try:
            made = dict((send or self._send)(**order))
        finally:
            self._client_id = ""
        if not made.get("id"):
            # ccxt makes an order without an id out of an answer that it cannot read; the order itself may well exist
            raise TemporaryError(f"the exchange's answer to an order of {order['pair']} is no order")
        return made

    def _rest(self, pair: str, side: str, now_ms: int, code: str) -> None:
        self._resting[pair] = now_ms + REST_MS
        self._refused(code, side)

    def _refused(self, code: str, side: str) -> None:
        self.refusals[code] = self.refusals.get(code, 0) + 1
        self._count(side, "refused")

    def _count(self, side: str, outcome: str) -> None:
        if self._meters is not None:
            self._meters.inc("mtst_orders_total", bot=self.who.bot, side=side, outcome=outcome)


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
