"""One exchange through unmodified ccxt, read only; the sandbox is ccxt's Binance with every address replaced.

A look at every address at opening makes sure that none still leads to the real exchange. ccxt knows what each request
costs; how fast costs may be spent is asked of the machine's one budget for this exchange.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import ccxt
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from observability.errors import SourceError, UnreachableError
from observability.logging import get_logger
from pipelines.backfill import PAGE
from pipelines.candles import iso
from pipelines.rate_limit import RateLimit, shared_file

SANDBOX = "sandbox"
_TIMEOUT_S = 20.0
_ATTEMPTS = 6
_LONGEST_WAIT_S = 30.0
_LEAST_PAGE = 100
_LONGEST_BLOCK_S = 300.0
_EARLIEST_MS, _LATEST_MS = 946_684_800_000, 4_102_444_800_000  # 2000 to 2100: seconds or microseconds lie outside
_log = get_logger(__name__)


class GarbageError(Exception):
    """An answer that is not what was asked for; a proxy's error page, half an answer."""


class ExchangeSource:
    """One exchange, read only; may be used from several threads, each of which gets a client of its own.

    Args:
        name: under which its series are stored.
        connect: makes a ccxt exchange.
        limit: the budget of requests; it also ends waits when it is closed.
        wait_s: first pause between retries of a request that may succeed later; it doubles up to 30 s.
        attempts: how often such a request is made at most.
    """

    def __init__(
        self, name: str, connect: Callable[[], Any], limit: RateLimit, wait_s: float = 0.5, attempts: int = _ATTEMPTS
    ) -> None:
        self.name, self.limit = name, limit
        self._connect, self._wait_s, self._attempts = connect, wait_s, attempts
        self._own, self._lock = threading.local(), threading.Lock()
        self._first: Any = None  # the client whose markets all others share

    @property
    def client(self) -> Any:
        """This thread's ccxt exchange."""
        if not hasattr(self._own, "client"):
            client = self._connect()
            client.enableRateLimit, client.throttle = True, self._take
            client.enableLastJsonResponse = client.enableLastHttpResponse = client.enableLastResponseHeaders = True
            if self._first is not None:
                client.set_markets_from_exchange(self._first)
            self._own.client = client
        return self._own.client

    @property
    def requests(self) -> int:
        """Requests made so far."""
        return self.limit.requests

    def now_ms(self) -> int:
        """The exchange's clock: as it tells it, else by its answers' date (to the second, never ahead)."""
        if self.client.has.get("fetchTime"):
            return int(self._call(self.client.fetch_time))
        self.markets()
        date = (self.client.last_response_headers or {}).get("Date")
        return int(parsedate_to_datetime(date).timestamp() * 1000) if date else int(self.client.milliseconds())

    def markets(self) -> dict[str, Any]:
        """Unified symbols that the exchange offers."""
        with self._lock:
            if self._first is None:
                self._call(self.client.load_markets)
                self._first = self.client
        return dict(self._first.markets)

    def reach(self, kind: str, symbol: str) -> int:
        """Rows of time that one page covers for sure: behind an empty page, so far may be gone on."""
        limits = self.client.feature_value(symbol, "fetchOHLCV") or {} if kind != "funding" else {}
        return min(PAGE, int(limits.get(kind) or limits.get("limit") or _LEAST_PAGE))

    def page(self, kind: str, symbol: str, timeframe: str, since_ms: int) -> list[list[float]]:
        """One page of rows from `since_ms` on: candles of six fields (mark prices with volume 0), or (time, rate).

        Raises:
            SourceError: naming the symbol and the time, when the exchange refuses, fails or answers garbage for good.
        """
        return list(
            self._call(self._page, kind, symbol, timeframe, since_ms, where=f"{symbol} {timeframe} {iso(since_ms)}")
        )

    def _page(self, kind: str, symbol: str, timeframe: str, since_ms: int) -> list[list[float]]:
        if kind == "funding":
            history = self.client.fetch_funding_rate_history(symbol, since_ms, PAGE)
            rows = [[row["timestamp"], row["fundingRate"]] for row in history]
        else:
            extra = {"price": "mark"} if kind == "mark" else {}
            rows = self.client.fetch_ohlcv(symbol, timeframe, since_ms, PAGE, extra)
            rows = [[*row[:5], 0.0] for row in rows] if kind == "mark" else [list(row[:6]) for row in rows]
        # ccxt makes nothing of an answer that is no JSON, and nothing would look like a gap.
        if self.client.last_json_response is None:
            raise GarbageError(f"no JSON but {str(self.client.last_http_response)[:80]!r}")
        width = 2 if kind == "funding" else 6
        for row in rows:
            if len(row) != width or not isinstance(row[0], int) or not _EARLIEST_MS < row[0] < _LATEST_MS:
                raise GarbageError(f"a row is {row}, not {width} fields that begin with a time in ms")
        return rows

    def _take(self, cost: float | None = None) -> None:
        self.limit.take(1.0 if cost is None else float(cost))

    def _rest(self, seconds: float) -> None:
        self.limit.rest(seconds)

    def _call(self, function: Callable[..., Any], *args: Any, where: str = "") -> Any:
        retry = Retrying(
            retry=retry_if_exception_type((ccxt.OperationFailed, GarbageError)),
            wait=self._pause,
            sleep=self._rest,
            stop=stop_after_attempt(self._attempts),
            reraise=True,
        )
        where = f"{self.name} {where or getattr(function, '__name__', '')}".strip()
        try:
            return retry(_garbage_told, function, *args)
        except GarbageError as error:
            raise SourceError(
                f"the exchange answered garbage {self._attempts} times: {error}",
                where=where,
                todo="see whether the exchange has trouble, then run it again: nothing stored was touched",
            ) from error
        except ccxt.BaseError as error:
            lost = isinstance(error, ccxt.NetworkError)
            raise (UnreachableError if lost else SourceError)(
                f"{'the exchange cannot be reached: ' if lost else ''}{type(error).__name__}: {str(error)[:300]}",
                where=where,
                todo="check the network, the pair's name and the exchange's status",
            ) from error

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        wait = min(_LONGEST_WAIT_S, self._wait_s * 2.0 ** (state.attempt_number - 1))
        _log.warning("retry", exchange=self.name, wait_s=wait, error=str(error)[:200])
        if not isinstance(error, ccxt.RateLimitExceeded | ccxt.DDoSProtection):
            return wait
        asked = _seconds((self.client.last_response_headers or {}).get("Retry-After")) or wait
        if asked > _LONGEST_BLOCK_S:
            raise UnreachableError(
                f"the exchange has banned this address for {asked:.0f} s",
                where=self.name,
                todo="wait so long, then run it again: what was fetched is stored",
            )
        self.limit.block(asked)  # for everybody: the limit is the address's
        return 0.0


