"""One side of the exchange, spot or the perpetuals: its prices, what is shown of them, and the orders on it."""

from __future__ import annotations

from trading.adapters.sandbox.faults import Faults
from trading.adapters.sandbox.feed import Feed
from trading.adapters.sandbox.klines import Klines
from trading.adapters.sandbox.market import Market
from trading.adapters.sandbox.matching import Engine
from trading.adapters.sandbox.orders import RefusalError
from trading.adapters.sandbox.path import PricePath


class Side:
    """A market, the way of its prices, and an engine that matches orders on that way."""

    def __init__(self, market: Market, path: PricePath, engine: Engine, faults: Faults) -> None:
        self.market, self.path, self.engine = market, path, engine
        self.klines = Klines(market, path)
        self.feed = Feed(self.klines, faults, market.rules)
        self._pairs = {rules.symbol: pair for pair, rules in market.rules.items()}

    def pair(self, symbol: str) -> str:
        """The pair that Binance calls `symbol` on this side; raises RefusalError -1121."""
        if symbol not in self._pairs:
            raise RefusalError(-1121, "Invalid symbol.")
        return self._pairs[symbol]
