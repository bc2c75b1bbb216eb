"""What differs between the two kinds of market that a Freqtrade exchange object trades."""

from __future__ import annotations

from typing import Any

ORDINARY: dict[str, bool] = {}
STOPS = {"stop": True}


def is_spot(exchange: Any) -> bool:
    """Whether whole coins are traded; perpetuals else."""
    return str(getattr(exchange.trading_mode, "value", exchange.trading_mode)) == "spot"


def order_books(exchange: Any) -> tuple[dict[str, bool], ...]:
    """What to ask for, one after the other, to see all orders: perpetuals keep their stops in a book apart."""
    return (ORDINARY,) if is_spot(exchange) else (ORDINARY, STOPS)
