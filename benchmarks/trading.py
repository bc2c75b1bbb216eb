"""What trading costs, in one run: a decision, a candle, a restart, and how fast virtual time goes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import bot_speed, risk_decide, speed_up
from benchmarks.figures import Figures
from cluster.ray_local import ray_session
from cluster.settings import Settings
from observability.progress import Progress


def run(
    progress: Progress, *, rounds: int = 2_000, pairs: int = 50, candles: int = 20, kills: int = 3, virtual: int = 96
) -> Figures:
    """Measure in a throw-away folder, and in one Ray session; `pairs` or `virtual` 0 leave their part out."""
    figures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with progress.task("decisions in process"):
            times = risk_decide.in_process(folder, rounds) | risk_decide.kill_switch(folder)
        settings = Settings().changed(workspace={"root": folder / "space"}, cluster={"dashboard": False})
        settings = bot_speed.configured(settings, pairs) if pairs else settings
        settings.workspace.make()
        with ray_session(settings):
            with progress.task("decisions through the actor"):
                times |= risk_decide.through_actor(folder, rounds)
            figures += risk_decide.rows(times)
            if pairs:
                figures += bot_speed.rows(settings, progress, candles=candles, kills=kills)
    if virtual:
        figures += speed_up.rows(progress, candles=virtual)
    return Figures(
        "trading",
        tuple(figures),
        "a durable answer is one sync of the journal's disk; a candle is Freqtrade's own work on every pair, and a "
        "restart its import",
        {"milliseconds": times},
    )
