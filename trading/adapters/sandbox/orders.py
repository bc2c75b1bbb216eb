"""Orders, fills and refusals as the matching engine knows them; prices in ticks, amounts in lots, money in units."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from observability.errors import ExchangeError

Side = Literal["BUY", "SELL"]
TimeInForce = Literal["GTC", "IOC", "FOK"]


class Kind(StrEnum):
    """Order types under Binance's names on spot; futures call some of them differently (see `futures_wire`)."""

    LIMIT = "LIMIT"
    LIMIT_MAKER = "LIMIT_MAKER"
    MARKET = "MARKET"
    STOP_LOSS = "STOP_LOSS"
    STOP_LOSS_LIMIT = "STOP_LOSS_LIMIT"
    TAKE_PROFIT = "TAKE_PROFIT"
    TAKE_PROFIT_LIMIT = "TAKE_PROFIT_LIMIT"

    @property
    def conditional(self) -> bool:
        """Whether the order sleeps until its stop price is met."""
        return self.stops or self in (Kind.TAKE_PROFIT, Kind.TAKE_PROFIT_LIMIT)

    @property
    def stops(self) -> bool:
        """Whether it is a stop-loss: its stop lies where the price would hurt."""
        return self in (Kind.STOP_LOSS, Kind.STOP_LOSS_LIMIT)

    @property
    def priceless(self) -> bool:
        """Whether it takes any price once it works."""
        return self in (Kind.MARKET, Kind.STOP_LOSS, Kind.TAKE_PROFIT)


class Status(StrEnum):
    """Binance's order states."""

    NEW = "NEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"

    @property
    def open(self) -> bool:
        """Whether the order can still fill."""
        return self in (Status.NEW, Status.PARTIALLY_FILLED)


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """What a client asks for. A market buy gives either `lots` or `quote_units` (spend that much).

    Futures only: `reduce_only` never opens or turns a position; `close_position` closes all there is when it triggers.
    """

    account: str
    pair: str
    side: Side
    kind: Kind
    lots: int = 0
    price: int = 0
    stop_price: int = 0
    quote_units: int = 0
    time_in_force: TimeInForce = "GTC"
    client_id: str = ""
    reduce_only: bool = False
    close_position: bool = False


@dataclass(slots=True)
class Order:
    """An accepted order.

    `locked` are the units still set aside for it; `eligible_ms`: earliest next fill; `triggered_ms`: when a conditional
    order began to work.
    """

    order_id: int
    request: OrderRequest
    client_id: str
    lots: int
    created_ms: int
    updated_ms: int
    status: Status = Status.NEW
    triggered_ms: int | None = None
    filled: int = 0
    cost: int = 0
    locked: int = 0
    eligible_ms: int = 0

    @property
    def remaining(self) -> int:
        """Lots not filled."""
        return self.lots - self.filled

    @property
    def sleeping(self) -> bool:
        """Whether it is a conditional order that has not met its stop."""
        return self.request.kind.conditional and self.triggered_ms is None


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution. `cost` in quote units; on spot the fee is in base on buys, else in quote.

    `realized`: profit or loss that a futures fill settled, fee not included.
    """

    fill_id: int
    order_id: int
    account: str
    pair: str
    side: Side
    price: int
    lots: int
    cost: int
    fee: int
    fee_asset: str
    maker: bool
    time_ms: int
    realized: int = 0


class RefusalError(ExchangeError):
    """The exchange refuses a request, with Binance's code and words; `data` goes along where Binance sends some."""

    def __init__(
        self, code: int, message: str, status: int = 400, *, retry_after_s: int = 0, data: dict[str, Any] | None = None
    ) -> None:
        self.code, self.message, self.status = code, message, status
        self.retry_after_s, self.data = retry_after_s, data
        super().__init__(f"{message} ({code})")