def binance_urls(base_url: str) -> dict[str, str]:
    """Every address of ccxt's Binance with its host replaced by `base_url`, the paths kept.

    Raises:
        SourceError: if an address would still lead elsewhere.
    """
    base = base_url.rstrip("/")
    urls = {name: base + urlsplit(url).path for name, url in ccxt.binance().urls["api"].items()}
    client = ccxt.binance({"urls": {"api": urls}})
    assert_only(client, base)
    return urls


def assert_only(client: Any, base_url: str) -> None:
    """Raise SourceError unless every API address of a ccxt client starts with `base_url`."""
    strays = sorted(url for url in _flat(client.urls["api"]) if not url.startswith(base_url.rstrip("/") + "/"))
    if strays:
        raise SourceError(f"addresses lead past the sandbox: {strays}", where=base_url, todo="override them all")


def open_exchange(
    name: str,
    base_url: str | None = None,
    *,
    wait_s: float = 0.5,
    attempts: int = _ATTEMPTS,
    timeout_s: float = _TIMEOUT_S,
) -> ExchangeSource:
    """Open an exchange for reading public data.

    Args:
        name: "sandbox", or any ccxt id such as "binance".
        base_url: address of the sandbox exchange; only for "sandbox".
        wait_s: first pause between retries.
        attempts: of a request that may succeed later.
        timeout_s: after which a request has failed.

    Raises:
        SourceError: if the exchange is unknown, or the sandbox's address is missing.
    """
    if name == SANDBOX:
        if not base_url:
            raise SourceError("the sandbox exchange's address is missing", where=name, todo="pass --url")
        urls = binance_urls(base_url)

        def sandbox() -> Any:
            client = ccxt.binance({"urls": {"api": dict(urls)}, "timeout": timeout_s * 1000})
            assert_only(client, base_url)
            return client

        # No pace of our own: its minutes are virtual. It says by itself when it is too much.
        return ExchangeSource(name, sandbox, RateLimit(0.0), wait_s, attempts)
    if base_url:
        raise SourceError("only the sandbox takes an address", where=name, todo="leave --url out")
    if name not in ccxt.exchanges:
        raise SourceError(f"ccxt knows no exchange {name!r}", todo="see `ccxt.exchanges`, for example binance")
    kind = getattr(ccxt, name)
    limit = RateLimit(kind().rateLimit / 1000, path=shared_file(name))
    return ExchangeSource(name, lambda: kind({"timeout": timeout_s * 1000}), limit, wait_s, attempts)


def _garbage_told(function: Callable[..., Any], *args: Any) -> Any:
    """Call; an answer that even ccxt stumbles over becomes GarbageError."""
    try:
        return function(*args)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise GarbageError(f"{type(error).__name__}: {str(error)[:200]}") from error


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.replace(".", "", 1).isdigit() else 0.0


def _flat(tree: Any) -> Iterator[str]:
    for value in tree.values() if isinstance(tree, dict) else ():
        if isinstance(value, str):
            yield value
        else:
            yield from _flat(value)
