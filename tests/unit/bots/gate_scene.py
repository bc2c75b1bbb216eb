"""A gate between a strategy's orders and an exchange that records them, with a real risk manager to ask."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ccxt

from trading.adapters.approvals import Approvals, OrderCount
from trading.adapters.entry_intent import EntryFacts, GateId
from trading.adapters.gate import OrderGate
from trading.clock import WallClock
from trading.events import AccountReport
from trading.kill_switch import KillSwitch
from trading.limits import RiskLimits
from trading.manager import RiskManager

PAIR, CANDLE_MS = "BTC/USDT", 900_000


@dataclass
class Api:
    """What ccxt would answer to a lookup by client order id."""

    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    lags: bool = False
    has: dict[str, bool] = field(default_factory=lambda: {"fetchOrders": True})

    def fetch_order(self, _order_id: None, pair: str, params: dict[str, str]) -> dict[str, Any]:
        self.asked.append(params["clientOrderId"])
        if self.lags or params["clientOrderId"] not in self.orders:
            raise ccxt.OrderNotFound(pair)
        return self.orders[params["clientOrderId"]]

    def fetch_orders(self, _pair: str) -> list[dict[str, Any]]:
        return [{**order, "clientOrderId": key} for key, order in self.orders.items()]


class RecordingExchange:
    """Stands where Freqtrade's exchange stands, and remembers every order that reached it."""

    trading_mode = "spot"

    def __init__(self) -> None:
        self._config = {"dry_run": False}
        self._api = Api()
        self.sent: list[dict[str, Any]] = []
        self.fails: Exception | None = None
        self.executes_before_failing = False
        self.garbles = False

    def _get_params(self, *_args: Any, **_kwargs: Any) -> dict[str, Any]:
        return {}

    def _get_stop_params(self, *_args: Any, **_kwargs: Any) -> dict[str, Any]:
        return {"stopPrice": 1.0}

    def create_stoploss(self, **order: Any) -> dict[str, Any]:
        params = self._get_stop_params(side=order["side"])
        self.sent.append({**order, **params})
        made = {"id": f"{len(self.sent)}", "status": "open", "filled": 0.0}
        if self.fails is None or self.executes_before_failing:
            self._api.orders[params["clientOrderId"]] = made
        if self.fails is not None:
            raise self.fails
        return made

    def _order_contracts_to_amount(self, order: dict[str, Any]) -> dict[str, Any]:
        return order

    def create_order(self, **order: Any) -> dict[str, Any]:
        params = self._get_params(order["side"], order["ordertype"], 1.0, False)
        self.sent.append({**order, **params})
        amount, price = order["amount"], order["rate"]
        made = {"id": f"{len(self.sent)}", "status": "closed", "filled": amount, "cost": amount * price, "price": price}
        if self.fails is None or self.executes_before_failing:
            self._api.orders[params["clientOrderId"]] = made
        if self.fails is not None:
            raise self.fails
        return {"id": None, "status": None} if self.garbles else made


@dataclass
class Scene:
    """A gate between a strategy's order and an exchange that records."""

    risk: RiskManager
    exchange: RecordingExchange
    epoch: int

    def gate(
        self,
        risk: Any = None,
        *,
        epoch: int | None = -1,
        facts: Callable[..., EntryFacts] | None = None,
        switch: KillSwitch | None = None,
    ) -> OrderGate:
        known = self.epoch if epoch == -1 else epoch
        who, count = GateId("swing", "a", "sandbox", CANDLE_MS), OrderCount("swing")
        asked = Approvals(
            who, risk or self.risk, facts or _facts, lambda: known, count=count, switch=switch, deadline_s=0.2
        )
        gate = OrderGate(asked, count)
        gate.stand_at(self.exchange)
        return gate

    def buy(self, **changes: Any) -> dict[str, Any]:
        order = {"pair": PAIR, "ordertype": "limit", "side": "buy", "amount": 0.01, "rate": 60_000.0, "leverage": 1.0}
        return self.exchange.create_order(**{**order, "reduceOnly": False, **changes})

    def sell(self) -> dict[str, Any]:
        return self.buy(side="sell", ordertype="market")


def _facts(_pair: str, price: float, _side: str) -> EntryFacts:
    now = int(time.time() * 1000)
    return EntryFacts(now - now % CANDLE_MS - CANDLE_MS, price * 0.98, None)


def scene_in(folder: Path) -> Scene:
    """A fresh scene whose journal lies in the folder: the lease is held, one report was made, trading is active."""
    limits = RiskLimits(accounts={"a": "sandbox"}, rule_bots=frozenset({"swing"}))
    risk = RiskManager(folder / "journal.db", limits, WallClock())
    lease = risk.acquire_lease("a", "swing")
    now = int(time.time() * 1000)
    risk.report(AccountReport("a", "swing", lease.epoch, now, 10_000.0, 10_000.0, marks={PAIR: 60_000.0}))
    return Scene(risk, RecordingExchange(), lease.epoch)
