"""What the rules are asked: an entry, the book, the limits, the time, and what several rules need worked out once."""

from __future__ import annotations

from trading.book import AccountView, Book
from trading.limits import RiskLimits
from trading.market import NO_MARKET, MarketRisk
from trading.orders import OrderIntent


class Question:
    """One entry on its way through the rules.

    `notional` is what it is judged by, in quote currency; measures are asked again with less of it to find what fits.
    What concerns the account is worked out by `look_up`, once the rules before have made sure that it has reported.
    """

    __slots__ = (
        "_weighed", "after", "asset", "assets", "book", "equity", "everything", "gross", "intent", "limits", "market",
        "net", "notional", "now_ms", "pair_held", "sign", "view", "whole",
    )  # fmt: skip

    notional: float
    asset: str
    sign: float
    market: MarketRisk
    view: AccountView
    equity: float
    everything: float
    pair_held: float
    gross: float
    whole: float
    net: float
    after: dict[str, float]
    assets: dict[str, float]

    def __init__(self, intent: OrderIntent, book: Book, limits: RiskLimits, now_ms: int) -> None:
        self.intent, self.book, self.limits, self.now_ms = intent, book, limits, now_ms
        self._weighed: tuple[float, dict[str, float]] = (-1.0, {})

    def look_up(self) -> None:
        """Work out exposures before this entry; its numbers and its account are known to make sense.

        pair_held, gross: of the account; whole, net, assets: over all accounts, `assets` by asset and unsigned;
        after: the account's signed exposure by asset; everything: equity of all accounts.
        """
        book, intent = self.book, self.intent
        self.notional = intent.notional
        self.asset = base_asset(intent.pair)
        self.sign = 1.0 if intent.side == "buy" else -1.0
        fresh = abs(self.now_ms - book.market.as_of_ms) <= self.limits.max_market_age_ms
        self.market = book.market if fresh else NO_MARKET
        self.view = book.accounts[intent.account]
        self.equity = self.view.report.equity
        self.pair_held = self.gross = self.whole = self.net = self.everything = 0.0
        self.after, self.assets = {}, {}
        for name, view in book.accounts.items():
            report, mine = view.report, name == intent.account
            self.everything += report.equity
            for held in report.positions:
                worth = held.amount * held.mark
                self._count(held.pair, worth, worth if held.side == "long" else -worth, mine)
        for kept in book.reservations.values():
            worth = kept.amount * kept.price
            self._count(kept.pair, worth, worth if kept.side == "buy" else -worth, kept.account == intent.account)

    def _count(self, pair: str, worth: float, signed: float, mine: bool) -> None:
        asset = pair.partition("/")[0]
        self.whole += worth
        self.net += signed
        self.assets[asset] = self.assets.get(asset, 0.0) + worth
        if mine:
            self.gross += worth
            self.after[asset] = self.after.get(asset, 0.0) + signed
            if pair == self.intent.pair:
                self.pair_held += worth

    def open_pairs(self) -> int:
        """Pairs of the account that are held or reserved, this one included."""
        pairs = {self.intent.pair}
        pairs.update(held.pair for held in self.view.report.positions if held.amount > 0)
        pairs.update(kept.pair for kept in self.book.reservations.values() if kept.account == self.intent.account)
        return len(pairs)

    def weights(self) -> dict[str, float]:
        """The account's signed exposure by asset with this entry.

        An entry against what is held of the same asset counts beside it, not against it: until both are settled
        nobody knows which one stands.
        """
        if self._weighed[0] != self.notional:
            held, added = self.after.get(self.asset, 0.0), self.sign * self.notional
            worth = held + added if held * added >= 0 else self.sign * (abs(held) + abs(added))
            self._weighed = (self.notional, {**self.after, self.asset: worth})
        return self._weighed[1]


def base_asset(pair: str) -> str:
    """The first half of the pair: BTC of BTC/USDT or of BTC/USDT:USDT."""
    return pair.partition("/")[0]
