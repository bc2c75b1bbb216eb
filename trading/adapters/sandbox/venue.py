"""The exchange without its network: market, clock, engine, keys and faults in one place."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from observability.errors import SettingsError
from trading.adapters.api_key import read_key
from trading.adapters.sandbox.auth import Gatekeeper, ListenKeys
from trading.adapters.sandbox.clock import VirtualClock
from trading.adapters.sandbox.config import SandboxConfig, TermsConfig
from trading.adapters.sandbox.faults import Faults, FeedFault, RequestFault, VenueFault
from trading.adapters.sandbox.ledger import Ledger
from trading.adapters.sandbox.market import Market
from trading.adapters.sandbox.matching import Engine, Liquidity
from trading.adapters.sandbox.money import Money, SpotMoney
from trading.adapters.sandbox.orders import RefusalError
from trading.adapters.sandbox.path import PricePath
from trading.adapters.sandbox.perpetuals import PerpetualMoney
from trading.adapters.sandbox.rules import UNIT, SymbolRules, to_units
from trading.adapters.sandbox.side import Side
from trading.adapters.sandbox.traffic import Traffic


class Venue:
    """One running exchange; single-threaded by design, so every request sees and leaves it whole."""

    def __init__(self, config: SandboxConfig, market: Market) -> None:
        self.config, self.market = config, market
        self.faults = Faults()
        self.ledger, futures = Ledger(), market.futures
        paths = PricePath(market), PricePath(futures)
        self.margin = PerpetualMoney(futures.rules, Ledger(), futures, paths[1])
        for account in config.accounts:
            self.ledger.open_account(account.name, _units(account.balances, account.name))
            self.margin.ledger.open_account(account.name, _units(account.futures, account.name))
        self.spot = self._side(market, paths[0], SpotMoney(market.rules, self.ledger), config.terms)
        self.futures = self._side(futures, paths[1], self.margin, config.futures_terms)
        self.gatekeeper = Gatekeeper({account.name: read_key(account.key_file) for account in config.accounts})
        self.listen_keys = ListenKeys()
        self.listeners: list[Callable[[], None]] = []
        self.traffic = Traffic(config.weight_limit, config.order_limit)
        start = int(time.time() * 1000) if config.mode == "wall" else market.open_ms
        self.clock = VirtualClock(
            start, market.end_ms, self._moved, mode=config.mode, grace_s=config.grace_s, forget_s=config.forget_s
        )

    @property
    def now_ms(self) -> int:
        """Virtual time."""
        return self.clock.now_ms()

    def number(self, account: str) -> int:
        """An account's number, as the exchange tells its owner."""
        return 1 + [item.name for item in self.config.accounts].index(account)

    @property
    def told_ms(self) -> int:
        """What the exchange's own clock says: virtual time, unless a fault skews it."""
        skew = self.faults.venue("clock_skew", "", self.now_ms)
        return self.now_ms + (0 if skew is None else skew.skew_ms)

    def seen_ms(self, side: Side, pair: str) -> int:
        """The time whose prices of a pair are shown now."""
        return side.feed.seen_ms(pair, self.now_ms)

    def trading(self, rules: SymbolRules) -> bool:
        """Whether a pair or a perpetual can be traded now."""
        return self.faults.venue("delisting", rules.name, self.now_ms) is None

    def delistings(self, pair: str) -> list[int]:
        """When a pair's trading ends or has ended, as far as it is planned."""
        return self.faults.delistings(pair)

    def tradable(self, side: Side, symbol: str) -> str:
        """`side.pair`, provided that it is traded; raises RefusalError -1013 else."""
        pair = side.pair(symbol)
        if not self.trading(side.market.rules[pair]):
            raise RefusalError(-1013, "Market is closed.")
        return pair

    def plan(self, fault: RequestFault | FeedFault | VenueFault) -> None:
        """Let something fail; see `trading.adapters.sandbox.faults`."""
        self.faults.plan(fault, self.now_ms)
        self._close_delisted()

    def digest(self) -> str:
        """A hash of everything that was ever traded here: equal histories have equal digests."""
        return hashlib.sha256(f"{self.spot.engine.digest()}{self.futures.engine.digest()}".encode()).hexdigest()

    def _side(self, market: Market, path: PricePath, money: Money, terms: TermsConfig) -> Side:
        return Side(market, path, Engine(market.rules, path, money, terms.build(), self._thin), self.faults)

    def _thin(self, pair: str, at_ms: int) -> Liquidity | None:
        """How little fills at once while a fault makes the market thin."""
        thin = self.faults.venue("partial_fills", pair, at_ms)
        return None if thin is None else Liquidity(round(thin.max_fill * UNIT), thin.refill_ms)

    def _close_delisted(self) -> None:
        for side in (self.spot, self.futures):
            for rules in side.market.rules.values():
                if not self.trading(rules):
                    side.engine.expire(rules.pair, self.now_ms)

    def _moved(self, before_ms: int, after_ms: int) -> None:
        self.spot.engine.advance(before_ms, after_ms)
        self.futures.engine.advance(before_ms, after_ms)
        self._close_delisted()
        for listener in self.listeners:
            listener()


def open_venue(config: SandboxConfig) -> Venue:
    """Build the market of a configuration and open an exchange on it; in wall mode it is moved to the present."""
    market = config.market.build(config.seed)
    if config.mode == "wall":
        market = market.rebased(int(time.time() * 1000))
    return Venue(config, market)


def _units(balances: dict[str, str], account: str) -> dict[str, int]:
    try:
        return {asset: to_units(text) for asset, text in balances.items()}
    except ValueError as error:
        raise SettingsError(f"a balance is wrong: {error}", where=account, todo="write it as a number") from error
