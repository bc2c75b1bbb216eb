"""Glassnode's v1 metrics API (docs.glassnode.com/basic-api), read only, one metric a request.

    GET /v1/metrics/<group>/<metric>?a=BTC&i=24h&s=<unix>&u=<unix>&f=json        header X-Api-Key
    [{"t": 1726790400, "v": 217208}, ...]
    GET /v1/metrics/<group>/<metric>_pit?...       point-in-time variant: values are never revised
    [{"t": 1790899200, "v": 729981, "computed_at": 1790985731}, ...]

`t` is the start of the interval in seconds UTC. The key goes into a header, never into an address or a message, and
redirects are not followed, because they would carry it elsewhere. How long we wait is the server's decision
(`x-rate-limit-remaining`, `x-rate-limit-reset`, `retry-after`).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from observability.errors import SecretError, SettingsError, SourceError
from observability.logging import get_logger

BASE_URL = "https://api.glassnode.com"
# Intervals of a fixed length; calendar months have none.
RESOLUTIONS_MS = {"10m": 600_000, "1h": 3_600_000, "24h": 86_400_000, "1w": 604_800_000}
_PATH = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")
_WEEK_OFFSET_MS = 4 * 86_400_000  # weeks start on Mondays, the epoch was a Thursday
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_log = get_logger(__name__)


@dataclass(frozen=True)
class Point:
    """A value of the interval that starts at `start_ms`; `computed_ms` only from a point-in-time metric."""

    start_ms: int
    value: float
    computed_ms: int | None = None


class _PassingError(Exception):
    """Worth another try, not before `wait_s` if the server named a time."""

    def __init__(self, text: str, wait_s: float | None = None) -> None:
        super().__init__(text)
        self.wait_s = wait_s


class UnknownMetricError(SourceError):
    """The API has no such metric for this asset and resolution, or the key's plan does not include it."""


