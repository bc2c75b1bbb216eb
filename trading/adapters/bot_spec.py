"""What one bot is: plain, serialisable, free of secrets (those are file paths), and importable without Freqtrade."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from observability.errors import SettingsError
from trading.adapters.bot_database import Database, bot_database

STRATEGIES: Mapping[str, str] = {
    "nn_predictor": "NnPredictor",
    "swing": "Swing",
    "scalp": "Scalp",
    "stat_arb": "StatArb",
}
"""Name in settings and on the command line -> class that Freqtrade resolves in `trading/adapters/strategies`."""

ARBITRAGES: Mapping[str, str] = {"carry": "ArbitrageLeg", "gap": "ArbitrageLeg"}
"""The same of what takes two bots, one a leg, and a coordinator."""

DIRECTIVE = "directive.json"
"""Where a bot keeps, in its folder, what the risk manager told it last."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


@dataclass(frozen=True)
class BotSpec:
    """One bot on one account.

    Attributes:
        name: the bot's name, also the holder of its account's lease.
        strategy: key of `STRATEGIES` or `ARBITRAGES`.
        account: name of the exchange account, unique to this bot.
        venue: "sandbox" or a ccxt exchange such as "binance".
        mode: "dry-run" (Freqtrade simulates the orders) or "live" (signed orders go to the venue).
        folder: the bot's own folder for configuration, database, log and state.
        url: base address of the sandbox exchange; "" for a real one.
        key_file: JSON `{"key": ..., "secret": ...}` with mode 0600; "" for dry runs without keys.
        virtual_clock: follow the sandbox exchange's clock instead of the wall's.
        loop_s: seconds between two loops on that clock; 0: once a candle, a leg of an arbitrage once a minute.
        forecast_url, forecast_token_file: the prediction service and the file with its bearer token.
        notify_file: JSON with Freqtrade's own tables `telegram`, `discord` and `webhook`, mode 0600; "" for none.
        dsn_file: PostgreSQL's connection string for the bot's own trades, mode 0600; "" for an SQLite file in `folder`.
        switch: file of the kill switch, which the bot reads before every entry and in every loop; "" for none.
        targets_dir: folder in which Prometheus looks for exporters; "" for none.
        settings: strategy settings; keys that `trading.adapters.strategies.base` documents.
    """

    name: str
    strategy: str
    account: str
    venue: str
    mode: str
    pairs: tuple[str, ...]
    timeframe: str
    folder: str
    url: str = ""
    key_file: str = ""
    virtual_clock: bool = False
    loop_s: int = 0
    forecast_url: str = ""
    forecast_token_file: str = ""
    targets_dir: str = ""
    switch: str = ""
    notify_file: str = ""
    dsn_file: str = ""
    api_server: bool = True
    max_open_trades: int = 6
    play_money: float = 10_000.0
    settings: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SettingsError(f"{self.name!r} cannot name a bot", todo="use a-z, 0-9, '-' and '_'")
        known = {**STRATEGIES, **ARBITRAGES}
        if self.strategy not in known:
            raise SettingsError(f"no strategy is called {self.strategy!r}", todo=f"use one of {', '.join(known)}")
        if self.mode not in ("dry-run", "live"):
            raise SettingsError(f"mode {self.mode!r} is neither dry-run nor live", where=self.name)
        if not self.pairs or len({pair.split("/")[1] for pair in self.pairs}) != 1:
            raise SettingsError("a bot trades pairs of one quote currency", where=f"{self.name}: {self.pairs}")
        if self.strategy == "stat_arb" and not self.futures:
            raise SettingsError("a statistical pair sells short", where=f"{self.pairs}", todo="BTC/USDT:USDT and so on")
        if self.venue == "sandbox" and not self.url:
            raise SettingsError("the sandbox exchange needs an address", where=self.name)

    @property
    def stake_currency(self) -> str:
        """Quote currency of all pairs."""
        return self.pairs[0].split("/")[1].split(":")[0]

    @property
    def futures(self) -> bool:
        """Whether the pairs are perpetuals ("BTC/USDT:USDT")."""
        return ":" in self.pairs[0]

    @property
    def play(self) -> bool:
        """Whether no real money can be lost."""
        return self.venue == "sandbox" or self.mode == "dry-run"

    @property
    def risk_venue(self) -> str:
        """How the venue is called in order intents: a dry run on a real exchange is a venue of its own."""
        return self.venue if self.venue == "sandbox" or self.mode == "live" else "dry-run"

    @property
    def database(self) -> Database:
        """The bot's own books; dry and live ones are never mixed."""
        return bot_database(Path(self.folder), self.name, self.mode, self.dsn_file)

    def to_json(self) -> str:
        """Text that `from_json` reads back."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> BotSpec:
        """Read `to_json` back.

        Raises:
            SettingsError: not JSON, or not a bot.
        """
        try:
            values = json.loads(text)
            known = {field.name for field in fields(cls)}
            if set(values) - known:
                raise ValueError(f"unknown {sorted(set(values) - known)}")
            return cls(**{**values, "pairs": tuple(values["pairs"])})
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(f"not a bot's specification: {error}", where=text[:80]) from error
