"""A bot's Freqtrade configuration as layers of JSON files, later ones winning: base, exchange, mode, bot, secrets.

Freqtrade reads them with several `-c`; only the last one holds secrets and only its owner can read it. Variables named
FREQTRADE__* would silently override all of it (`FREQTRADE__DRY_RUN=false` goes live), so they are refused.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from observability.errors import SecretError, SettingsError
from observability.files import read_secret, write_whole
from observability.ports import free_port
from pipelines.adapters.exchange import binance_urls
from pipelines.candles import timeframe_ms
from trading.adapters.api_key import read_key
from trading.adapters.bot_database import BotSchema, url_of
from trading.adapters.bot_spec import ARBITRAGES, STRATEGIES, BotSpec

_PASSWORD = re.compile(r":[^:/@]*@")  # in an address; its own colons and slashes are quoted
LAYERS = ("base", "exchange", "mode", "bot", "secrets")
SECRET_KEYS = frozenset(
    {"key", "secret", "password", "jwt_secret_key", "ws_token", "uid", "token", "privateKey", "webhook_url", "url"}
)
NOTICES = frozenset({"telegram", "discord", "webhook"})
ENV_PREFIX = "FREQTRADE__"
STRATEGY_FOLDER = Path(__file__).with_name("strategies")
LOG_LINE = "%(asctime)s %(name)s %(levelname)s %(message)s"
CANDLE_CALLS = 4  # requests a pair that fill the history at the start; Freqtrade allows five
LEG_LOOP_S = 60
FAR_FUTURE_MINUTES = 100 * 365 * 24 * 60


def check_environment(environment: MutableMapping[str, str] | None = None, *, clear: bool = False) -> None:
    """Refuse variables by which Freqtrade would override the files, or remove them.

    Raises:
        SettingsError: one is set and `clear` is false.
    """
    names = os.environ if environment is None else environment
    found = sorted(name for name in names if name.startswith(ENV_PREFIX))
    if clear:
        for name in found:
            del names[name]
    elif found:
        raise SettingsError(
            f"{', '.join(found)} would override the bots' configuration", where="environment", todo="unset it"
        )


def write_config(spec: BotSpec) -> tuple[Path, ...]:
    """Write all layers into `spec.folder/config` and return their paths in the order in which Freqtrade reads them.

    Raises:
        SecretError: the key file is missing, open to others or malformed.
        SettingsError: the specification cannot be configured.
    """
    if isinstance(spec.database, BotSchema):
        spec.database.claim()
    folder = Path(spec.folder) / "config"
    folder.mkdir(parents=True, exist_ok=True)
    user_data = Path(spec.folder) / "user_data"
    for name in ("data", "strategies"):
        (user_data / name).mkdir(parents=True, exist_ok=True)
    paths = []
    for name, layer in layers(spec).items():
        path = folder / f"{name}.json"
        write_whole(path, json.dumps(layer, indent=1), private=name == "secrets")
        paths.append(path)
    return tuple(paths)


def layers(spec: BotSpec) -> dict[str, dict[str, Any]]:
    """All layers by name, in order of precedence; the last one holds the secrets."""
    makers = {"base": _base, "exchange": _exchange, "mode": _mode, "bot": _bot, "secrets": _secrets}
    return {name: makers[name](spec) for name in LAYERS}


def merge(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The effective configuration, merged as Freqtrade does: dictionaries deeply, everything else replaced."""
    result: dict[str, Any] = {}
    for part in parts.values():
        _merge_into(result, part)
    return result