class Glassnode:
    """The API with one key.

    Args:
        key: the API key.
        base_url: https, or http on loopback.
        attempts: how often a request that may succeed later is made at most.
        first_wait_s: first pause between attempts; it doubles up to `longest_wait_s`.
        longest_wait_s: a limit that lasts longer than this is an error and no pause.
        pause: sleeps; time in seconds.
    """

    def __init__(
        self,
        key: str,
        base_url: str = BASE_URL,
        *,
        attempts: int = 6,
        first_wait_s: float = 1.0,
        longest_wait_s: float = 90.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        if not re.fullmatch(r"[!-~]+", key):
            raise SecretError(
                "the Glassnode key holds spaces or other characters that no key has", todo="write it anew"
            )
        address = urlsplit(base_url)
        if address.scheme != "https" and not (address.scheme == "http" and address.hostname in _LOOPBACK):
            raise SettingsError("the key would travel unencrypted", where=base_url, todo="use https")
        self.requests = 0
        self._key, self._pause = key, pause
        self._attempts, self._first_wait_s, self._longest_wait_s = attempts, first_wait_s, longest_wait_s
        self._free_at = 0.0
        headers = {"X-Api-Key": key, "Accept": "application/json", "User-Agent": "mtst-trader"}
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=60.0, follow_redirects=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def metric(self, path: str, asset: str, resolution: str, since_ms: int, until_ms: int) -> tuple[Point, ...]:
        """The finished intervals of [since, until) that have a value, oldest first; none is no error.

        Args:
            path: group and metric, for example "addresses/active_count".
            asset: for example "BTC".
            resolution: one of `RESOLUTIONS_MS`.
            since_ms: start of the first interval.
            until_ms: intervals that end after it are left out.

        Raises:
            UnknownMetricError: there is no such metric for this key.
            SourceError: the key is refused, the limit lasts, the server fails, or the answer is no time series.
        """
        if not _PATH.fullmatch(path) or resolution not in RESOLUTIONS_MS:
            raise SettingsError(
                f"no metric {path!r} at {resolution!r}",
                todo=f"metrics look like addresses/active_count, resolutions are {', '.join(RESOLUTIONS_MS)}",
            )
        query = {"a": asset, "i": resolution, "s": since_ms // 1000, "u": -(-until_ms // 1000), "f": "json"}
        where = f"{path} {asset} {resolution}"
        step = RESOLUTIONS_MS[resolution]
        points = _points(self._get(f"/v1/metrics/{path}", query, where), step, where)
        return tuple(point for point in points if since_ms <= point.start_ms <= until_ms - step)

    def _get(self, address: str, query: dict[str, Any], where: str) -> Any:
        retry = Retrying(
            retry=retry_if_exception_type(_PassingError),
            wait=self._wait,
            stop=stop_after_attempt(self._attempts),
            sleep=self._pause,
            before_sleep=lambda state: _log.warning("retry", source="glassnode", metric=where, error=_told(state)),
            reraise=True,
        )
        try:
            return retry(self._once, address, query, where)
        except _PassingError as error:
            raise SourceError(
                f"Glassnode does not answer: {error}",
                where=where,
                todo="try again later; what was stored before is kept",
            ) from error

    def _once(self, address: str, query: dict[str, Any], where: str) -> Any:
        self._respect_limit(where)
        self.requests += 1
        try:
            answer = self._http.get(address, params=query)
        except httpx.TransportError as error:
            raise _PassingError(f"{type(error).__name__}: {error}") from error
        resets_in = _seconds(answer, "x-rate-limit-reset")
        if answer.headers.get("x-rate-limit-remaining") == "0" and resets_in is not None:
            self._free_at = time.monotonic() + resets_in
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error:
            raise _PassingError(self._words(answer), _seconds(answer, "retry-after") or resets_in)
        if not answer.is_success:
            self._refused(answer, where)
        try:
            return answer.json()
        except ValueError as error:
            raise SourceError(
                f"Glassnode's answer is no JSON: {answer.text[:80]!r}", where=where, todo="try again later"
            ) from error

    def _respect_limit(self, where: str) -> None:
        left = self._free_at - time.monotonic()
        if left > self._longest_wait_s:
            raise _limited(left, where)
        if left > 0:
            self._pause(left)

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        told = error.wait_s if isinstance(error, _PassingError) else None
        if told is not None and told > self._longest_wait_s:
            raise _limited(told, str(state.args[2]))
        own = wait_random_exponential(self._first_wait_s, max=self._longest_wait_s)(state)
        return max(own, told or 0.0)

    def _refused(self, answer: httpx.Response, where: str) -> NoReturn:
        text, code = self._words(answer), answer.status_code
        if code == httpx.codes.UNAUTHORIZED:
            raise SourceError(f"Glassnode refuses the key: {text}", where=where, todo="check the key file")
        if code in (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND, httpx.codes.FORBIDDEN):
            raise UnknownMetricError(
                f"Glassnode gives no such series to this key: {text}",
                where=where,
                todo="check metric, asset, resolution and your plan",
            )
        raise SourceError(f"Glassnode answers strangely: {text}", where=where, todo="check glassnode.url")

    def _words(self, answer: httpx.Response) -> str:
        """The server's reason, short, and without the key should it repeat it."""
        text = answer.text.strip()
        try:
            body = answer.json()
            text = str(body.get("message") or body.get("error") or text) if isinstance(body, dict) else text
        except ValueError:
            pass
        return f"HTTP {answer.status_code} {' '.join(text.replace(self._key, '***').split())[:200]}".strip()


def _points(body: Any, step_ms: int, where: str) -> list[Point]:
    """Check the answer's shape: ascending starts on the grid, finite numbers, nothing computed before its end."""
    if not isinstance(body, list):
        raise SourceError(f"Glassnode's answer is no list: {str(body)[:80]!r}", where=where, todo="try again later")
    points: list[Point] = []
    for row in body:
        point = _point(row, where)
        if point is None:
            continue
        offset = _WEEK_OFFSET_MS if step_ms == RESOLUTIONS_MS["1w"] else 0
        late = points and points[-1].start_ms >= point.start_ms
        early = point.computed_ms is not None and point.computed_ms < point.start_ms + step_ms
        if (point.start_ms - offset) % step_ms or late or early:
            reason = (
                "is off the grid" if not (late or early) else "repeats a time" if late else "was computed too early"
            )
            raise SourceError(f"a value of Glassnode {reason}: {row}", where=where, todo="nothing of it was stored")
        points.append(point)
    return points


def _point(row: Any, where: str) -> Point | None:
    try:
        if row["v"] is None:
            return None
        computed = row.get("computed_at")
        found = Point(int(row["t"]) * 1000, float(row["v"]), None if computed is None else int(computed) * 1000)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"Glassnode's answer is no series of numbers: {str(row)[:80]}", where=where, todo="choose a scalar metric"
        ) from error
    if not math.isfinite(found.value):
        raise SourceError(f"a value of Glassnode is not finite: {row}", where=where, todo="nothing of it was stored")
    return found


def _seconds(answer: httpx.Response, header: str) -> float | None:
    try:
        return max(0.0, float(answer.headers[header]))
    except (KeyError, ValueError):
        return None


def _limited(seconds: float, where: str) -> SourceError:
    return SourceError(
        f"Glassnode's limit is used up for {seconds:.0f} s", where=where, todo="run it again then; what came is kept"
    )


def _told(state: RetryCallState) -> str:
    return str(state.outcome.exception())[:200] if state.outcome else ""
