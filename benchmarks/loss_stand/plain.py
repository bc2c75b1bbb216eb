"""Plain Freqtrade's configuration, as a careful reader of its documentation would write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trading.adapters.api_key import ApiKey
from trading.adapters.sandbox.client import ccxt_urls


def plain_config(key: ApiKey, url: str, database: Path, pair: str) -> dict[str, Any]:
    """Live trades of one pair on the sandbox exchange at `url`, by the benchmark's own plain strategy."""
    price = {"price_side": "other", "use_order_book": True, "order_book_top": 1}
    return {
        "dry_run": False,
        "max_open_trades": 1,
        "stake_currency": "USDT",
        "stake_amount": 1000,
        "trading_mode": "spot",
        "timeframe": "15m",
        "db_url": f"sqlite:///{database}",
        "unfilledtimeout": {"entry": 10, "exit": 10, "unit": "minutes"},
        "entry_pricing": price,
        "exit_pricing": price,
        "exchange": {
            "name": "binance",
            "key": key.key,
            "secret": key.secret,
            "pair_whitelist": [pair],
            "ccxt_config": {
                "enableRateLimit": False,
                "urls": {"api": ccxt_urls(url)},
                "options": {"recvWindow": 60_000},
            },
            "enable_ws": False,
            "markets_refresh_interval": 1_000_000,
            "_ft_has_params": {"ohlcv_candle_limit": 120},
        },
        "pairlists": [{"method": "StaticPairList"}],
        "internals": {"process_throttle_secs": 300},
        "initial_state": "running",
        "strategy": "PlainScheduled",
        "strategy_path": str(Path(__file__).with_name("strategies")),
    }