def masked(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy fit to be printed: every secret replaced."""
    shown: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            shown[name] = masked(value)
        else:
            shown[name] = _PASSWORD.sub(":***@", value) if name == "db_url" else value
            if name in SECRET_KEYS and value:
                shown[name] = "***"
    return shown


def _base(spec: BotSpec) -> dict[str, Any]:
    price = {"price_side": "other", "use_order_book": True, "order_book_top": 1}
    return {
        "$schema": "https://schema.freqtrade.io/schema.json",
        **({"trading_mode": "futures", "margin_mode": "isolated"} if spec.futures else {"trading_mode": "spot"}),
        "stake_currency": spec.stake_currency,
        "stake_amount": "unlimited",  # only the upper bound: custom_stake_amount decides
        "tradable_balance_ratio": 0.99,
        "amend_last_stake_amount": False,
        "max_open_trades": spec.max_open_trades,
        "dry_run_wallet": spec.play_money,
        "unfilledtimeout": {"entry": 10, "exit": 10, "unit": "minutes", "exit_timeout_count": 2},
        "entry_pricing": {**price, "check_depth_of_market": {"enabled": False}},
        "exit_pricing": price,
        "pairlists": [{"method": "StaticPairList"}],
        "cancel_open_orders_on_exit": True,
        "force_entry_enable": False,
        "position_adjustment_enable": False,
        "telegram": {"enabled": False, "token": "", "chat_id": ""},
        "initial_state": "running",
        "dataformat_ohlcv": "feather",
    }


def _exchange(spec: BotSpec) -> dict[str, Any]:
    exchange: dict[str, Any] = {"name": spec.venue, "pair_whitelist": list(spec.pairs), "pair_blacklist": []}
    if spec.venue != "sandbox":
        return {"exchange": exchange}
    exchange |= {
        "name": "binance",
        "ccxt_config": {
            "enableRateLimit": False,
            "urls": {"api": binance_urls(spec.url)},
            # 60 s: between two sleeps the bot's virtual clock stands still while the exchange's may creep on
            "options": {
                "recvWindow": 60_000,
                "adjustForTimeDifference": False,
                "defaultType": "swap" if spec.futures else "spot",
            },
        },
        "enable_ws": False,
        "markets_refresh_interval": FAR_FUTURE_MINUTES,
        "_ft_has_params": {"ohlcv_candle_limit": _candle_limit(spec)},
    }
    return {"exchange": exchange}


def _mode(spec: BotSpec) -> dict[str, Any]:
    return {"dry_run": spec.mode != "live"}


def _bot(spec: BotSpec) -> dict[str, Any]:
    folder = Path(spec.folder).resolve()
    return {
        "bot_name": spec.name,
        "strategy": {**STRATEGIES, **ARBITRAGES}[spec.strategy],
        "strategy_path": str(STRATEGY_FOLDER),
        "timeframe": spec.timeframe,
        "startup_candle_count": _history(spec),
        "user_data_dir": str(folder / "user_data"),
        "datadir": str(folder / "user_data" / "data"),
        "logfile": str(folder / "freqtrade.log"),
        # the file only: Freqtrade's own console colours cost more time than a small strategy
        "log_config": {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"standard": {"format": LOG_LINE}},
            "handlers": {},
            "root": {"handlers": [], "level": "INFO"},
        },
        "exchange": {"outdated_offset": 1},
        "internals": {"process_throttle_secs": _throttle_s(spec), "heartbeat_interval": 0},
        "mtst": {"max_history": _history(spec), **(spec.settings or {})},
    }


def _secrets(spec: BotSpec) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if spec.key_file:
        key = read_key(Path(spec.key_file))
        result["exchange"] = {"key": key.key, "secret": key.secret}
    elif spec.mode == "live":
        raise SecretError("live trading needs a key file", where=spec.name, todo="set trade.key_file")
    else:
        result["exchange"] = {"key": "", "secret": ""}
    result["api_server"] = {
        "enabled": spec.api_server,
        "listen_ip_address": "127.0.0.1",
        "listen_port": free_port(),
        "verbosity": "error",
        "enable_openapi": False,
        "CORS_origins": [],
        "jwt_secret_key": secrets.token_hex(32),
        "ws_token": secrets.token_urlsafe(32),
        "username": spec.name,
        "password": secrets.token_urlsafe(24),
    }
    result["db_url"] = url_of(spec.database)  # may hold a password
    return {**result, **(_notices(Path(spec.notify_file)) if spec.notify_file else {})}


def _notices(path: Path) -> dict[str, Any]:
    """Freqtrade's own tables for messages, as the file has them; it holds tokens, so its owner alone may read it."""
    try:
        found = json.loads(read_secret(path, "the tokens for messages"))
    except ValueError as error:
        raise SettingsError(f"not JSON: {error}", where=str(path), todo="see Freqtrade's documentation") from error
    if not isinstance(found, dict) or not set(found) <= NOTICES or not all(isinstance(t, dict) for t in found.values()):
        raise SettingsError("wants tables for messages only", where=str(path), todo=f"of {', '.join(sorted(NOTICES))}")
    return found


def _history(spec: BotSpec) -> int:
    return int((spec.settings or {}).get("max_history", 400))


def _throttle_s(spec: BotSpec) -> int:
    """Seconds between two loops: a virtual clock leaps from candle to candle, but a leg hears of its partner sooner."""
    if not spec.virtual_clock:
        return 5
    candle_s = timeframe_ms(spec.timeframe) // 1000
    return min(candle_s, spec.loop_s or (LEG_LOOP_S if spec.strategy in ARBITRAGES else candle_s))


def _candle_limit(spec: BotSpec) -> int:
    """Candles a request: small, because every new candle is fetched by one such request a pair."""
    return max(100, -(-(_history(spec) + 1) // CANDLE_CALLS))


def _merge_into(target: dict[str, Any], part: Mapping[str, Any]) -> None:
    for name, value in part.items():
        if isinstance(value, Mapping) and isinstance(target.get(name), dict):
            _merge_into(target[name], value)
        else:
            target[name] = dict(value) if isinstance(value, Mapping) else value
