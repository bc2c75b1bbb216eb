"""How the exchange's ledger is read by whoever counts what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DUST = 10.0  # quote units: rounding to lots and fees in base leave as much


def works(order: Mapping[str, Any]) -> bool:
    """Whether an order can still fill."""
    return order["status"] in ("new", "partially_filled")
