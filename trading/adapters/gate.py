"""The gate: the one place through which every order of a bot passes on its way to the exchange.

It stands at `exchange.create_order`, because Freqtrade's own veto fails open and is not asked for position additions,
forced entries and replaced orders; all of them end here. Whatever adds risk needs the risk manager's approval in time,
or no order is made. What lowers risk always passes. Every order carries an id of ours, so that an order whose answer
was lost is found again instead of being sent twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from freqtrade.exceptions import (
    ExchangeError,
    FreqtradeException,
    InsufficientFundsError,
    InvalidOrderException,
    TemporaryError,
)

from observability.logging import get_logger
from trading.adapters.approvals import Approvals, EntryRefused, OrderCount
from trading.adapters.order_lookup import OrderLookup
from trading.adapters.venue_kind import is_spot

log = get_logger(__name__)

EXIT, STOP = "x-", "s-"  # how the ids of our exits and stops begin; an entry's is its reservation's


class OrderGate:
    """Wraps one exchange object; `approvals` decide over what adds risk, `count` is told of every order."""

    def __init__(self, approvals: Approvals, count: OrderCount) -> None:
        self.approvals, self._count = approvals, count
        self.orphans_likely = True
        """Whether the exchange may hold orders that the bot does not know: at the start, and when one got lost."""
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
        approved = self.approvals.ask(pair, order["side"], amount, price)
        key = approved.reservation_id
        try:
            made = self._place(key, {**order, "amount": approved.amount})
        except (InsufficientFundsError, InvalidOrderException):
            self._count(order["side"], "rejected")
            self.approvals.settle(key, None)
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
        self.approvals.outstanding[key] = str(made["id"])
        self._count(order["side"], "placed")
        return made

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
