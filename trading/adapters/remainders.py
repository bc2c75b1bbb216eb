"""What is too little to be sold: entries that filled next to nothing, and what a sale in a thin market left of a trade.

An exchange takes no order below its least worth. Freqtrade leaves an entry that filled less than that on the book for
good, where it may be filled whole hours after anybody wanted it. And a position of that size can neither be sold nor
have a stop, so that the account would never enter again (UNPROTECTED). Here the entry is taken back, and what it bought
is let go as dust is: it stays on the account, in its worth and in the books that are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from freqtrade.constants import NON_OPEN_EXCHANGE_STATES
from freqtrade.persistence import Trade

from observability.logging import get_logger
from trading.adapters.venue_kind import is_spot

log = get_logger(__name__)

DUST_TAG = "dust"


def taking_back(exchange: Any, cancel: Callable[..., bool]) -> Callable[..., bool]:
    """Freqtrade's `handle_cancel_enter`, which also takes back an entry that filled too little to be sold.

    Args:
        exchange: the bot's.
        cancel: the original; it declines where an open order's fill would be too small, and takes an order that has
            ended as it is.
    """

    def handle_cancel_enter(trade: Any, order: dict[str, Any], order_obj: Any, *args: Any, **kwargs: Any) -> bool:
        filled = float(order.get("filled") or 0.0)
        if filled > 0 and order["status"] not in NON_OPEN_EXCHANGE_STATES:
            ended = exchange.cancel_order_with_result(order["id"], trade.pair, trade.amount)
            # an answer that knows of less than was there already is no answer; the next loop looks again
            if ended.get("status") not in NON_OPEN_EXCHANGE_STATES or float(ended.get("filled") or 0.0) < filled:
                return False
            order_obj.ft_cancel_reason = kwargs.get("reason", args[0] if args else None)
            order = ended
        return cancel(trade, order, order_obj, *args, **kwargs)

    return handle_cancel_enter


def let_go(exchange: Any, marks: Mapping[str, float]) -> list[str]:
    """Close the trades that are worth less than the exchange takes an order for, and return their pairs.

    Of spot only: a perpetual's position can be closed at any size. One whose price is not among `marks` is kept, and
    so is one with an order that is still to end.
    """
    if not is_spot(exchange):
        return []
    gone = []
    for trade in Trade.get_open_trades():
        mark, least = marks.get(trade.pair), _least_worth(exchange, trade.pair)
        if mark is None or not trade.has_open_position or trade.has_open_orders or trade.has_open_sl_orders:
            continue
        if trade.amount * mark < least:
            log.warning("dust_let_go", pair=trade.pair, amount=trade.amount, worth=trade.amount * mark, least=least)
            trade.exit_reason = DUST_TAG
            trade.close(mark, show_msg=False)
            if trade.close_profit is None:  # nothing was sold; Freqtrade's sums want a number of every closed trade
                trade.close_profit = trade.close_profit_abs = 0.0
            gone.append(str(trade.pair))
    if gone:
        Trade.commit()
    return gone


def _least_worth(exchange: Any, pair: str) -> float:
    """The least worth of an order, in quote currency; 0 where the exchange names none, or the pair no more."""
    limits = exchange.markets.get(pair, {}).get("limits", {})
    return float(limits.get("cost", {}).get("min") or 0.0)
