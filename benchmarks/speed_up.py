"""How fast virtual time goes on the sandbox exchange: a day of one bot, ours beside plain Freqtrade's own loop."""

from __future__ import annotations

import time

from benchmarks.figures import Figure
from benchmarks.loss_stand.scenarios import calm
from benchmarks.loss_stand.stand import CANDLE_MS, Stand
from observability.progress import Progress


def rows(progress: Progress, *, candles: int = 96, seed: int = 7) -> tuple[Figure, ...]:
    """Virtual seconds a real second, from the first candle to the last; the bots' start is not counted."""
    with progress.task("virtual time", 2) as task:
        speeds = []
        for ours in (True, False):
            speeds.append(_speed(ours, candles, seed))
            task.advance(1, "ours" if ours else "plain")
    ours_speed, plain_speed = speeds
    note = "one pair; plain loops every 5 virtual minutes, ours once a candle"
    return (
        Figure(
            "virtual speed-up", ours_speed, "x real time", "plain Freqtrade", plain_speed, ours_speed / plain_speed,
            note=note,
        ),
    )  # fmt: skip


def _speed(ours: bool, candles: int, seed: int) -> float:
    with Stand(ours=ours, seed=seed, plan=calm) as stand:
        stand.start()
        stand.run(4)  # until it loops
        began = time.perf_counter()
        stand.run(candles)
        return candles * CANDLE_MS / 1000 / (time.perf_counter() - began)
