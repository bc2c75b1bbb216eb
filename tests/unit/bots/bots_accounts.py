"""A bot's account as `trading.adapters.holdings` reads it; its trades are those of Freqtrade's database."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from freqtrade.wallets import PositionWallet, Wallet


def account(
    *, pairs: tuple[str, ...] = ("BTC/USDT",), mode: str = "spot", positions: tuple[PositionWallet, ...] = (),
    **balances: float,
) -> Any:  # fmt: skip
    """A bot whose exchange says these totals, and these positions on perpetuals."""
    wallets = {name: Wallet(name, total, 0.0, total) for name, total in balances.items()}
    return SimpleNamespace(
        config={"stake_currency": "USDT", "dry_run": False},
        strategy=SimpleNamespace(order_types={"stoploss_on_exchange": True}),
        active_pair_whitelist=list(pairs),
        exchange=SimpleNamespace(
            trading_mode=mode,
            get_pair_base_currency=lambda pair: pair.partition("/")[0],
            fetch_ticker=lambda _pair: {"last": 1.0},
        ),
        wallets=SimpleNamespace(
            update=lambda: None,
            get_all_balances=lambda: wallets,
            get_all_positions=lambda: {position.symbol: position for position in positions},
            get_total=lambda name: wallets[name].total if name in wallets else 0.0,
            get_free=lambda name: wallets[name].free if name in wallets else 0.0,
        ),
    )
