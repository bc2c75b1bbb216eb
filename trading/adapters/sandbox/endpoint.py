"""What an endpoint is: a plain function from the exchange and a call to an answer, and how calls are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trading.adapters.sandbox.orders import RefusalError
from trading.adapters.sandbox.rules import scaled
from trading.adapters.sandbox.venue import Venue


@dataclass(frozen=True)
class Call:
    """One request: its parameters, and the account whose it is (empty on public endpoints)."""

    params: Mapping[str, str]
    account: str = ""

    def text(self, name: str) -> str:
        """A mandatory parameter; raises RefusalError -1102."""
        value = self.params.get(name, "")
        if not value:
            raise RefusalError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
        return value

    def integer(self, name: str, default: int | None = None) -> int | None:
        """An optional whole number; raises RefusalError -1100."""
        value = self.params.get(name, "")
        if not value:
            return default
        try:
            return int(value)
        except ValueError:
            raise RefusalError(-1100, f"Illegal characters found in parameter '{name}'.") from None

    def limit(self, default: int, largest: int) -> int:
        """The `limit` parameter, cut to `largest`."""
        asked = self.integer("limit", default)
        return max(1, min(default if asked is None else asked, largest))

    def count(self, name: str, decimals: int, filter_name: str) -> int:
        """A decimal parameter as a count of 10^-decimals, 0 when absent; finer values fail their filter."""
        value = self.params.get(name, "")
        if not value:
            return 0
        try:
            return scaled(value, decimals)
        except ValueError:
            raise RefusalError(-1013, f"Filter failure: {filter_name}") from None


Handler = Callable[[Venue, Call], Any]


@dataclass(frozen=True)
class Endpoint:
    """An HTTP endpoint. The handler answers raw JSON bytes or something to encode; `counts`: it makes an order;
    `keyed`: it wants an API key, but no signature."""

    method: str
    path: str
    handler: Handler
    signed: bool = False
    keyed: bool = False
    weight: int = 1
    counts: bool = False

    @property
    def name(self) -> str:
        """Its name in the metrics."""
        return f"{self.method} {self.path}"
