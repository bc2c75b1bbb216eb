"""What an exchange key may do, and whose it is, as the exchange itself says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ccxt

from observability.errors import ExchangeError, SettingsError
from trading.adapters.api_key import ApiKey, read_key
from trading.adapters.bot_spec import BotSpec


@dataclass(frozen=True)
class KeyRights:
    """account: the exchange's number of the account; the rest: what the key may do there."""

    account: str
    withdraws: bool
    spot: bool
    futures: bool


def key_rights(key: ApiKey, urls: Mapping[str, str] | None = None) -> KeyRights:
    """Ask Binance about a key; `urls`: ccxt's addresses, where they are not Binance's own.

    Raises:
        ExchangeError: it does not answer, or refuses the key.
    """
    places = {} if urls is None else {"urls": {"api": dict(urls)}}
    try:
        api = ccxt.binance({"apiKey": key.key, "secret": key.secret, **places})
        api.load_time_difference()
        account, rights = api.privateGetAccount(), api.sapiGetAccountApiRestrictions()
        return KeyRights(
            str(account["uid"]),
            bool(rights["enableWithdrawals"]),
            bool(rights["enableSpotAndMarginTrading"]),
            bool(rights["enableFutures"]),
        )
    except (ccxt.BaseError, KeyError) as error:
        raise ExchangeError(
            f"the exchange does not say what the key may do: {type(error).__name__}",
            todo="check the key, its address list and the network",
        ) from error


def check_keys(specs: Sequence[BotSpec], ask: Callable[[ApiKey], KeyRights] = key_rights) -> None:
    """Let bots go live only with keys that can trade what they trade and nothing else, each on an account of its own.

    Raises:
        SettingsError: a key may withdraw, may not trade, or two bots have keys of one account.
        SecretError: an unsafe key file. ExchangeError: the exchange does not say.
    """
    owners: dict[str, str] = {}
    for spec in specs:
        rights = ask(read_key(Path(spec.key_file)))
        if rights.withdraws:
            raise SettingsError(
                f"the key of {spec.name} may withdraw; who steals it has the money", where=spec.key_file,
                todo="take the right to withdraw away from it at the exchange",
            )  # fmt: skip
        if not (rights.futures if spec.futures else rights.spot):
            kind = "futures" if spec.futures else "spot"
            raise SettingsError(
                f"the key of {spec.name} may not trade {kind}", where=spec.key_file, todo="allow it at the exchange"
            )
        other = owners.setdefault(rights.account, spec.name)
        if other != spec.name:
            raise SettingsError(
                f"{other} and {spec.name} have keys of one account, and would corrupt each other's books",
                where=spec.key_file, todo="give each bot a sub-account of its own",
            )  # fmt: skip
