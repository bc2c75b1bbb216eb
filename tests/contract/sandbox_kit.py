"""What the contract tests of the sandbox share: an exchange of their own and unmodified ccxt pointed at it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ccxt

from cluster.settings import Settings
from cluster.stages.exchange import RunningExchange, start_exchange
from observability.progress import NullProgress
from tests.books_kit import balanced
from trading.adapters.api_key import read_key
from trading.adapters.sandbox.client import SandboxClient, ccxt_urls, recognise_errors

CANDLE = 900_000


@contextlib.contextmanager
def exchange_in(root: Path, *accounts: str, **market: Any) -> Iterator[RunningExchange]:
    """A simulated exchange with a short history in a workspace of its own."""
    settings = Settings().changed(workspace={"root": root}, market={"history_days": 5.0, **market})
    running = start_exchange(settings, NullProgress(), accounts=accounts)
    try:
        yield running
    finally:
        running.stop()


@contextlib.contextmanager
def conserved(exchange: RunningExchange) -> Iterator[SandboxClient]:
    """The control API; at the end no fault is left and every unit of every asset is accounted for."""
    with contextlib.closing(exchange.client()) as client:
        yield client
        client.clear_faults()
        assert_conserved(client)


def assert_conserved(client: SandboxClient) -> None:
    """The exchange's own books balance, to the last unit."""
    balanced(client.ledger())


def trader_of(exchange: RunningExchange, name: str, kind: type[Any] = ccxt.binance, **options: Any) -> Any:
    """Unmodified ccxt with an account's keys and the sandbox's addresses."""
    key = read_key(exchange.key_files[name])
    keys = {"apiKey": key.key, "secret": key.secret, "options": options}
    api = kind({**keys, "enableRateLimit": False, "timeout": 3_000, "urls": {"api": ccxt_urls(exchange.url)}})
    if kind is ccxt.binanceusdm:
        recognise_errors(api)
    api.load_time_difference()
    api.load_markets()
    return api


def leap(control: SandboxClient, api: Any, ms: int) -> None:
    """Move time on, and the client's idea of it."""
    control.advance(control.now_ms() + ms)
    api.load_time_difference()
