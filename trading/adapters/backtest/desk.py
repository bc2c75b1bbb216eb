"""What a strategy sees in a backtest: the same risk manager as live, on a simulated clock and a simulated account."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from freqtrade.persistence import LocalTrade

from mtst.forecast import Forecast
from observability.errors import ForecastError, MtstError
from observability.logging import get_logger
from trading.adapters.entry_intent import GateId, entry_intent
from trading.adapters.forecast_client import Candles
from trading.adapters.strategies.base import FailClosedStrategy
from trading.clock import FixedClock
from trading.events import AccountReport, Fill, Outcome, Position
from trading.manager import RiskManager
from trading.orders import Approved
from trading.state import Cause, TradingState

log = get_logger(__name__)

VENUE = "backtest"
PERSON = "simulated person"


class BacktestDesk:
    """Keeps the simulated account's book with a real risk manager and asks it before every entry.

    Args:
        bot: name of the bot and of its account.
        manager: the risk manager, on `clock`.
        clock: set by each candle.
        wallets: Freqtrade's simulated wallets; start: the money in them at the start.
        resume_after_ms: a person is taken to lift a breaker so long after it tripped; 0: nobody ever does.
    """

    def __init__(  # noqa: PLR0917 - made in one place
        self, bot: str, manager: RiskManager, clock: FixedClock, wallets: Any, start: float, resume_after_ms: int
    ) -> None:
        self.bot, self.manager, self.clock, self._wallets, self._start = bot, manager, clock, wallets, start
        self._resume_after_ms = resume_after_ms
        self._strategy: FailClosedStrategy | None = None
        self._marks: Mapping[str, float] = {}
        self._worth: dict[str, float] = {}  # the newest close of every pair, also of one whose candles have a gap
        self._epoch: int | None = None
        self._outstanding: dict[str, tuple[str, datetime]] = {}
        self._told: set[str] = set()
        self._past = 0  # closed trades that are told wholly
        self.refused_by_gate: dict[str, int] = {}
        self.failure: Exception | None = None

    def connect(self, strategy: FailClosedStrategy) -> None:
        """Take the strategy's side."""
        self._strategy, strategy.desk = strategy, self

    @property
    def flatten(self) -> bool:
        """Whether the risk manager wants every position closed."""
        return self.manager.directive().flatten

    @property
    def ready(self) -> bool:
        """Whether the risk manager lets anything open at all."""
        return self.manager.state().state is TradingState.ACTIVE

    def equity(self) -> float:
        """Worth of the account with open trades at the newest closes, their exit fee taken off."""
        open_worth = sum(
            trade.calc_profit(self._worth[trade.pair]) + trade.realized_profit
            for trade in LocalTrade.bt_trades_open
            if trade.has_open_position and trade.pair in self._worth
        )
        return float(self._start + LocalTrade.bt_total_profit + open_worth)

    def forecasts(self, timeframe: str, candles: Mapping[str, Candles]) -> dict[str, Forecast]:
        """Never: a backtest that asked a served model would see the future."""
        raise ForecastError("a backtest asks no served model", where=self.bot)

    def begin_loop(self, marks: Mapping[str, float]) -> None:
        """A new candle: settle and tell what the one before did, then report. The first failure ends the backtest."""
        if self.failure is not None:
            return
        try:
            self._loop(marks)
        except MtstError as error:
            self.failure = error  # Freqtrade swallows what a strategy raises here

    def finish(self) -> None:
        """Tell the last fills and report once more; raises what went wrong before."""
        if self.failure is not None:
            raise self.failure
        self._loop(self._marks)

    def ask(self, pair: str, side: str, amount: float, price: float) -> float:
        """The amount that the risk manager approves; 0 when it refuses or nobody can say."""
        assert self._strategy is not None
        try:
            facts = self._strategy.entry_facts(pair, price, side)
        except MtstError as error:
            self.refused_by_gate[type(error).__name__] = self.refused_by_gate.get(type(error).__name__, 0) + 1
            return 0.0
        who = GateId(self.bot, self.bot, VENUE, self._strategy.step_ms)
        decision = self.manager.decide(
            entry_intent(
                who, facts, pair, side, amount=amount, price=price, epoch=self._epoch or 0, now_ms=self.clock.at_ms
            )
        )
        if not isinstance(decision, Approved):
            return 0.0
        self._outstanding[decision.reservation_id] = (
            pair,
            datetime.fromtimestamp(self.clock.at_ms / 1000).astimezone(),
        )
        return decision.amount

    def _loop(self, marks: Mapping[str, float]) -> None:
        strategy = self._strategy
        assert strategy is not None
        known = [candle for pair in marks if (candle := strategy.candle(pair)) is not None]
        if not known:
            return
        self._marks, self.clock.at_ms = marks, max(known) + strategy.step_ms
        self._worth |= marks
        if self._epoch is None:
            self._epoch = self.manager.acquire_lease(self.bot, self.bot).epoch
        fresh = [*LocalTrade.bt_trades[self._past :], *LocalTrade.bt_trades_open]
        self._settle(fresh)
        self._tell_fills(fresh)
        self._past = len(LocalTrade.bt_trades)
        self.manager.report(self._report())
        self._resume()

    def _settle(self, fresh: list[LocalTrade]) -> None:
        if not self._outstanding:
            return
        trades = {(trade.pair, trade.open_date_utc): trade for trade in fresh}
        for key, (pair, at) in list(self._outstanding.items()):
            trade = trades.get((pair, at))
            outcome: Outcome = "cancelled"
            filled = price = 0.0
            if trade is not None:
                if not trade.nr_of_successful_entries:
                    continue  # its order still rests
                outcome, filled, price = "filled", trade.amount or trade.amount_requested, trade.open_rate
            self.manager.settle(key, outcome, filled, price)
            del self._outstanding[key]

    def _tell_fills(self, fresh: list[LocalTrade]) -> None:
        for trade in fresh:
            filled = [order for order in trade.orders if not order.ft_is_open and order.safe_filled > 0]
            for order in filled:
                if order.order_id in self._told:
                    continue
                entry = order.ft_order_side == trade.entry_side
                closes = not trade.is_open and order is filled[-1]
                rate = trade.fee_open if entry else trade.fee_close
                when = order.order_filled_utc or order.order_date_utc
                self.manager.record_fill(
                    Fill(
                        account=self.bot,
                        bot=self.bot,
                        order_id=order.order_id,
                        pair=trade.pair,
                        side="buy" if order.side == "buy" else "sell",
                        amount=order.safe_filled,
                        price=order.safe_price,
                        at_ms=int(when.timestamp() * 1000),
                        fee=order.safe_filled * order.safe_price * (rate or 0.0),
                        profit=trade.close_profit_abs if closes else None,
                    )
                )
                self._told.add(order.order_id)

    def _report(self) -> AccountReport:
        positions = []
        for trade in LocalTrade.bt_trades_open:
            mark = self._worth.get(trade.pair)
            if trade.has_open_position and mark is not None:
                side: Literal["long", "short"] = "short" if trade.is_short else "long"
                stop = trade.stop_loss or None
                positions.append(Position(trade.pair, side, trade.amount, trade.open_rate, mark, stop))
        free = self._wallets.get_free(self._strategy.config["stake_currency"])  # type: ignore[union-attr]
        return AccountReport(
            account=self.bot,
            bot=self.bot,
            lease_epoch=self._epoch or 0,
            as_of_ms=self.clock.at_ms,
            equity=max(0.0, self.equity()),
            free=max(0.0, free),
            positions=tuple(positions),
            marks=dict(self._marks),
        )

    def _resume(self) -> None:
        """Do what a person would: look at a tripped breaker after a while, and let trading go on."""
        latch = self.manager.state()
        tripped = latch.cause is Cause.LIMIT and latch.state is not TradingState.ACTIVE
        if tripped and self._resume_after_ms and self.clock.at_ms - latch.since_ms >= self._resume_after_ms:
            self.manager.resume(PERSON, f"after {latch.reason}", rebase=True)
