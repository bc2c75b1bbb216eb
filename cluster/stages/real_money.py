"""What stands between a command and real money."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cluster.doctor import require_healthy
from cluster.settings import Settings
from cluster.stages.bots import Forecasts, bot_specs
from cluster.stages.trade import FOUND_LATER
from observability.errors import SettingsError
from trading.adapters.api_key import ApiKey
from trading.adapters.freqtrade_config import check_environment
from trading.adapters.key_rights import KeyRights, check_keys, key_rights

CONFIRMATION = "trade real money"


def allow_real_money(
    settings: Settings, *, yes: bool, ask: Callable[[str], str], rights: Callable[[ApiKey], KeyRights] = key_rights
) -> None:
    """Let live trading on a real exchange pass only when everything that protects the user's money is in place.

    Args:
        settings: mode and key file.
        yes: `--yes-i-trade-real-money` was given.
        ask: asks the user to type a line.
        rights: asks the exchange what a key may do.

    Raises:
        SettingsError: not confirmed, a bot without a key of its own, or a key that may withdraw or may not trade.
        SecretError: an unsafe key file. StartError: `doctor` finds the machine unfit.
        ExchangeError: the exchange does not say what a key may do.
    """
    if settings.trade.mode != "live":
        return
    check_environment()
    specs = bot_specs(settings, Forecasts(url=FOUND_LATER))
    require_healthy(settings)
    _confirmed(settings, yes=yes, ask=ask)
    check_keys(specs, rights)


def _confirmed(settings: Settings, *, yes: bool, ask: Callable[[str], str]) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise SettingsError("live trading was not confirmed", todo="add --yes-i-trade-real-money")
    typed = ask(f"Orders will be sent to {settings.market.exchange} with real money. Type '{CONFIRMATION}': ")
    if typed != CONFIRMATION:
        raise SettingsError("live trading was not confirmed", todo=f"type exactly: {CONFIRMATION}")
