"""A long random walk of everything that can happen to the risk manager, judged by a tally that is kept apart.

Seeded and replayable: the same seed gives the same events and the same decisions. Each event is one call: prices move,
time passes, bots report, ask, settle, lie and lose their lease, people halt and resume, limits and the estimate of the
market change, the manager restarts. The tally knows nothing of `trading.book` and `trading.measures`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, replace
from itertools import count
from random import Random

from benchmarks.figures import Figure, Figures
from benchmarks.memory_journal import MemoryJournal
from benchmarks.risk_intents import CANDLE, LIMITS, START, Intents
from benchmarks.risk_tally import Tally, pairs_of
from observability.errors import LeaseError, MtstError
from observability.progress import Progress
from trading.book import Book, apply
from trading.clock import FixedClock
from trading.events import AccountReport, Decided, Fill, Noted, Position, from_rows
from trading.limits import DAY_MS, RiskLimits
from trading.manager import RiskManager
from trading.market import MarketRisk, pair_key
from trading.orders import Approved, Refused
from trading.risk import decide
from trading.state import TradingState

WORDS = ("halt", "reduce", "flatten")


@dataclass
class WalkReport:
    """What a walk met. broken: sentences, each a way in which an answer was wrong; must be empty."""

    seed: int
    events: int
    kinds: Counter[str]
    codes: Counter[str]
    cut: int
    replayed: int
    broken: list[str]


class Walk:
    """One walk; `run` it."""

    def __init__(self, seed: int) -> None:
        self.dice, self.clock, self.journal = Random(seed), FixedClock(START), MemoryJournal()
        self.limits = LIMITS
        self.manager = RiskManager(lambda: self.journal, LIMITS, self.clock)
        self.tally = Tally(LIMITS)
        self.numbers = count(1)
        self.intents = Intents(self.dice, self.clock, self.tally, self.numbers)
        self.kinds: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.broken: list[str] = []
        self.cut = 0
        self.seed = seed

    def run(self, events: int) -> WalkReport:
        """Walk, then replay the journal and ask every question again."""
        verbs = (
            (self.ticks, 4), (self.reports, 24), (self.enters, 30), (self.settles, 16), (self.leaves, 6),
            (self.leases, 6), (self.fills, 3), (self.person, 0.25), (self.resumes, 1.5), (self.estimates, 0.3),
            (self.changes_limits, 0.1), (self.restarts, 0.02), (self.healthy_loop, 12),
        )  # fmt: skip
        names, weights = zip(*verbs, strict=True)
        while sum(self.kinds.values()) < events:
            self.clock.advance(self.dice.choice((1, 1, 7, 900, 20_000)))
            self.dice.choices(names, weights)[0]()
            if self.tally.locked and self.manager.state().state is TradingState.ACTIVE:
                self._wrong(f"active although {self.tally.locked}")
            if len(self.broken) > 20:
                break
        replayed = self._replay()
        return WalkReport(self.seed, sum(self.kinds.values()), self.kinds, self.codes, self.cut, replayed, self.broken)

    # --- what happens -----------------------------------------------------------------------------------------------

    def ticks(self) -> None:
        """Time passes and prices move, now and then violently."""
        self.kinds["tick"] += 1
        self.clock.advance(self.dice.choice((1_000, 60_000, CANDLE, CANDLE, 4 * CANDLE)))
        shared = self.dice.gauss(0, 0.004) * (8 if self.dice.random() < 0.01 else 1)
        self.tally.move({pair: math.exp(shared + self.dice.gauss(0, 0.003)) for pair in self.tally.prices})

    def leases(self) -> None:
        """The bot takes its lease, or a stranger tries to."""
        self.kinds["lease"] += 1
        name = self.intents.account()
        held = self.manager.book().leases.get(name)
        if self.dice.random() < 0.1 and held is not None and held.live(self.clock.at_ms):
            try:
                self.manager.acquire_lease(name, "stranger")
            except LeaseError:
                return
            self._wrong("a stranger got a live lease")
        lease = self.manager.acquire_lease(name, "nn")
        if lease.epoch <= self.tally.accounts[name].epoch:
            self._wrong("an epoch came back")
        self.tally.accounts[name].epoch = lease.epoch

    def reports(self, name: str = "", honest: bool = False) -> None:
        """A bot reports what it holds; sometimes with a mismatch, a bare position, errors, or garbage."""
        self.kinds["report"] += 1
        name = name or self.intents.account()
        account, luck = self.tally.accounts[name], 1.0 if honest else self.dice.random()
        held = tuple(
            Position(pair, "long" if amount > 0 else "short", abs(amount), self.tally.prices[pair],
                     self.tally.prices[pair], None if luck < 0.004 else 1e-9)
            for pair, amount in account.held.items() if amount
        )  # fmt: skip
        equity, free = self.tally.worth(name)
        if luck > 0.97 and not honest:
            free *= 0.03  # the rest lies elsewhere
        report = AccountReport(
            name, "nn", account.epoch, self.clock.at_ms, equity, free, held, dict(self.tally.prices),
            mismatch=0.004 < luck < 0.012, error_rate=0.5 if 0.012 < luck < 0.016 else 0.0,
            stopped="too low" if 0.016 < luck < 0.0162 else "",
        )  # fmt: skip
        if 0.02 < luck < 0.03:
            report = replace(report, equity=self.dice.choice((math.nan, -1.0, math.inf)))
        if 0.03 < luck < 0.04:
            report = replace(report, lease_epoch=account.epoch - 1)
        try:
            told = self.manager.report(report)
        except MtstError:
            if 0.02 < luck < 0.04 or account.epoch == 0:
                return
            raise
        if 0.02 < luck < 0.04:
            self._wrong(f"believed {report}")
        self.tally.reported(report)
        if told.floor > equity * (1 + 1e-9):
            self._wrong("a floor above the equity")

    def enters(self, name: str = "", honest: bool = False) -> None:
        """A bot asks for an entry, in one of many ways wrong or right; an approval is held to every limit."""
        self.kinds["entry"] += 1
        name = name or self.intents.account()
        intent = self.intents.intent(name)
        if not honest and self.dice.random() < 0.3:
            intent = self.intents.spoilt(intent)
        decision = self.manager.decide(intent)
        self.codes[decision.code if isinstance(decision, Refused) else "APPROVED"] += 1
        if isinstance(decision, Refused):
            return
        self.cut += decision.amount < intent.amount
        self.broken += [f"{intent} -> {text}" for text in self.tally.violations(intent, decision, self.clock.at_ms)]
        self.tally.approved(intent, decision, self.clock.at_ms)

    def healthy_loop(self) -> None:
        """What a bot does all day: lease, report, ask, settle at once."""
        name = self.intents.account()
        account = self.tally.accounts[name]
        self.kinds["lease"] += 1
        account.epoch = self.manager.acquire_lease(name, "nn").epoch
        for _ in range(3):
            self.clock.advance(1)
            self.reports(name, honest=True)
            self.clock.advance(1)
            self.enters(name, honest=True)
            self.clock.advance(1)
            self.settles(share=1.0)

    def settles(self, share: float | None = None) -> None:
        """What became of an approved entry is told, often twice."""
        if not self.tally.waiting:
            return
        self.kinds["settle"] += 1
        key = self.dice.choice(sorted(self.tally.waiting))
        share = self.dice.choice((0.0, 0.0, 0.3, 1.0)) if share is None else share
        intent, decision = self.tally.waiting[key]
        outcome = "cancelled" if share == 0 else "filled" if share == 1 else "partial"
        price = intent.price * (1 + self.dice.uniform(-0.001, 0.001))
        first = self.manager.settle(key, outcome, decision.amount * share, price)  # type: ignore[arg-type]
        if not first or self.manager.settle(key, "filled", decision.amount, price):
            self._wrong("a reservation settled twice or never")
        self.tally.settled(key, decision.amount * share, price)

    def leaves(self) -> None:
        """An exit, however wrong its numbers are and whatever is halted."""
        self.kinds["exit"] += 1
        name = self.intents.account()
        intent = replace(self.intents.spoilt(self.intents.intent(name)), action="exit", lease_epoch=-5)
        if not isinstance(self.manager.decide(intent), Approved):
            self._wrong("an exit was refused")
        self.tally.closed(name, self.dice.choice(sorted(self.tally.prices)))

    def fills(self) -> None:
        """A closed trade won or lost."""
        self.kinds["fill"] += 1
        name, profit = self.intents.account(), self.dice.choice((-1.0, -1.0, 1.0))
        fill = Fill(name, "nn", f"o{next(self.numbers)}", "BTC/USDT", "sell", 1.0, 1.0, self.clock.at_ms, profit=profit)
        for _ in range(self.dice.choice((1, 2))):
            self.manager.record_fill(fill)
        self.tally.filled(name, profit)

    def person(self) -> None:
        """Somebody halts, reduces or flattens."""
        self.kinds["person"] += 1
        word = self.dice.choice(WORDS)
        getattr(self.manager, word)("looks odd", "ann")
        self.tally.locked = word

    def resumes(self) -> None:
        """Somebody lifts what stands."""
        self.kinds["person"] += 1
        rebase = self.dice.random() < 0.8
        self.manager.resume("ann", "looked into it", rebase=rebase)
        self.tally.resumed(rebase)

    def estimates(self) -> None:
        """The market is estimated anew."""
        self.kinds["estimate"] += 1
        assets = sorted({pair.partition("/")[0] for pair in self.tally.prices})
        bounds = {}
        for pair in pairs_of(assets):
            low = self.dice.uniform(-0.3, 0.9)
            bounds[pair_key(*pair)] = (low, min(1.0, low + 0.1))
        stale = self.dice.random() < 0.2
        market = MarketRisk(
            self.clock.at_ms - (30 * DAY_MS if stale else 0),
            {asset: self.dice.uniform(0.01, 0.08) for asset in assets}, bounds, 500,
        )  # fmt: skip
        self.manager.set_market(market)
        self.tally.market = market

    def changes_limits(self) -> None:
        """A person writes other limits into the file."""
        self.kinds["limits"] += 1
        scale = self.dice.uniform(0.5, 1.5)
        self.limits = replace(
            LIMITS, max_position=LIMITS.max_position * scale, max_gross=LIMITS.max_gross * scale,
            max_entries=self.dice.choice((4, 20, 60)), min_shrink=self.dice.choice((0.1, 0.5, 1.0)),
            max_volatility_ratio=self.dice.choice((1.5, 4.0)),
        )  # fmt: skip
        self.manager.set_limits(self.limits, "walk")
        self.tally.limits = self.limits

    def restarts(self) -> None:
        """The manager dies and comes back with its journal."""
        self.kinds["restart"] += 1
        before = self.manager.book()
        if self.dice.random() < 0.5:
            self.manager.snapshot(1)
        self.manager = RiskManager(lambda: self.journal, self.limits, self.clock)
        if self.manager.book() != before:
            self._wrong("another book after a restart")

    # --- inside -----------------------------------------------------------------------------------------------------

    def _wrong(self, text: str) -> None:
        self.broken.append(text)

    def _replay(self) -> int:
        """Ask every question of the journal again, with the book and the limits of then."""
        book, limits, replayed = Book(), LIMITS, 0
        for event in from_rows(self.journal.read()):
            if isinstance(event, Decided):
                replayed += 1
                again = decide(event.intent, book, limits, FixedClock(event.at_ms))
                if again.to_dict() != event.decision.to_dict():  # as text, where NaN equals itself
                    self._wrong(f"replayed otherwise: {again} instead of {event.decision}")
            if isinstance(event, Noted) and event.kind == "limit_change":
                limits = RiskLimits.from_dict(event.payload)
            book = apply(book, event)
        if book != self.manager.book():
            self._wrong("the journal replays to another book")
        return replayed


def run(progress: Progress, *, events: int = 1_000_000, seed: int = 1, length: int = 20_000) -> Figures:
    """Walks of `length` events each, with seeds from `seed` on, until `events` were generated."""
    started, done, reports = time.perf_counter(), 0, []
    with progress.task("random walks", total=events) as task:
        while done < events:
            reports.append(Walk(seed + len(reports)).run(min(length, events - done)))
            done += reports[-1].events
            task.advance(reports[-1].events, f"seed {reports[-1].seed}")
    seconds = time.perf_counter() - started
    codes: Counter[str] = sum((report.codes for report in reports), Counter())
    broken = [f"seed {report.seed}: {text}" for report in reports for text in report.broken]
    rows = (
        Figure("events", done, "", goal=100_000, goal_of="value"),
        Figure("broken promises", len(broken), "", goal=0, at_most=True, goal_of="value", note="; ".join(broken[:2])),
        Figure("entries approved", codes["APPROVED"], "", note=f"{sum(report.cut for report in reports)} of them cut"),
        Figure("entries refused", sum(codes.values()) - codes["APPROVED"], "", note=f"by {len(codes) - 1} rules"),
        Figure("decisions replayed identically", sum(report.replayed for report in reports), ""),
        Figure("events a second", done / seconds, "1/s"),
    )
    facts = {"codes": dict(codes.most_common()), "seeds": [report.seed for report in reports], "broken": broken}
    return Figures("random walks of the risk manager", rows, "one core, pure Python", facts)
