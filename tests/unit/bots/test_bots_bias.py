"""The benchmark of biases reads what Freqtrade's checks print."""

from __future__ import annotations

import math

import pytest

from benchmarks.bias import CASES, largest_variance
from trading.adapters.bot_spec import STRATEGIES

FEE = "freqtrade.optimize.backtesting INFO Using fee 0.1000% - worst case fee from exchange (lowest tier).\n"
TABLE = """┏━━━━━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━┓
┃    Indicators ┃      30 ┃ 400 (from strategy) ┃
┡━━━━━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━┩
│ mtst_ema_fast │ -0.003% │                   - │
│      mtst_atr │  {at30} │             -0.000% │
└───────────────┴─────────┴─────────────────────┘
"""


@pytest.mark.parametrize(("at30", "largest"), [("7.418%", 7.418), ("-9.100%", 9.1), ("   nan%", math.inf)])
def test_the_largest_variance_is_the_tables(at30: str, largest: float) -> None:
    assert largest_variance(FEE + TABLE.format(at30=at30)) == largest


def test_without_a_table_nothing_varies() -> None:
    assert largest_variance(FEE) == 0.0


def test_every_strategy_is_checked() -> None:
    assert set(CASES) == set(STRATEGIES)
