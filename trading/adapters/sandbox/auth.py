"""Binance's request security: API key, HMAC-SHA256 over query and body, and a timestamp inside a window."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

from trading.adapters.api_key import ApiKey
from trading.adapters.sandbox.orders import RefusalError

DEFAULT_WINDOW_MS, MAX_WINDOW_MS, AHEAD_MS = 5_000, 60_000, 1_000
LISTEN_S = 3_600.0


def parse_params(query: str, body: str) -> dict[str, str]:
    """Parameters of query string and form body together; raises RefusalError -1101 for one sent twice."""
    pairs = [*parse_qsl(query, keep_blank_values=True), *parse_qsl(body, keep_blank_values=True)]
    params = dict(pairs)
    if len(params) != len(pairs):
        raise RefusalError(-1101, "Duplicate values for a parameter detected.")
    return params


class Gatekeeper:
    """Knows the accounts' keys."""

    def __init__(self, keys: Mapping[str, ApiKey]) -> None:
        self._accounts = {pair.key: (name, pair.secret) for name, pair in keys.items()}

    def account(self, api_key: str | None) -> tuple[str, str]:
        """Account name and secret of a key; raises RefusalError -2014 or -2015."""
        if not api_key:
            raise RefusalError(-2014, "API-key format invalid.", 401)
        found = self._accounts.get(api_key)
        if found is None:
            raise RefusalError(-2015, "Invalid API-key, IP, or permissions for action.", 401)
        return found

    def check(
        self, api_key: str | None, signed_text: tuple[str, str], params: Mapping[str, str], now_ms: int, lag_ms: int
    ) -> str:
        """The account that signed a request.

        `signed_text` is the raw query string and body. `lag_ms` is how far an honest client's own clock may have run
        ahead while virtual time stood still.

        Raises:
            RefusalError: -1102 (no signature or timestamp), -1022 (wrong signature), -1021 (timestamp outside).
        """
        account, secret = self.account(api_key)
        given = params.get("signature")
        if not given:
            raise RefusalError(-1102, "Mandatory parameter 'signature' was not sent, was empty/null, or malformed.")
        payload = "".join(_without_signature(text) for text in signed_text)
        expected = hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected.encode(), given.lower().encode()):
            raise RefusalError(-1022, "Signature for this request is not valid.")
        timestamp = _integer(params, "timestamp")
        window = _integer(params, "recvWindow", DEFAULT_WINDOW_MS)
        if not 0 < window <= MAX_WINDOW_MS:
            raise RefusalError(-1131, "recvWindow must be less than 60000.")
        if timestamp >= now_ms + AHEAD_MS + lag_ms:
            raise RefusalError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
        if now_ms - timestamp > window:
            raise RefusalError(-1021, "Timestamp for this request is outside of the recvWindow.")
        return account


class ListenKeys:
    """Keys of the accounts' user data streams, each good for an hour.

    That hour is a real one: what renews a key is a timer of the client, which knows nothing of virtual time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._keys: dict[str, tuple[str, float]] = {}

    def open(self, account: str) -> str:
        """The account's key, a new one where it has none, good for an hour from now."""
        key = self._current(account) or secrets.token_urlsafe(48)
        self._keys[account] = (key, self._clock() + LISTEN_S)
        return key

    def renew(self, account: str) -> str:
        """Another hour; raises RefusalError -1125 where there is no key."""
        if self._current(account) is None:
            raise RefusalError(-1125, "This listenKey does not exist.")
        return self.open(account)

    def close(self, account: str) -> None:
        """End the account's key, if there is one."""
        self._keys.pop(account, None)

    def account(self, key: str) -> str:
        """Whose key this is, "" for nobody's."""
        return next((name for name in self._keys if self._current(name) == key), "")

    def _current(self, account: str) -> str | None:
        key, until = self._keys.get(account, ("", 0.0))
        return key if key and self._clock() < until else None


def _without_signature(text: str) -> str:
    return "&".join(part for part in text.split("&") if not part.startswith("signature="))


def _integer(params: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = params.get(name, "")
    if not text and default is not None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise RefusalError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    return int(text)
