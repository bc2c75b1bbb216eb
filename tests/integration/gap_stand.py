"""A stand for two legs: a basis that opens and closes at known times, and what everybody says of the legs meanwhile.

Bitcoin is bought on one account's spot book and sold short on the other account's perpetual of the same bitcoin, whose
own candles are at times dearer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from observability.progress import NullProgress
from tests.integration.planted import Floats, trading_on, write_pair
from trading.arbitrage.coordinator import Phase

LONG, SHORT = "gap-long", "gap-short"
CHEAP, DEAR = "BTC/USDT", "BTC/USDT:USDT"
HISTORY, PULSE, WIDE = 450, 12, 0.015
BEFORE, AFTER = 1, 10  # candles of a pulse: just before its basis opens, and when it has closed
MINUTE = 60_000


class GapStand:
    """A fleet of two legs on virtual time."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.fleet, self.exchange, self.settings = found["fleet"], found["exchange"], found["settings"]

    @property
    def coordinator(self) -> Any:
        """Handle of its actor."""
        import ray

        return ray.get_actor("legs-gap", namespace="mtst")

    @property
    def standing(self) -> Any:
        """What the coordinator knows."""
        import ray

        return ray.get(self.coordinator.standing.remote(), timeout=10)

    @property
    def phase(self) -> Phase:
        """Where the pair stands."""
        return Phase(self.standing.pair.phase)

    def ledger(self) -> dict[str, Any]:
        """The exchange's books, which balance."""
        with closing(self.exchange.client()) as client:
            found = client.ledger()
        assert found["problems"] == []
        return dict(found)

    def held(self) -> tuple[float, float]:
        """Bitcoin that the long leg owns, and the short leg's position, by the exchange's ledger."""
        ledger = self.ledger()
        coins = ledger["accounts"][LONG]["balances"].get("BTC", {"total": "0"})["total"]
        positions = ledger["futures"][SHORT]["positions"]
        return float(coins), float(positions[0]["amount"]) if positions else 0.0

    def flat(self) -> bool:
        """Whether neither leg holds anything that can be traded."""
        coins, position = self.held()
        return coins * 60_000 < 10 and position == 0

    def orders(self, account: str) -> list[dict[str, Any]]:
        """An account's orders on its book, by the exchange's ledger."""
        return list(self.ledger()["accounts" if account == LONG else "futures"][account]["orders"])

    def story(self) -> str:
        """What everybody says, for a test that failed."""
        return "\n".join(map(str, [self.held(), self.standing, *self.fleet.status().values()]))

    def minutes(self, count: int, until: Callable[[], bool] | None = None) -> int:
        """Let virtual minutes pass, one by one, at most `count`, until something is true; returns how many passed."""
        from trading.adapters.fleet import CONDUCTOR

        with closing(self.exchange.client()) as client:
            for passed in range(count):
                if until is not None and until():
                    return passed
                client.sleep(CONDUCTOR, client.join(CONDUCTOR) + MINUTE)
                client.join(CONDUCTOR)
                self.fleet.settle_down()
        return count

    def until_phase(self, phase: Phase, minutes: int = 60) -> None:
        """Let time run until the pair stands there."""
        self.minutes(minutes, lambda: self.phase is phase)
        assert self.phase is phase, self.story()

    def to_pulse(self, pulse: int, candle: int = BEFORE) -> None:
        """Let time run to a candle of a pulse."""
        with closing(self.exchange.client()) as client:
            now_ms = client.now_ms()
        begins = self.exchange.open_ms + (pulse * PULSE + candle) * 15 * MINUTE
        assert now_ms <= begins
        self.fleet.run_candles(-(-(begins - now_ms) // (15 * MINUTE)), NullProgress())

    def plan(self, **fault: Any) -> None:
        """Let a request of the short leg fail."""
        with closing(self.exchange.client()) as client:
            client.plan_fault(account=SHORT, method="POST", **fault)

    def books_agree(self) -> None:
        """Bot, journal and ledger, to 1e-8."""
        books = self.fleet.books()
        assert books.agree, {name: book.text for name, book in books.by_bot.items()}
        assert books.difference < 1e-8


def _basis(rows: int, pulses: int) -> Floats:
    """ln(perpetual / spot): nothing, then wide, then nothing, once in every `PULSE` candles of trading."""
    basis = np.zeros(rows)
    for pulse in range(pulses):
        first = HISTORY + pulse * PULSE + BEFORE + 1
        basis[first : first + 6] = WIDE
    return basis


@contextmanager
def gap_stand(root: Path, pulses: int) -> Iterator[GapStand]:
    """Two legs over a basis that opens `pulses` times."""
    candles = root / "candles"
    candles.mkdir()
    rows = HISTORY + pulses * PULSE + 10
    log_btc = np.log(60_000.0) + np.cumsum(np.random.default_rng(5).normal(0.0, 0.0008, rows))
    write_pair(candles, CHEAP, log_btc, perpetual=log_btc + _basis(rows, pulses))
    options = {"gap": {"long": CHEAP, "short": DEAR, "rest_s": 1_800}}
    with trading_on(candles, (CHEAP,), rows - HISTORY, strategies=("gap",), options=options) as found:
        yield GapStand(found)
