"""Talk to a running sandbox exchange: its control API, and where ccxt must be pointed to reach it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import httpx

from observability.errors import ExchangeError

ROOMS = {
    "public": "api/v3",
    "private": "api/v3",
    "v1": "api/v1",
    "sapi": "sapi/v1",
    "sapiV2": "sapi/v2",
    "sapiV3": "sapi/v3",
    "sapiV4": "sapi/v4",
    "fapiPublic": "fapi/v1",
    "fapiPublicV2": "fapi/v2",
    "fapiPublicV3": "fapi/v3",
    "fapiPrivate": "fapi/v1",
    "fapiPrivateV2": "fapi/v2",
    "fapiPrivateV3": "fapi/v3",
    "fapiData": "futures/data",
    "dapiPublic": "dapi/v1",
    "dapiPrivate": "dapi/v1",
    "dapiPrivateV2": "dapi/v2",
    "dapiData": "futures/data",
    "eapiPublic": "eapi/v1",
    "eapiPrivate": "eapi/v1",
    "papi": "papi/v1",
    "papiV2": "papi/v2",
}
"""Path below the exchange's address of every room of ccxt.binance's `urls["api"]`."""


def ccxt_urls(base_url: str) -> dict[str, str]:
    """`urls["api"]` for ccxt.binance such that every request goes to `base_url`."""
    return {room: f"{base_url.rstrip('/')}/{path}" for room, path in ROOMS.items()}


def ccxt_streams(base_url: str) -> dict[str, Any]:
    """`urls["api"]["ws"]` for ccxt.pro.binance, likewise; Freqtrade with `enable_ws` takes it in `ccxt_config`."""
    host = base_url.rstrip("/").partition("://")[2]
    spot = dict.fromkeys(("spot", "margin"), f"ws://{host}/stream/ws")  # ccxt knows spot's candles by this word
    others = dict.fromkeys(("linear", "inverse", "stock"), f"ws://{host}/ws")
    return {**spot, **others, "ws-api": dict.fromkeys(("spot", "linear", "inverse"), f"ws://{host}/ws-api/v3")}


def recognise_errors(api: Any) -> None:
    """Let ccxt.binance tell errors of perpetuals apart as it does at Binance.

    It chooses the meanings of error codes by the address; at any other address it knows only those of all markets, and
    a refused stop would look like a failure of the exchange.
    """
    for kind, meanings in api.exceptions.get("linear", {}).items():
        api.exceptions[kind] = {**meanings, **api.exceptions[kind]}


class SandboxClient:
    """The control API. Raises ExchangeError when the exchange is away or refuses."""

    def __init__(self, url: str, timeout_s: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False)

    def close(self) -> None:
        """Drop the connections."""
        self._http.close()

    def health(self) -> dict[str, Any]:
        """Process, market, clock."""
        return self._ask("GET", "health")

    def now_ms(self) -> int:
        """Virtual time."""
        return int(self.health()["now_ms"])

    def join(self, participant: str) -> int:
        """Take part in the clock, busy for now; returns virtual time."""
        return int(self._ask("POST", "clock/join", {"participant": participant})["now_ms"])

    def sleep(self, participant: str, until_ms: int) -> int:
        """Sleep until a virtual time (or the end of the market); returns virtual time."""
        while True:
            told = self._ask("POST", "clock/sleep", {"participant": participant, "until_ms": until_ms})
            if told["now_ms"] >= until_ms or told["ended"]:
                return int(told["now_ms"])

    def leave(self, participant: str) -> int:
        """Take part no more; returns virtual time."""
        return int(self._ask("POST", "clock/leave", {"participant": participant})["now_ms"])

    def advance(self, to_ms: int) -> int:
        """Move the clock forward; returns virtual time."""
        return int(self._ask("POST", "clock/advance", {"to_ms": to_ms})["now_ms"])

    def ledger(self) -> dict[str, Any]:
        """All accounts' books, `conserved`, `problems` and the history's `digest`."""
        return self._ask("GET", "ledger")

    def faults(self) -> list[dict[str, Any]]:
        """What is still to fail."""
        return list(self._ask("GET", "faults")["faults"])

    def plan_fault(self, **fault: Any) -> None:
        """Let something fail; fields as in `trading.adapters.sandbox.faults`."""
        self._ask("POST", "faults", fault)

    def struck(self) -> dict[str, int]:
        """How often each named fault was met, also after its end."""
        return dict(self._ask("GET", "faults")["struck"])

    def clear_faults(self, name: str = "") -> None:
        """Plan no more failures, or none of this name."""
        self._ask("DELETE", f"faults?{urlencode({'name': name})}" if name else "faults")

    def _ask(self, method: str, path: str, content: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self._http.request(method, f"/sandbox/{path}", json=content)
        except httpx.HTTPError as error:
            raise ExchangeError(
                f"the sandbox exchange does not answer: {type(error).__name__}", where=self.url, todo="start it"
            ) from error
        if response.status_code != 200:
            raise ExchangeError(f"the sandbox exchange refused: {response.text[:200]}", where=f"{self.url} {path}")
        answer: dict[str, Any] = response.json()
        return answer
