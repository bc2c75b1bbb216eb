"""Whose key each bot trades real money with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.settings import TradeSettings
from observability.errors import SettingsError
from trading.adapters.api_key import read_key


def live_keys(trade: TradeSettings, names: Sequence[str]) -> dict[str, Path]:
    """Key file of every bot that trades real money, by name: one account serves exactly one bot.

    A dry run asks for none: it needs no key, and Freqtrade would hold it in memory for nothing.

    Raises:
        SettingsError: a bot has no key, a key has no bot, or two bots have the same.
        SecretError: an unsafe key file.
    """
    given = dict(trade.key_files)
    strangers = sorted(set(given) - set(names))
    if strangers:
        raise SettingsError(
            f"no bot is called {', '.join(strangers)}", where="trade.key_files", todo=f"name {', '.join(names)}"
        )
    if len(names) == 1 and trade.key_file is not None:
        given = {names[0]: trade.key_file, **given}
    lacking = [name for name in names if name not in given]
    if lacking and len(names) == 1:
        raise SettingsError("live trading needs an exchange key", where="trade.key_file", todo="name a file, mode 0600")
    if lacking:
        raise SettingsError(
            f"live, one account serves exactly one bot, and these lack a key of their own: {', '.join(lacking)}",
            where="trade.key_files",
            todo="name a file for each, of sub-accounts, or trade one strategy",
        )
    owners: dict[str, str] = {}
    for name, path in given.items():
        other = owners.setdefault(read_key(path).key, name)
        if other != name:
            raise SettingsError(
                f"{other} and {name} have the same key, and would corrupt each other's books",
                where="trade.key_files",
                todo="give each bot an account of its own",
            )
    return {name: path.resolve() for name, path in given.items()}
