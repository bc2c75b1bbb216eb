from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mtst.economics import EconomicValue
from mtst.evaluation import Comparison, Evaluation, HorizonSkill
from mtst.promotion import Bar, PromotionPolicy, decide_promotion
from mtst.scoring import HorizonScores, Scores
from mtst.significance import Interval

HOUR = 3_600_000
LOSSES = 0.2 + 0.001 * np.random.default_rng(0).standard_normal(1000)


def series(gain: float, seed: int = 1) -> tuple[float, ...]:
    """A rival's losses, on average `gain` above ours, never in step with them."""
    return tuple((LOSSES + gain + 0.002 * np.random.default_rng(seed).standard_normal(1000)).tolist())


def value(name: str, net: float, entries: int = 60) -> EconomicValue:
    return EconomicValue(name, net, net + 0.02, 1.0, 0.05, 0.2 if entries else 0.0, entries, 300)


def direction(low: float) -> HorizonSkill:
    interval = Interval(low + 0.04, low, low + 0.08)
    return HorizonSkill(4, interval, interval)


def scores(coverage: float) -> Scores:
    rows = [
        HorizonScores(h, 500, 0.2, 0.01, c, 0.52, 0.5, 0.55, 0.05, 0.04, (0.1, 0.5, 0.9))
        for h, c in ((1, 0.80), (4, coverage))
    ]
    return Scores("mtst", 0.2, tuple(rows))


def excellent(**changes: Any) -> Evaluation:
    return replace(
        Evaluation(
            model="mtst", n_folds=3, n_windows=3000, start_ms=0, end_ms=999 * HOUR, horizons=(1, 4),
            levels=(0.1, 0.5, 0.9),
            scores={"mtst": scores(0.79)},
            comparisons={n: Comparison(n, 0.03, 4.0, 0.001, 0.002, 1000) for n in ("ewma", "lightgbm")},
            regimes={"calm": -0.02, "normal": -0.01, "wild": -0.03},
            economics={"mtst": value("mtst", 0.08), "cash": value("cash", 0.01, 0), "hold": value("hold", 0.2)},
            profit_p=0.01, fold_skill=(0.03, 0.02, 0.01), times_ms=tuple(range(0, 1000 * HOUR, HOUR)),
            losses=tuple(LOSSES.tolist()), seconds=1.0,
            skill=(direction(0.02), direction(0.05)),
            rivals={"ewma": series(0.006), "lightgbm": series(0.003, 2)},
        ),
        **changes,
    )  # fmt: skip


def economics(net: float, entries: int = 60, cash: float = 0.01) -> dict[str, EconomicValue]:
    return {"mtst": value("mtst", net, entries), "cash": value("cash", cash, 0), "hold": value("hold", 0.2)}


def compared(**changes: float) -> dict[str, Comparison]:
    good = Comparison("ewma", 0.03, 4.0, 0.001, 0.002, 1000)
    return {"ewma": replace(good, **changes), "lightgbm": replace(good, against="lightgbm")}


def rivals(gain: float) -> dict[str, tuple[float, ...]]:
    return {"ewma": series(0.006), "lightgbm": series(gain, 2)}


def test_all_bars_cleared_makes_a_champion() -> None:
    decision = decide_promotion(excellent())
    assert decision.status == "champion"
    assert all(r.passed for r in decision.reasons)
    assert "may trade" in decision.text


