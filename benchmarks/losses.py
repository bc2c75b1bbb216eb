"""The ways in which users of Freqtrade lose money: plain Freqtrade beside ours, on exchanges of the same seed.

Both see the same candles, want the same trades and meet the same faults; both are killed and begun again alike. Counted
is what the exchange's ledger and the bot's own database say afterwards.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from importlib.metadata import version

from benchmarks.figures import Figure, Figures, Table
from benchmarks.loss_stand.scenarios import SCENARIOS, Scenario
from benchmarks.loss_stand.stand import Harm
from observability.errors import SettingsError
from observability.progress import Progress

COLUMNS = tuple(field.name for field in fields(Harm))


def run(progress: Progress, *, only: tuple[str, ...] = (), seed: int = 7) -> Figures:
    """Play the scenarios (all, or those whose names begin so) with both contenders."""
    chosen = [item for item in SCENARIOS if not only or item.name.startswith(only)]
    if not chosen:
        names = ", ".join(item.name for item in SCENARIOS)
        raise SettingsError(f"no scenario begins with {', '.join(only)}", where="--only", todo=f"there are: {names}")
    outcomes: dict[str, tuple[Harm, Harm]] = {}
    with progress.task("scenarios", 2 * len(chosen)) as task:
        for scenario in chosen:
            outcomes[scenario.name] = (_played(scenario, False, seed), _played(scenario, True, seed))
            task.advance(2, scenario.name)
    unharmed = ", ".join(name for name, (plain, _) in outcomes.items() if plain.none) or "none"
    plain, ours = (tuple(pair[side] for pair in outcomes.values()) for side in (0, 1))
    return Figures(
        "How users lose money",
        (
            _figure("orphans, duplicates, unprotected", "", *(sum(map(_harms, side)) for side in (ours, plain))),
            _figure("money the books differ by", "USDT", *(sum(item.money for item in side) for side in (ours, plain))),
            _figure("scenarios with a loss", "", *(sum(not item.none for item in side) for side in (ours, plain))),
        ),
        "nothing: counts. Each scenario is one play; the seed draws the market, the faults are the same for both. "
        f"Scenarios that do not harm plain Freqtrade {version('freqtrade')}: {unharmed}",
        {"seed": seed, "scenarios": {name: [asdict(item) for item in pair] for name, pair in outcomes.items()}},
        (_table(outcomes),),
    )


def _played(scenario: Scenario, ours: bool, seed: int) -> Harm:
    return scenario.run(ours=ours, seed=seed)


def _harms(harm: Harm) -> int:
    return harm.orphans + harm.duplicates + harm.unprotected


def _figure(name: str, unit: str, ours: float, plain: float) -> Figure:
    return Figure(name, ours, unit, "plain Freqtrade", plain, goal=0, at_most=True, goal_of="value")


def _table(outcomes: dict[str, tuple[Harm, Harm]]) -> Table:
    rows = [
        (name, who, *(_text(getattr(harm, column)) for column in COLUMNS), _verdict(harm))
        for name, pair in outcomes.items()
        for who, harm in zip(("plain", "ours"), pair, strict=True)
    ]
    return Table("Scenario by scenario", ("scenario", "", *COLUMNS, ""), tuple(rows))


def _verdict(harm: Harm) -> str:
    return "no harm" if harm.none else "HARM"


def _text(value: float) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
