"""What an account did, from the journal alone: equity, drawdown, exposure, trades, costs and slippage, pair by pair.

The journal of a live system, of a dry run and of a backtest hold the same events, so all three are judged by this.
Money is in quote currency, fractions are of equity, times are ms UTC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trading.events import AccountReport, Decided, Event, Fill, Reported, StateChanged
from trading.orders import Approved

APPROVED = "APPROVED"


@dataclass
class PairPerformance:
    """Sums over one pair of one account; mutable only while the journal is read.

    Attributes:
        trades, wins: closed trades, and those of them that gained after fees.
        profit: realised, net of fees. turnover: worth of all fills.
        slippage: paid on entries against the approved price; below 0 is a gain.
        exit_gap: lost on exits against the last candle's close; a stop that ran through it counts here.
    """

    trades: int = 0
    wins: int = 0
    profit: float = 0.0
    fees: float = 0.0
    turnover: float = 0.0
    slippage: float = 0.0
    exit_gap: float = 0.0


@dataclass
class AccountPerformance:
    """One account from its first report to its last.

    Attributes:
        equity: (time, worth with open positions at market) of every report; exposure: (time, fraction of equity).
        pairs: sums by pair.
    """

    account: str
    bot: str
    equity: list[tuple[int, float]] = field(default_factory=list)
    exposure: list[tuple[int, float]] = field(default_factory=list)
    pairs: dict[str, PairPerformance] = field(default_factory=dict)

    @property
    def profit_ratio(self) -> float:
        """Equity at the end against the start, as a fraction of the start."""
        start, end = self.equity[0][1], self.equity[-1][1]
        return end / start - 1.0 if start > 0 else 0.0

    @property
    def max_drawdown(self) -> float:
        """Deepest fall below the highest equity before it, open losses included."""
        return max((depth for _, depth in self.drawdown), default=0.0)

    @property
    def drawdown(self) -> list[tuple[int, float]]:
        """Depth below the highest equity so far, at every report."""
        peak, depths = 0.0, []
        for at_ms, worth in self.equity:
            peak = max(peak, worth)
            depths.append((at_ms, 1.0 - worth / peak if peak > 0 else 0.0))
        return depths

    @property
    def mean_exposure(self) -> float:
        """Mean fraction of equity in positions, over reports."""
        return sum(share for _, share in self.exposure) / len(self.exposure) if self.exposure else 0.0

    @property
    def total(self) -> PairPerformance:
        """Sums over all pairs."""
        result = PairPerformance()
        for each in self.pairs.values():
            for name, value in vars(each).items():
                setattr(result, name, getattr(result, name) + value)
        return result


@dataclass(frozen=True)
class Performance:
    """All accounts of a journal.

    Attributes:
        by_rule: how often each rule spoke, "APPROVED" included, most frequent first; by bot in `by_bot`.
        breakers: (time, state, who, reason) of every change of the trading state.
    """

    accounts: Mapping[str, AccountPerformance]
    by_rule: Mapping[str, int]
    by_bot: Mapping[str, Mapping[str, int]]
    breakers: tuple[tuple[int, str, str, str], ...]


def performance(events: Iterable[Event]) -> Performance:
    """Read a journal's events, oldest first."""
    reader = _Reader()
    for event in events:
        reader.take(event)
    return reader.result()


class _Reader:
    """Reads on; a fill told again replaces what was told of the same order before."""

    def __init__(self) -> None:
        self._accounts: dict[str, AccountPerformance] = {}
        self._marks: dict[str, Mapping[str, float]] = {}
        self._approved: dict[tuple[str, str], tuple[str, float]] = {}
        self._fills: dict[tuple[str, str], tuple[Fill, bool, float | None]] = {}
        self._rules: dict[str, Counter[str]] = {}
        self._moves: list[tuple[int, str, str, str]] = []

    def take(self, event: Event) -> None:
        match event:
            case Reported():
                self._report(event.report)
            case Decided():
                self._decided(event)
            case Fill():
                self._fill(event)
            case StateChanged():
                latch = event.latch
                self._moves.append((latch.since_ms, latch.state.value, latch.who, latch.reason))
            case _:
                pass

    def result(self) -> Performance:
        for fill, entry, reference in self._fills.values():
            _add(self._account(fill.account, fill.bot), fill, reference, entry=entry)
        total: Counter[str] = Counter()
        for counts in self._rules.values():
            total.update(counts)
        ordered = {bot: dict(counts.most_common()) for bot, counts in sorted(self._rules.items())}
        accounts = {name: each for name, each in sorted(self._accounts.items()) if each.equity}
        return Performance(accounts, dict(total.most_common()), ordered, tuple(self._moves))

    def _account(self, account: str, bot: str) -> AccountPerformance:
        return self._accounts.setdefault(account, AccountPerformance(account, bot))

    def _report(self, report: AccountReport) -> None:
        account = self._account(report.account, report.bot)
        held = sum(position.notional for position in report.positions)
        account.equity.append((report.as_of_ms, report.equity))
        account.exposure.append((report.as_of_ms, held / report.equity if report.equity > 0 else 0.0))
        self._marks[report.account] = report.marks

    def _decided(self, event: Decided) -> None:
        intent, decision = event.intent, event.decision
        if intent.action == "exit":
            return
        code = APPROVED if isinstance(decision, Approved) else str(decision.code)
        self._rules.setdefault(intent.bot, Counter())[code] += 1
        if code == APPROVED:
            self._approved[intent.account, intent.pair] = (intent.side, intent.price)

    def _fill(self, fill: Fill) -> None:
        key = (fill.account, fill.order_id)
        if key in self._fills:  # what was expected is what was known when the order first filled
            self._fills[key] = (fill, *self._fills[key][1:])
            return
        side, price = self._approved.get((fill.account, fill.pair), ("buy", None))
        entry = fill.profit is None and fill.side == side
        mark = self._marks.get(fill.account, {}).get(fill.pair)
        self._fills[key] = (fill, entry, price if entry else mark)


def _add(account: AccountPerformance, fill: Fill, reference: float | None, *, entry: bool) -> None:
    pair = account.pairs.setdefault(fill.pair, PairPerformance())
    pair.turnover += fill.cost
    pair.fees += fill.fee
    if fill.profit is not None:
        pair.trades += 1
        pair.wins += fill.profit > 0
        pair.profit += fill.profit
    if reference is not None:
        worse = (fill.price - reference) * (1.0 if fill.side == "buy" else -1.0)
        if entry:
            pair.slippage += worse * fill.amount
        else:
            pair.exit_gap += worse * fill.amount
