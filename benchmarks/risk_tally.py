"""What an honest book-keeper would write beside the risk manager, to hold its approvals to every limit."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trading.events import AccountReport
from trading.limits import DAY_MS, RiskLimits
from trading.market import MarketRisk
from trading.orders import Approved, OrderIntent

SLACK = 1 + 1e-7
MONEY = 10_000.0
PRICES = {"BTC/USDT": 50_000.0, "ETH/USDT": 2_000.0, "SOL/USDT": 100.0, "XRP/USDT": 0.5, "DOGE/USDT": 0.1}


def pairs_of(items: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every two of them."""
    for number, one in enumerate(items):
        for other in items[number + 1 :]:
            yield one, other


@dataclass
class Account:
    """What is on an account, and what its last believed report said."""

    cash: float = MONEY
    held: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    epoch: int = 0
    report: AccountReport | None = None
    peak: float = 0.0
    day: int = -1
    day_start: float = 0.0
    start: float = 0.0
    losses: int = 0
    mismatches: int = 0
    anew: bool = False
    later: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Entries that no report shows yet: reservation -> pair, signed worth."""
    open_keys: set[str] = field(default_factory=set)


class Tally:
    """The whole account-keeping; `violations` says in words what an approval breaks."""

    def __init__(self, limits: RiskLimits) -> None:
        self.limits, self.market = limits, MarketRisk()
        self.prices = dict(PRICES)
        self.accounts = {name: Account() for name in limits.accounts}
        self.waiting: dict[str, tuple[OrderIntent, Approved]] = {}
        self.entries: list[tuple[int, str, str]] = []
        self.ids: dict[str, int] = {}
        self.last_approved = ""
        self.locked = ""
        self.peak_total = 0.0

    def move(self, factors: Mapping[str, float]) -> None:
        """Prices change."""
        for pair, factor in factors.items():
            # kept in a band, so that a long walk stays a market
            self.prices[pair] = min(max(self.prices[pair] * factor, PRICES[pair] / 5), PRICES[pair] * 5)

    def worth(self, name: str) -> tuple[float, float]:
        """Equity and free money now; a ruined account is filled up by its owner."""
        account = self.accounts[name]
        equity = account.cash + sum(amount * self.prices[pair] for pair, amount in account.held.items())
        if equity < MONEY / 2 and not account.open_keys:
            account.cash += MONEY - equity
            equity = MONEY
        return max(0.0, equity), max(0.0, min(account.cash, equity))

    def known_price(self, name: str, pair: str) -> float:
        """The price that the account reported last."""
        report = self.accounts[name].report
        return self.prices[pair] if report is None else report.marks[pair]

    def reported(self, report: AccountReport) -> None:
        """A report was believed: the breakers look at it."""
        account = self.accounts[report.account]
        day, before = report.as_of_ms // DAY_MS, account.report
        if before is None:
            account.start = account.peak = account.day_start = report.equity
            self.peak_total += report.equity
        elif account.anew:  # counted from this report on, whatever happened since the one before
            account.start = account.peak = account.day_start = report.equity
            self.peak_total += report.equity - before.equity
        elif day != account.day:
            account.day_start = before.equity
        account.report, account.day, account.anew = report, day, False
        account.peak = max(account.peak, report.equity)
        account.mismatches = account.mismatches + 1 if report.mismatch else 0
        account.later = {key: value for key, value in account.later.items() if key in account.open_keys}
        self.peak_total = max(self.peak_total, self.total())
        self._trip(account)
        if report.stopped:
            self.locked = "a bot stopped by itself"

    def total(self) -> float:
        """Equity of all accounts, as reported."""
        return sum(account.report.equity for account in self.accounts.values() if account.report is not None)

    def filled(self, name: str, profit: float) -> None:
        """A closed trade; the manager counts them from an account's first report on."""
        account = self.accounts[name]
        if account.report is None:
            return
        account.losses = account.losses + 1 if profit < 0 else 0
        self._trip(account)

    def resumed(self, rebase: bool) -> None:
        """A person lifts it."""
        self.locked = ""
        if rebase:
            for account in self.accounts.values():
                equity = 0.0 if account.report is None else account.report.equity
                account.peak = account.day_start = account.start = equity
                account.losses, account.anew = 0, account.report is not None
            self.peak_total = self.total()

    def approved(self, intent: OrderIntent, decision: Approved, now_ms: int) -> None:
        """Take an approval into the tally."""
        account = self.accounts[intent.account]
        sign = 1.0 if intent.side == "buy" else -1.0
        account.later[decision.reservation_id] = (intent.pair, sign * decision.amount * decision.price)
        account.open_keys.add(decision.reservation_id)
        self.waiting[decision.reservation_id] = (intent, decision)
        self.entries.append((now_ms, intent.account, intent.pair))
        self.ids[intent.intent_id] = now_ms
        self.last_approved = intent.intent_id

    def settled(self, key: str, amount: float, price: float) -> None:
        """What became of it."""
        intent, _ = self.waiting.pop(key)
        account = self.accounts[intent.account]
        sign = 1.0 if intent.side == "buy" else -1.0
        account.open_keys.discard(key)
        account.later[key] = (intent.pair, sign * amount * price)
        account.held[intent.pair] += sign * amount
        account.cash -= sign * amount * price

    def closed(self, name: str, pair: str) -> None:
        """A position is gone."""
        account = self.accounts[name]
        account.cash += account.held[pair] * self.prices[pair]
        account.held[pair] = 0.0

    def violations(self, intent: OrderIntent, decision: Approved, now_ms: int) -> Iterator[str]:
        """What this approval breaks, before it is taken in."""
        limits, account = self.limits, self.accounts[intent.account]
        report, worth = account.report, decision.amount * decision.price
        if report is None:
            yield "approved without a report"
            return
        sane = all(map(math.isfinite, (decision.amount, decision.price))) and 0 < decision.amount <= intent.amount
        forecast, stop = intent.forecast, intent.stop_price
        yes_or_no = {
            "numbers": sane and stop is not None and 0 < stop < math.inf,
            "locked": not self.locked,
            "epoch": intent.lease_epoch == account.epoch,
            "again": self.ids.get(intent.intent_id, 0) <= now_ms - DAY_MS,  # remembered for a day
            "unsettled": not any(
                (other.account, other.pair) == (intent.account, intent.pair) for other, _ in self.waiting.values()
            ),
            "short": intent.side == "buy" or limits.accounts[intent.account] in limits.short_venues,
            "stop side": stop is not None and (stop < intent.price) == (intent.side == "buy"),
            "bare": all(position.stop for position in report.positions),
            "mismatch": not report.mismatch,
            "forecast": forecast is None
            or (forecast.status == "champion" and forecast.edge >= limits.min_edge and forecast.sigma > 0),
            "rule bot": forecast is not None or intent.bot in limits.rule_bots,
        }
        yield from (f"{name} is wrong" for name, fine in yes_or_no.items() if not fine)
        for name, (used, limit) in self._numbers(intent, report, worth, now_ms).items():
            if not used <= limit * SLACK:
                yield f"{name}: {used} exceeds {limit}"

    def _numbers(
        self, intent: OrderIntent, report: AccountReport, worth: float, now_ms: int
    ) -> dict[str, tuple[float, float]]:
        limits, equity, forecast = self.limits, report.equity, intent.forecast
        sign = 1.0 if intent.side == "buy" else -1.0
        mine, everybody = self._exposures(intent.account), self._exposures()
        asset = intent.pair.partition("/")[0]
        stop = abs(intent.price - (intent.stop_price or math.inf)) / intent.price
        whole_equity = self.total()
        signed = sum(value for _, value in everybody)
        net = abs(signed + sign * worth)
        hour = [(name, pair) for at, name, pair in self.entries if at > now_ms - 3_600_000]
        account = self.accounts[intent.account]
        reserved = sum(abs(value) for _, value in account.later.values())
        return {
            "report age": (now_ms - report.as_of_ms, limits.max_report_age_ms),
            "candle age": (now_ms - intent.candle_ms - intent.timeframe_ms, limits.max_data_age_ms),
            "forecast age": (
                0 if forecast is None else now_ms - forecast.as_of_ms - intent.timeframe_ms, limits.max_forecast_age_ms,
            ),
            "skew": (abs(now_ms - intent.created_ms), limits.max_clock_skew_ms),
            "collar": (abs(intent.price / report.marks[intent.pair] - 1), limits.price_collar),
            "stop distance": (stop, limits.max_stop_distance),
            "largest order": (worth, limits.max_notional),
            "smallest order": (limits.min_notional, worth),
            "free money": (reserved + worth, report.free),
            "trade risk": (worth * stop, limits.max_trade_risk * equity),
            "trade sigma": (0.0 if forecast is None else worth * forecast.sigma, limits.max_trade_sigma * equity),
            "position": (
                sum(abs(value) for pair, value in mine if pair == intent.pair) + worth, limits.max_position * equity,
            ),
            "asset": (
                sum(abs(value) for pair, value in everybody if pair.partition("/")[0] == asset) + worth,
                limits.max_asset * whole_equity,
            ),
            "gross": (sum(abs(value) for _, value in mine) + worth, limits.max_gross * equity),
            "net": (net if net > abs(signed) else 0.0, limits.max_net * whole_equity),
            "leverage": (sum(abs(value) for _, value in everybody) + worth, limits.max_leverage * whole_equity),
            "correlated": (self._spread(mine, asset, sign * worth, now_ms, False), limits.max_correlated * equity),
            "shortfall": (
                2.8239 * self._spread(mine, asset, sign * worth, now_ms, True), limits.max_shortfall * equity,
            ),
            "open": (len({pair for pair, value in mine if value} | {intent.pair}), limits.max_open_positions),
            "entries": (sum(name == intent.account for name, _ in hour) + 1, limits.max_entries),
            "pair entries": (hour.count((intent.account, intent.pair)) + 1, limits.max_pair_entries),
            "errors": (report.error_rate, limits.max_error_rate),
            "drawdown": (1 - equity / account.peak, limits.max_drawdown),
            "daily loss": (1 - equity / account.day_start, limits.max_daily_loss),
            "losses": (account.losses, limits.max_losing_streak),
            "portfolio": (1 - whole_equity / self.peak_total, limits.portfolio_stop),
        }  # fmt: skip

    def _exposures(self, name: str | None = None) -> list[tuple[str, float]]:
        """Signed worths by pair: as last reported, and everything since."""
        found = []
        for each, account in self.accounts.items():
            if name not in (None, each):
                continue
            for position in account.report.positions if account.report is not None else ():
                found.append((position.pair, position.amount * position.mark * (1 if position.side == "long" else -1)))
            found += account.later.values()
        return found

    def _spread(self, mine: list[tuple[str, float]], asset: str, added: float, now_ms: int, moves: bool) -> float:
        """sqrt(w' C w) as a matrix product, in money or (moves) in money a day."""
        held: dict[str, float] = defaultdict(float)
        for pair, value in mine:
            held[pair.partition("/")[0]] += value
        before = held[asset]
        held[asset] = before + added if before * added >= 0 else math.copysign(abs(before) + abs(added), added)
        fresh = abs(now_ms - self.market.as_of_ms) <= self.limits.max_market_age_ms
        names = sorted(held)
        weights = np.array([held[each] for each in names])
        if moves:
            usual = self.limits.daily_sigma
            weights *= [self.market.sigma.get(each, usual) if fresh else usual for each in names]
        matrix = np.eye(len(names))
        for row, column in pairs_of(range(len(names))):  # type: ignore[arg-type]
            bounds = self.market.correlation.get(f"{names[row]}|{names[column]}") if fresh else None
            same = weights[row] * weights[column] > 0
            if bounds is None:
                value = self.limits.correlation if same else 0.0
            else:
                value = bounds[1] if same else max(0.0, bounds[0])
            matrix[row, column] = matrix[column, row] = value
        return math.sqrt(max(0.0, float(weights @ matrix @ weights)))

    def _trip(self, account: Account) -> None:
        limits, report = self.limits, account.report
        assert report is not None  # breakers look at reported accounts only
        slack = 1e-12
        starts = sum(each.start for each in self.accounts.values())
        trips = {
            "drawdown": 1 - report.equity / account.peak > limits.max_drawdown + slack,
            "daily loss": 1 - report.equity / account.day_start > limits.max_daily_loss + slack,
            "losing streak": account.losses > limits.max_losing_streak,
            "mismatch": account.mismatches > limits.max_mismatches,
            "portfolio stop": 1 - self.total() / self.peak_total > limits.portfolio_stop + slack,
            "portfolio take": self.total() / starts - 1 > limits.portfolio_take + slack,
        }
        for name, tripped in trips.items():
            if tripped:
                self.locked = name
