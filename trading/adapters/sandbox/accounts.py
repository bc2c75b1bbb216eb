"""Keys of the sandbox's accounts: made here, kept in files of mode 0600, never printed."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from observability.errors import SettingsError
from observability.files import make_secret
from trading.adapters.api_key import read_key
from trading.adapters.sandbox.config import AccountConfig

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")


def make_accounts(
    folder: Path, names: Sequence[str], balances: Mapping[str, str | int | float]
) -> tuple[AccountConfig, ...]:
    """One account a name, each with the same balances on spot and in futures.

    Key files `<folder>/<name>.json` are made where they are missing.

    Raises:
        SettingsError: two names are the same, or one cannot name a file.
        SecretError: an existing key file is readable by others or is no key file.
    """
    for name in names:
        if not NAME.fullmatch(name) or names.count(name) > 1:
            raise SettingsError(
                f"{name!r} cannot name an account",
                where=str(folder),
                todo="use letters, digits and . _ -, each name once",
            )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    texts = {asset: str(amount) for asset, amount in balances.items()}
    configs = []
    for name in names:
        path = folder / f"{name}.json"
        config = AccountConfig(name=name, key_file=path.resolve(), balances=texts, futures=texts)
        read_key(make_secret(path, _new_key))
        configs.append(config)
    return tuple(configs)


def _new_key() -> str:
    # Binance's keys have 64 characters; clients check that.
    return json.dumps({"key": secrets.token_hex(32), "secret": secrets.token_hex(32)})
