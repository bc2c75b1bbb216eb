"""Failures on order: of requests, of what the exchange shows, and of the exchange itself.

Every fault is planned over the control API, begins `after_ms` of virtual time later, and ends after `count` uses or
`for_ms` of virtual time, whichever comes first; 0 means that this does not end it. `DELETE /sandbox/faults` ends all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class Lasting(BaseModel):
    """When a fault begins and how long it lasts; by `name`, if it has one, it is counted and can be taken back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("", max_length=64)
    count: int = Field(0, ge=0)
    after_ms: int = Field(0, ge=0)
    for_ms: int = Field(0, ge=0)


class RequestFault(Lasting):
    """Requests fail.

    Attributes:
        kind: `error` refuses; `timeout_before` and `drop_before` execute nothing, `timeout_after`, `drop_after` and
            `garble` execute and then lose the answer: they hang and answer 504, cut the connection, or send half of
            the answer with rubbish behind it. `disconnect` is `drop_before` for everybody, WebSockets included.
        method: HTTP method that it meets; empty for any.
        path: prefix of the request's path.
        account: only requests that this account's key is on; empty for any.
        params: parameters that the request must have, each by the beginning of its value ({"type": "STOP"}).
        hold_s: how long a timeout hangs before it answers 504 with -1007, in real seconds.
        status: HTTP status of an `error`, with Binance's `code` and `message`.
        retry_after_s: `Retry-After` header of an `error`; 0 sends none, except 1 with a 429 or 418.
        then: faults that are planned when this one is met: an order not found after its cancellation was refused.
    """

    kind: Literal["error", "timeout_before", "timeout_after", "drop_before", "drop_after", "garble", "disconnect"]
    count: int = Field(1, ge=0)
    method: str = ""
    path: str = "/"
    account: str = ""
    params: dict[str, str] = {}
    hold_s: float = Field(0.0, ge=0, le=600)
    status: int = Field(503, ge=400, le=599)
    code: int = -1000
    message: str = "An unknown error occurred while processing the request."
    retry_after_s: int = Field(0, ge=0)
    then: tuple[RequestFault, ...] = ()

    @property
    def executes(self) -> bool:
        """Whether the request is carried out before it fails."""
        return self.kind in ("timeout_after", "drop_after", "garble")

    def meets(self, method: str, path: str, account: str, params: Mapping[str, str]) -> bool:
        """Whether a request is one of those that fail."""
        if self.kind == "disconnect":
            return True
        return (
            self.method in ("", method)
            and path.startswith(self.path)
            and self.account in ("", account)
            and all(params.get(name, "").startswith(start) for name, start in self.params.items())
        )


Garbage = Literal["missing", "duplicate", "disorder", "nan", "zero", "negative", "crossed", "spike", "future"]


class PairFault(Lasting):
    """A fault of some pairs: BASE/QUOTE lies on spot and on its perpetual, BASE/QUOTE:QUOTE on the perpetual alone."""

    pairs: tuple[str, ...] = ()

    def lies_on(self, pair: str) -> bool:
        """Whether a pair, or a perpetual by its name in ccxt, is one of them; without any, all are."""
        return not self.pairs or not {pair, pair.partition(":")[0]}.isdisjoint(self.pairs)


class FeedFault(PairFault):
    """What the exchange shows of its market is wrong; what it trades at is not.

    Attributes:
        kind: `frozen_feed` shows candles, tickers and books of the moment at which it was planned; `stale_candles`
            candles of `lag_ms` ago; `revised_candles` wrong closes and volumes of candles younger than `lag_ms`, which
            are right later; `garbage_candles` a candle that cannot be, as `how` says.
        row: which candle of an answer is garbage; negative counts from the newest.
    """

    kind: Literal["frozen_feed", "stale_candles", "revised_candles", "garbage_candles"]
    lag_ms: int = Field(3_600_000, ge=0)
    how: Garbage = "nan"
    row: int = -2