@pytest.mark.parametrize(
    ("changes", "bar", "says"),
    [
        ({"comparisons": compared(p_value=0.2)}, Bar.BEATS_NAIVE, r"recent volatility.*3\.00% smaller.*0\.200"),
        ({"comparisons": compared(bootstrap_p=0.06)}, Bar.BEATS_NAIVE, r"0\.060 \(needs below 0\.05\)"),
        ({"comparisons": compared(improvement=-0.01)}, Bar.BEATS_NAIVE, r"1\.00% larger"),
        ({"rivals": rivals(-0.007)}, Bar.HOLDS_AGAINST_RIVAL, r"boosted trees.*keep more than 50%.*is 1\.000"),
        ({"comparisons": {}}, Bar.EVIDENCE, "0 baselines"),
        ({"n_folds": 1}, Bar.EVIDENCE, "1 folds"),
        ({"times_ms": (0,), "losses": (0.2,)}, Bar.EVIDENCE, "1 times"),
        ({"scores": {"mtst": scores(0.72)}}, Bar.CALIBRATED, r"72\.0%.*4 candles.*off by 8\.0%"),
        ({"scores": {"mtst": scores(0.88)}}, Bar.CALIBRATED, r"88\.0%"),
        ({"regimes": {"calm": -0.05, "wild": 0.02}}, Bar.REGIMES, r"wild.*\+2\.00%"),
        ({"skill": (direction(0.02), direction(-0.01))}, Bar.DIRECTION, r"over 4 candles.*-0\.010 to \+0\.070"),
        ({"skill": ()}, Bar.DIRECTION, "not known"),
        ({"economics": economics(-0.01)}, Bar.PROFIT, r"-1\.00%"),
        ({"economics": economics(0.005)}, Bar.PROFIT, "cash made"),
        ({"economics": economics(-0.001, cash=-0.02)}, Bar.PROFIT, "cash"),
        ({"economics": economics(0.0, entries=0), "profit_p": 1.0}, Bar.PROFIT, "never found a trade"),
        ({"profit_p": 0.3}, Bar.PROFIT_PROVEN, r"luck is 0\.300"),
        ({"economics": economics(0.08, entries=5)}, Bar.PROFIT_PROVEN, "5 entries"),
    ],
)
def test_one_bar_failed_means_shadow_and_says_by_how_much(changes: dict[str, Any], bar: Bar, says: str) -> None:
    decision = decide_promotion(excellent(**changes))
    assert decision.status == "shadow"
    failed = [r for r in decision.reasons if not r.passed]
    assert bar in [r.code for r in failed]
    text = next(r.text for r in failed if r.code == bar)
    assert text in decision.text
    assert re.search(says, text), text


def test_a_rival_that_found_a_little_more_is_no_reason_to_leave_the_edge_and_one_that_found_far_more_is() -> None:
    beaten = PromotionPolicy(rival_share=1.0)
    for gain, holds, beats in ((0.003, True, True), (-0.001, True, False), (-0.008, False, False)):
        challenger = excellent(rivals=rivals(gain))
        assert (decide_promotion(challenger).status == "champion") is holds, gain
        strict = decide_promotion(challenger, policy=beaten)
        assert (strict.status == "champion") is beats, gain
        assert "every baseline, the learning ones too, must be beaten (p < 0.05)" in strict.text
        assert "more than 50% be kept (p < 0.05)" in decide_promotion(challenger).text
        assert strict.to_dict()["policy"]["rival_share"] == 1.0


def test_the_summary_quotes_the_last_failures_and_counts_the_rest() -> None:
    decision = decide_promotion(
        excellent(skill=(), profit_p=0.5, economics=economics(-0.1), scores={"mtst": scores(0.6)}, n_folds=1)
    )
    failed = [reason for reason in decision.reasons if not reason.passed]
    assert len(failed) == 5
    assert all(reason.text in decision.text for reason in failed[-3:])
    assert "And 2 more. Asked for" in decision.text


def test_a_rival_that_learned_nothing_asks_for_no_more_than_to_be_beaten() -> None:
    useless = {"ewma": series(0.006), "lightgbm": series(0.02, 2)}
    decision = decide_promotion(excellent(rivals=useless))
    assert decision.status == "champion"
    assert "gains nothing over the best naive" in next(r.text for r in decision.reasons if "LightGBM" in r.text)
    behind = compared()
    behind["lightgbm"] = replace(behind["lightgbm"], improvement=-0.001)
    assert decide_promotion(excellent(rivals=useless, comparisons=behind)).status == "shadow"


def test_a_better_champion_is_kept_and_a_worse_one_replaced() -> None:
    ours = excellent()
    worse = excellent(losses=tuple(x + 0.01 for x in ours.losses))
    assert decide_promotion(ours, worse).status == "champion"
    for kept in (ours, excellent(losses=tuple(x - 0.01 for x in ours.losses))):
        decision = decide_promotion(ours, kept)
        assert decision.status == "shadow"
        assert [r.code for r in decision.reasons if not r.passed] == [Bar.BEATS_CHAMPION]


def test_a_champion_of_other_times_cannot_be_compared() -> None:
    other = excellent(times_ms=tuple(t + 10_000 * HOUR for t in excellent().times_ms))
    decision = decide_promotion(excellent(), other)
    assert decision.status == "shadow"
    assert "0 tested times" in decision.text


def test_the_policy_moves_the_bars() -> None:
    off = excellent(scores={"mtst": scores(0.72)})
    assert decide_promotion(off, policy=PromotionPolicy(coverage_tolerance=0.1)).status == "champion"


def test_the_decision_is_plain_data() -> None:
    data = decide_promotion(excellent()).to_dict()
    assert data["status"] == "champion"
    assert {r["code"] for r in data["reasons"]} == set(Bar) - {Bar.BEATS_CHAMPION}
