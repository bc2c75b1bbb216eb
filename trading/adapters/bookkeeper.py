"""Keeps a bot's books honest: its lease, its reports to the risk manager, fills into the journal, lost orders found.

Freqtrade's own database is one book, the journal another, the exchange's the third. After every loop they are brought
together; what cannot be told now (the risk manager is away) is told after a later loop.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from freqtrade.persistence import Order, Trade
from sqlalchemy import select

from observability.errors import LeaseError, MtstError
from observability.files import write_whole
from observability.logging import get_logger
from observability.metrics import Meters
from trading.adapters import holdings
from trading.adapters.bot_spec import DIRECTIVE, BotSpec
from trading.adapters.call_record import CallRecord
from trading.adapters.gate import OrderGate
from trading.adapters.marks import Marks
from trading.adapters.order_lookup import outcome_of
from trading.adapters.orphans import clear_orphans
from trading.adapters.remainders import let_go
from trading.adapters.risk_port import RiskPort
from trading.book import Reservation
from trading.directive import Directive
from trading.events import AccountReport, Fill
from trading.lease import Lease

log = get_logger(__name__)

ARRIVAL_MS = 60_000  # an order that the exchange does not know after this time can no longer arrive (recvWindow)
RECOVERED = "recovered"


class Bookkeeper:
    """The books of one bot.

    Args:
        spec: the bot.
        risk: the risk manager.
        meters: where the bot's figures go.
        born_ms: when this process of the bot began, by the wall's clock.
    """

    def __init__(self, spec: BotSpec, risk: RiskPort, meters: Meters | None = None, born_ms: int = 0) -> None:
        self.spec, self.risk, self.meters, self._born_ms = spec, risk, meters, born_ms
        self.lease: Lease | None = None
        self.calls = CallRecord()
        self.strangers: dict[str, str] = {}
        """Resting orders on the account that nobody here made, and their pairs."""
        self.stopped = ""
        """Why the bot closes everything by itself, since the risk manager was away; until that has heard of it."""
        self._kept_file = Path(spec.folder) / DIRECTIVE
        self.directive: Directive | None = None
        self._take_up()
        self.equity: float | None = None
        """Worth of the account in this loop, in stake currency; None while it is not known."""
        self.marks: Mapping[str, float] = {}
        """The prices by which the account was valued last."""
        self._marks = Marks()
        self._told_file = Path(spec.folder) / "fills-told.json"
        self._told: dict[str, float] = _read(self._told_file)

    def epoch(self) -> int | None:
        """Epoch of the lease held now."""
        return None if self.lease is None else self.lease.epoch

    def hold_lease(self) -> None:
        """Renew the account's lease, or get it anew; without it no entry is possible, everything else is."""
        account, name = self.spec.account, self.spec.name
        try:
            if self.lease is not None:
                with suppress(LeaseError):
                    self.lease = self.risk.renew_lease(account, name, self.lease.epoch)
                    return
            self.lease = None
            self.lease = self.risk.acquire_lease(account, name, self._born_ms)
        except MtstError as error:
            self.lease = None
            log.warning("no_lease", bot=name, account=account, error=str(error))

    def release_lease(self) -> None:
        """Give the account free at an orderly stop."""
        if self.lease is not None:
            with suppress(MtstError):
                self.risk.release_lease(self.spec.account, self.spec.name, self.lease.epoch)
            self.lease = None

    def report(self, bot: Any, marks: Mapping[str, float]) -> None:
        """Tell the risk manager what the account holds, at `marks` (newest closes), and take its directive.

        An account whose worth is not known is not reported: nothing may halt or sell because of a number that is
        wrong, and its last report soon is too old for an entry. The directive comes all the same.

        While the risk manager is away the last directive's bounds count: an account beyond its share of the portfolio's
        stop or target closes everything by itself, and goes on doing so until the risk manager has heard of it.
        """
        self.equity = None
        bot.wallets.update()
        marks = self.marks = self._marks.believed(bot, marks)
        self.equity = holdings.equity(bot, marks)
        try:
            if self.lease is not None:
                self._tell(bot, marks, self.equity)
                self._keep()
                return
        except LeaseError as error:
            self.lease = None
            log.warning("lease_lost", bot=self.spec.name, error=str(error))
        except MtstError as error:
            log.warning("not_reported", bot=self.spec.name, error=str(error))
        if self.directive is not None and not self.stopped and self.equity is not None:
            self.stopped = self.directive.beyond(self.equity)
            if self.stopped:
                log.error("closing_by_itself", bot=self.spec.name, reason=self.stopped)
                self._keep()

    def _tell(self, bot: Any, marks: Mapping[str, float], equity: float | None) -> None:
        if equity is None:
            log.warning("equity_unknown", bot=self.spec.name, without_price=holdings.unmarked(bot, marks))
            self.directive = self.risk.directive(self.spec.account)
        else:
            self.directive, self.stopped = self.risk.report(self._report(bot, marks, equity)), ""

    def _keep(self) -> None:
        """For the next process, should this one die while the risk manager is away."""
        if self.directive is not None:
            write_whole(self._kept_file, json.dumps({"directive": self.directive.to_dict(), "stopped": self.stopped}))

    def _take_up(self) -> None:
        try:
            kept = json.loads(self._kept_file.read_text())
            self.directive, self.stopped = Directive.from_dict(kept["directive"]), str(kept["stopped"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, MtstError) as error:
            log.warning("directive_unreadable", file=str(self._kept_file), error=str(error))  # the next one replaces it

    def settle_outstanding(self, bot: Any, gate: OrderGate) -> None:
        """Find out what became of every reservation without outcome; orders that the database lacks are adopted."""
        try:
            held = {item.reservation_id: item for item in self.risk.reservations(self.spec.account)}
        except MtstError as error:
            log.warning("reservations_unknown", bot=self.spec.name, error=str(error))
            return
        for gone in set(gate.approvals.outstanding) - set(held):
            gate.approvals.outstanding.pop(gone)
        for reservation in held.values():
            try:
                self._settle(bot, gate, reservation)
            except MtstError as error:
                log.warning("still_unsettled", reservation=reservation.reservation_id, error=str(error))

    def settle_booked(self, gate: OrderGate) -> None:
        """Settle what the database has and knows to be closed; call only when it has committed."""
        for key in list(gate.approvals.outstanding):
            self._settled_from_database(gate, key)

    def reconcile(self, bot: Any, gate: OrderGate) -> None:
        """Where orders may have got lost: take back those that only the exchange knows, and note a stranger's.

        Raises:
            ExchangeError: it cannot be asked; asked again in the next loop.
        """
        if bot.config["dry_run"] or not (gate.orphans_likely or self.strangers):
            return
        pairs = {*self.spec.pairs, *(trade.pair for trade in Trade.get_open_trades())}
        self.strangers = clear_orphans(bot.exchange, sorted(pairs))
        gate.orphans_likely = False

    def protect(self, bot: Any) -> None:
        """Have a stop rest on the exchange for every position that has none, also for one bought a moment ago.

        A position that is too small for any order cannot have one; it is let go.
        """
        if not bot.strategy.order_types.get("stoploss_on_exchange"):
            return
        for trade in Trade.get_open_trades():
            if trade.has_open_position and not trade.has_open_orders and not trade.has_open_sl_orders:
                with bot._exit_lock:
                    bot.handle_stoploss_on_exchange(trade)
        Trade.commit()
        let_go(bot.exchange, self.marks)

    def tell_fills(self) -> None:
        """Journal what every order of the database has filled so far, unless it was told before."""
        filled = Order.session.execute(select(Order.id, Order.order_id, Order.filled).where(Order.filled > 0))
        # whole orders only where there is news: in a long life most were told long ago
        news = [row for row, order_id, amount in filled if self._told.get(order_id) != amount]
        for order in Order.session.scalars(select(Order).where(Order.id.in_(news)).order_by(Order.id)) if news else ():
            try:
                self.risk.record_fill(self._fill(order))
            except MtstError as error:
                log.warning("fill_not_told", order=order.order_id, error=str(error))
                return
            self._told[order.order_id] = order.safe_filled
            write_whole(self._told_file, json.dumps(self._told))

    def _settle(self, bot: Any, gate: OrderGate, reservation: Reservation) -> None:
        key, age_ms = reservation.reservation_id, int(time.time() * 1000) - reservation.created_ms
        if self._settled_from_database(gate, key):
            return
        order = self._find(bot, gate, reservation)
        if order is None:
            if age_ms > ARRIVAL_MS or bot.config["dry_run"]:
                gate.approvals.settle(key, None)
            return
        known = Order.order_by_id(str(order["id"]), reservation.pair)
        if known is None and (order["status"] == "open" or float(order.get("filled") or 0.0) > 0):
            self._adopt(bot, gate, reservation, order)
        gate.approvals.outstanding[key] = str(order["id"])
        gate.approvals.settle(key, order)

    def _settled_from_database(self, gate: OrderGate, key: str) -> bool:
        booked = _booked(gate.approvals.outstanding.get(key))
        if booked is None or booked.ft_is_open:
            return False
        gate.approvals.settle(key, dict(booked.to_ccxt_object()))
        return True

    def _find(self, bot: Any, gate: OrderGate, reservation: Reservation) -> dict[str, Any] | None:
        if not bot.config["dry_run"]:
            return gate.lookup.ask(reservation.reservation_id, reservation.pair)
        # A dry run's orders exist in the database only, and are never lost on the way.
        known = _booked(gate.approvals.outstanding.get(reservation.reservation_id))
        return None if known is None else dict(known.to_ccxt_object())

    def _adopt(self, bot: Any, gate: OrderGate, reservation: Reservation, order: dict[str, Any]) -> None:
        """Let Freqtrade book an order that only the exchange knows (killed between order and commit)."""
        price = float(order.get("average") or order.get("price") or reservation.price)
        stake = float(order["amount"]) * price
        trade = next(iter(Trade.get_trades_proxy(pair=reservation.pair, is_open=True)), None)
        ask_stake = bot.get_valid_enter_price_and_stake
        bot.strategy.adopting = True
        # The money is spent already, so the checks on what is still available do not apply.
        bot.get_valid_enter_price_and_stake = lambda *_args, **_kwargs: (price, stake, 1.0)
        try:
            with gate.adopting(order):
                bot.execute_entry(
                    reservation.pair,
                    stake,
                    price=price,
                    ordertype=order.get("type") or "limit",
                    enter_tag=RECOVERED,
                    is_short=reservation.side == "sell",
                    trade=trade,
                    mode="initial" if trade is None else "pos_adjust",
                )
        finally:
            bot.strategy.adopting = False
            bot.get_valid_enter_price_and_stake = ask_stake
        log.warning("order_adopted", bot=self.spec.name, pair=reservation.pair, order=order["id"])

    def _report(self, bot: Any, marks: Mapping[str, float], equity: float) -> AccountReport:
        problems = holdings.differences(bot, marks)
        problems += [f"{pair}: order {order_id} is not ours" for order_id, pair in self.strangers.items()]
        return AccountReport(
            account=self.spec.account,
            bot=self.spec.name,
            lease_epoch=self.lease.epoch if self.lease else 0,
            as_of_ms=int(time.time() * 1000),
            equity=equity,
            free=bot.wallets.get_free(self.spec.stake_currency),
            positions=holdings.positions(bot, marks),
            marks=dict(marks),
            mismatch=bool(problems),
            mismatch_text="; ".join(problems),
            open_orders=holdings.resting(),
            error_rate=self.calls.error_rate,
            stopped=self.stopped,
        )

    def _fill(self, order: Any) -> Fill:
        trade = order.trade
        _, filled, price = outcome_of({**order.to_ccxt_object(), "filled": order.safe_filled, "cost": order.cost})
        closes = trade is not None and not trade.is_open and order.ft_order_side != trade.entry_side
        last = closes and order.order_id == trade.orders[-1].order_id
        when = order.order_filled_utc or order.order_date_utc
        entry = trade is not None and order.ft_order_side == trade.entry_side
        rate = 0.0 if trade is None else trade.fee_open if entry else trade.fee_close
        return Fill(
            account=self.spec.account,
            bot=self.spec.name,
            order_id=order.order_id,
            pair=order.ft_pair,
            side="buy" if order.side == "buy" else "sell",
            amount=filled,
            price=price,
            at_ms=int(when.timestamp() * 1000),
            fee=filled * price * (rate or 0.0),
            profit=trade.realized_profit if last else None,
        )


def _booked(order_id: str | None) -> Any:
    """The database's own record of an order, None when it has none."""
    return Order.order_by_id(order_id) if order_id else None


def _read(path: Path) -> dict[str, float]:
    try:
        return {str(key): float(value) for key, value in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError) as error:
        log.warning("told_fills_unreadable", file=str(path), error=str(error))  # they are told again, which is harmless
        return {}