class VenueFault(PairFault):
    """The exchange itself is in disorder.

    Attributes:
        kind: `clock_skew` shifts its clock by `skew_ms`; `delisting` ends trading of `pairs`; `partial_fills` lets
            orders fill in parts of at most `max_fill` quote units, one every `refill_ms`.
    """

    kind: Literal["clock_skew", "delisting", "partial_fills"]
    skew_ms: int = 0
    max_fill: float = Field(50.0, gt=0)
    refill_ms: int = Field(60_000, ge=1)


Fault = Annotated[RequestFault | FeedFault | VenueFault, Field(discriminator="kind")]
READER: TypeAdapter[RequestFault | FeedFault | VenueFault] = TypeAdapter(Fault)


@dataclass(slots=True)
class Planned:
    """A fault, when it began, and how often it has been used."""

    fault: RequestFault | FeedFault | VenueFault
    since_ms: int
    used: int = 0

    def over(self, now_ms: int) -> bool:
        """Whether it has ended."""
        count, for_ms = self.fault.count, self.fault.for_ms
        return 0 < count <= self.used or 0 < for_ms <= now_ms - self.since_ms


class Faults:
    """The planned failures, in the order in which they were planned."""

    def __init__(self) -> None:
        self._planned: list[Planned] = []
        self.struck: Counter[str] = Counter()
        """How often each named fault was met, also after its end."""

    def plan(self, fault: RequestFault | FeedFault | VenueFault, now_ms: int) -> None:
        """Add one."""
        self._planned.append(Planned(fault, now_ms + fault.after_ms))

    def clear(self, name: str = "") -> None:
        """Forget all, or those of a name."""
        self._planned = [item for item in self._planned if name and item.fault.name != name]

    def planned(self, now_ms: int) -> list[RequestFault | FeedFault | VenueFault]:
        """What is still to come, counts brought up to date."""
        return [
            item.fault.model_copy(update={"count": item.fault.count - item.used}) if item.fault.count else item.fault
            for item in self._planned
            if not item.over(now_ms)
        ]

    def take(self, method: str, path: str, account: str, params: Mapping[str, str], now_ms: int) -> RequestFault | None:
        """The failure that this request meets, counted off; None for most."""
        for item in self._present(now_ms):
            if isinstance(item.fault, RequestFault) and item.fault.meets(method, path, account, params):
                self._strike(item)
                for following in item.fault.then:
                    self.plan(following, now_ms)
                return item.fault
        return None

    def feed(self, kind: str, pair: str, now_ms: int) -> Planned | None:
        """The feed fault of this kind that lies on a pair now, counted off."""
        for item in self._present(now_ms):
            fault = item.fault
            if isinstance(fault, FeedFault) and fault.kind == kind and fault.lies_on(pair):
                self._strike(item)
                return item
        return None

    def venue(self, kind: str, pair: str, now_ms: int) -> VenueFault | None:
        """The venue fault of this kind that lies on a pair now."""
        for item in self._present(now_ms):
            fault = item.fault
            if isinstance(fault, VenueFault) and fault.kind == kind and fault.lies_on(pair):
                self._strike(item)
                return fault
        return None

    def delistings(self, pair: str) -> list[int]:
        """When a pair's trading ends or has ended, as far as it is planned."""
        return [
            item.since_ms
            for item in self._planned
            if isinstance(item.fault, VenueFault) and item.fault.kind == "delisting" and item.fault.lies_on(pair)
        ]

    def disconnected(self, now_ms: int) -> bool:
        """Whether nobody can reach the exchange now."""
        return any(item.fault.kind == "disconnect" for item in self._present(now_ms))

    def _strike(self, item: Planned) -> None:
        item.used += not isinstance(item.fault, VenueFault)  # disorder of the exchange is ended by time only
        if item.fault.name:
            self.struck[item.fault.name] += 1

    def _present(self, now_ms: int) -> Iterator[Planned]:
        self._planned = [item for item in self._planned if not item.over(now_ms)]
        return (item for item in self._planned if item.since_ms <= now_ms)
