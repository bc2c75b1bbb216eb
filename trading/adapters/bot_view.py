"""What a bot sees of its account right now, asked beside its own loop and without changing anything.

Freqtrade's session belongs to a thread and its wallets to the loop, so both are made anew here and let go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from types import SimpleNamespace
from typing import Any

import ccxt
from freqtrade.exceptions import FreqtradeException
from freqtrade.persistence import Trade
from freqtrade.wallets import Wallets
from sqlalchemy.exc import SQLAlchemyError

from observability.errors import ExchangeError, TradingError
from trading.adapters import holdings
from trading.adapters.orphans import origin_of
from trading.adapters.venue_kind import order_books
from trading.reconciliation import BotView, Resting


def bot_view(bot: Any, pairs: Iterable[str], marks: Mapping[str, float], outstanding: Iterable[str]) -> BotView:
    """Compare a running bot's database with its exchange.

    Args:
        bot: Freqtrade's.
        pairs: that it may trade; those that it holds are added.
        marks: newest prices, which say how little is dust.
        outstanding: reservations whose outcome the bot is about to tell.

    Raises:
        ExchangeError: the exchange cannot be asked. TradingError: the database cannot.
    """
    dry = bool(bot.config["dry_run"])
    try:
        beside = SimpleNamespace(exchange=bot.exchange, wallets=Wallets(bot.config, bot.exchange))
        open_trades = Trade.get_open_trades()
        seen = sorted({*pairs, *(trade.pair for trade in open_trades)})
        held = holdings.compared(beside, {pair: marks[pair] for pair in seen if pair in marks})
        resting = () if dry else tuple(_resting(bot.exchange, seen))
        there = {order.order_id for order in resting}
        known = [order for trade in open_trades for order in trade.orders if order.ft_is_open and not dry]
        lost = {order.order_id: order.ft_pair for order in known if order.order_id not in there}
    except (ccxt.BaseError, FreqtradeException) as error:
        raise ExchangeError(f"{type(error).__name__}: {error}", where=", ".join(pairs)) from error
    except SQLAlchemyError as error:
        raise TradingError(f"the bot's database cannot be read: {error}", todo="look again") from error
    finally:
        Trade.session.remove()
    return BotView(tuple(held), resting, lost, frozenset(outstanding))


def _resting(exchange: Any, pairs: Iterable[str]) -> Iterator[Resting]:
    for pair, book in product(pairs, order_books(exchange)):
        for order in exchange._api.fetch_open_orders(pair, params=book):
            yield Resting(str(order["id"]), pair, str(order["side"]), float(order["amount"]), origin_of(order, pair))
