"""Counts how a bot's calls to its exchange went, at the one place in ccxt through which all of them pass.

An answer that is no JSON is a failure here. ccxt hands on its text instead, and reads an account without any money out
of it: the bot would report that everything is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ccxt

REMEMBERED = 60
LEAST = 20  # calls before a rate says anything


class CallRecord:
    """The latest calls of one bot; an answer that refuses an order is an answer, and no failure of the exchange."""

    def __init__(self) -> None:
        self._failed: deque[bool] = deque(maxlen=REMEMBERED)

    @property
    def error_rate(self) -> float:
        """Failed ones among the latest calls, as a fraction; 0 while there were few."""
        return sum(self._failed) / len(self._failed) if len(self._failed) >= LEAST else 0.0

    def listen(self, exchange: Any) -> None:
        """Count every call of a Freqtrade exchange from now on."""
        self._wrap(exchange._api)
        if getattr(exchange, "_api_async", None) is not None:
            self._wrap_async(exchange._api_async)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except ccxt.BaseError as error:
            self._failed.append(isinstance(error, ccxt.NetworkError))
            raise
        self._failed.append(False)

    def _wrap(self, api: Any) -> None:
        fetch = api.fetch

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self._counted():
                return _read(fetch(*args, **kwargs))

        api.fetch = counted

    def _wrap_async(self, api: Any) -> None:
        fetch = api.fetch

        async def counted(*args: Any, **kwargs: Any) -> Any:
            with self._counted():
                return _read(await fetch(*args, **kwargs))

        api.fetch = counted


def _read(answer: Any) -> Any:
    """The answer, if it could be read; raises ccxt.ExchangeNotAvailable, which is tried again."""
    if isinstance(answer, str):
        raise ccxt.ExchangeNotAvailable(f"the exchange's answer is no JSON: {answer[:60]!r}")
    return answer
