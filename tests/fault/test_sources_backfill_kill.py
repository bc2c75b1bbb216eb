"""kill -9 at random moments of the real backfill command; `bench backfill-kill` does it fifty times."""

from __future__ import annotations

import random

import pytest

from benchmarks.backfill_kill import ground, kill_once

pytestmark = pytest.mark.slow
MOMENTS = 4


@pytest.mark.parametrize("market", ["simulated", pytest.param("real", marks=pytest.mark.realdata)])
def test_a_backfill_killed_at_any_moment_leaves_a_sound_store_and_is_completed_by_the_next(tmp_path, request, market):
    replay = request.getfixturevalue("shared_data") / "market" / "binance" if market == "real" else None
    drawn = random.Random(market)
    with ground(tmp_path, replay) as place:
        for number in range(MOMENTS):
            moment = kill_once(tmp_path / f"{number}", place, drawn.uniform(0.0, place.seconds))
            assert moment.sound, moment
            assert moment.same, moment
