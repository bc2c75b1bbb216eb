"""What happens to perpetuals by themselves: funding at its hours, liquidation where the margin is used up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from trading.adapters.sandbox.ledger import Ledger
from trading.adapters.sandbox.margin import MarginMoney
from trading.adapters.sandbox.market import Market
from trading.adapters.sandbox.orders import Kind, OrderRequest
from trading.adapters.sandbox.path import PricePath
from trading.adapters.sandbox.positions import Position, ruined
from trading.adapters.sandbox.rules import PPM, SymbolRules

if TYPE_CHECKING:
    from trading.adapters.sandbox.matching import Engine

LIQUIDATION_PPM = 12_500
AUTOCLOSE = "autoclose-"


class PerpetualMoney(MarginMoney):
    """Margin money that knows the market: `Money` of the futures engine."""

    def __init__(self, rules: Mapping[str, SymbolRules], ledger: Ledger, market: Market, path: PricePath) -> None:
        super().__init__(rules, ledger)
        self._market, self._path = market, path
        self._settled_ms = market.open_ms

    def marks(self, at_ms: int) -> dict[str, int]:
        """Mark prices of all pairs."""
        return {pair: self._path.price(pair, at_ms) for pair in self.rules}

    def available(self, account: str, quote: str, at_ms: int) -> int:
        """Units that new orders may lock: what is free, less the open losses of cross positions."""
        return max(0, super().available(account, quote, at_ms) + min(0, self.crossed(account, quote, at_ms)))

    def crossed(self, account: str, quote: str, at_ms: int) -> int:
        """Unrealised profit or loss of an account's cross positions."""
        return sum(
            item.profit(self.rules[item.pair], self._path.price(item.pair, at_ms))
            for item in self.held(account)
            if not item.isolated and self.rules[item.pair].quote == quote
        )

    def group(self, position: Position) -> list[Position]:
        """The positions that share a wallet with this one, itself included."""
        if position.isolated:
            return [position]
        return [item for item in self.held(position.account) if not item.isolated]

    def next_ms(self, after_ms: int, until_ms: int) -> int | None:
        """The next funding or liquidation in [after_ms, until_ms]."""
        due = [at for at in (self._next_funding(after_ms, until_ms),) if at is not None]
        due += [at for group in self._groups() if (at := self._ruin(group, after_ms, until_ms)) is not None]
        if not due:
            self._settled_ms = max(self._settled_ms, until_ms)
        return min(due, default=None)

    def happen(self, at_ms: int, engine: Engine) -> None:
        """Pay the funding that is due, then liquidate who cannot carry his positions."""
        if self._next_funding(at_ms, at_ms) == at_ms:
            for position in self.held():
                rate = self._rate(position.pair, at_ms)
                if rate is not None:
                    self.fund(position, self._path.price(position.pair, at_ms), rate, at_ms)
            self._settled_ms = at_ms
        for group in list(self._groups()):
            if self._fails(group, at_ms):
                self._liquidate(group, at_ms, engine)

    def _groups(self) -> Iterator[list[Position]]:
        seen: set[str] = set()
        for position in self.held():
            if position.isolated:
                yield [position]
            elif position.account not in seen:
                seen.add(position.account)
                yield self.group(position)

    def _liquidate(self, group: list[Position], at_ms: int, engine: Engine) -> None:
        for position in group:
            engine.expire(position.pair, at_ms, position.account)
        if not self._fails(group, at_ms):
            return  # what its orders had set aside was enough
        for position in group:
            notional = position.notional(self.rules[position.pair], self._path.price(position.pair, at_ms))
            request = OrderRequest(
                position.account,
                position.pair,
                "SELL" if position.lots > 0 else "BUY",
                Kind.MARKET,
                abs(position.lots),
                reduce_only=True,
                client_id=f"{AUTOCLOSE}{at_ms}",
            )
            before, margin = (
                self.ledger.balance(position.account, self.rules[position.pair].quote).total,
                position.margin,
            )
            engine.force(request, at_ms)
            spent = before - self.ledger.balance(position.account, self.rules[position.pair].quote).total
            fee = notional * LIQUIDATION_PPM // PPM
            # an isolated position never costs more than its margin
            self.penalise(position, min(fee, max(0, margin - spent)) if position.isolated else fee, at_ms)

    def _fails(self, group: list[Position], at_ms: int) -> bool:
        marks = {item.pair: self._path.price(item.pair, at_ms) for item in group}
        return ruined(self.wallet(group[0]), group, self.rules, marks)

    def _ruin(self, group: list[Position], after_ms: int, until_ms: int) -> int | None:
        """First time in [after_ms, until_ms] at which a group is ruined; between two knots prices run straight."""
        if self._fails(group, after_ms):
            return after_ms
        good = after_ms
        for knot in self._path.knots(after_ms, until_ms):
            if not self._fails(group, knot):
                good = knot
                continue
            bad = knot
            while bad - good > 1:
                middle = (good + bad) // 2
                good, bad = (good, middle) if self._fails(group, middle) else (middle, bad)
            return bad
        return None

    def _next_funding(self, after_ms: int, until_ms: int) -> int | None:
        begin = max(after_ms, self._settled_ms + 1)
        times = []
        for pair in {item.pair for item in self.held()}:
            table = self._market.funding[pair].time_ms
            row = int(table.searchsorted(begin, side="left"))
            if row < len(table) and table[row] <= until_ms:
                times.append(int(table[row]))
        return min(times, default=None)

    def _rate(self, pair: str, at_ms: int) -> int | None:
        """The rate due at exactly this time, in 10^-8; None when none is."""
        table = self._market.funding[pair]
        row = int(table.time_ms.searchsorted(at_ms))
        return (
            round(float(table.rate[row]) * 10**8) if row < len(table.time_ms) and table.time_ms[row] == at_ms else None
        )
