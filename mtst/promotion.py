"""May a challenger trade? A pure decision with its reasons in words.

No model trades because it exists. It becomes champion only when every bar is cleared on data it never saw; otherwise it
runs in shadow: scored, not traded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Literal

import numpy as np

from mtst.baselines import IN_WORDS, NAIVE
from mtst.evaluation import MODEL, Comparison, Evaluation, compare

TOLD = 3  # failed bars that the summary quotes: the last ones, which are about direction and money


class Bar(StrEnum):
    """What a challenger must clear."""

    EVIDENCE = "EVIDENCE"
    BEATS_NAIVE = "BEATS_NAIVE"
    HOLDS_AGAINST_RIVAL = "HOLDS_AGAINST_RIVAL"
    BEATS_CHAMPION = "BEATS_CHAMPION"
    CALIBRATED = "CALIBRATED"
    REGIMES = "REGIMES"
    DIRECTION = "DIRECTION"
    PROFIT = "PROFIT"
    PROFIT_PROVEN = "PROFIT_PROVEN"


@dataclass(frozen=True, slots=True)
class PromotionPolicy:
    """The bars' heights.

    Attributes:
        p_value: largest p of both tests that the loss is really smaller.
        rival_share: how much of what a learning baseline gains over the best naive one the model must surely exceed;
            1 demands that it beats every learning baseline outright (docs/adr explains the default).
        coverage_tolerance: how far, at any horizon, the share of returns inside the central 80 % may lie from 0.8.
        regime_margin: how much worse than the EWMA baseline the loss may be in any volatility regime.
        profit_p: largest p that the net return above cash is luck.
    """

    p_value: float = 0.05
    rival_share: float = 0.5
    coverage_tolerance: float = 0.04
    regime_margin: float = 0.01
    profit_p: float = 0.10
    min_folds: int = 2
    min_times: int = 200
    min_entries: int = 20

    @property
    def asked(self) -> str:
        """What is asked against the learning baselines, in words."""
        if self.rival_share >= 1:
            return f"Asked for: every baseline, the learning ones too, must be beaten (p < {self.p_value:g})."
        return (
            "Asked for: every naive baseline must be beaten, and of what a learning one gains more than "
            f"{self.rival_share:.0%} be kept (p < {self.p_value:g})."
        )


@dataclass(frozen=True, slots=True)
class Reason:
    """One bar: cleared or not, in words with the numbers."""

    code: Bar
    passed: bool
    text: str


@dataclass(frozen=True, slots=True)
class PromotionDecision:
    """`status` "champion" may trade, "shadow" may not; `text` says it in words, and how high `policy` put the bars."""

    status: Literal["champion", "shadow"]
    reasons: tuple[Reason, ...]
    text: str
    policy: PromotionPolicy = PromotionPolicy()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able dictionary."""
        return asdict(self)


def decide_promotion(
    challenger: Evaluation, champion: Evaluation | None = None, policy: PromotionPolicy | None = None
) -> PromotionDecision:
    """Champion if and only if every bar is cleared."""
    policy = policy or PromotionPolicy()
    reasons = [_evidence(challenger, policy)]
    naive = [name for name in challenger.comparisons if name in NAIVE]
    reasons += [_beats(Bar.BEATS_NAIVE, _name(n), challenger.comparisons[n], policy) for n in naive]
    reasons += [_holds(challenger, n, naive, policy) for n in challenger.comparisons if n not in NAIVE]
    if champion is not None:
        reasons.append(_beats_champion(challenger, champion, policy))
    reasons += [_calibrated(challenger, policy), _regimes(challenger, policy), _direction(challenger)]
    reasons += _profit(challenger, policy)
    failed = [r for r in reasons if not r.passed]
    if not failed:
        text = f"Champion: it cleared all {len(reasons)} bars on {challenger.n_folds} unseen folds and may trade."
        return PromotionDecision("champion", tuple(reasons), f"{text} {policy.asked}", policy)
    more = f" And {len(failed) - TOLD} more." if len(failed) > TOLD else ""
    text = f"Shadow (scored, not traded): {len(failed)} of {len(reasons)} bars failed. "
    text += " ".join(r.text for r in failed[-TOLD:]) + more
    return PromotionDecision("shadow", tuple(reasons), f"{text} {policy.asked}", policy)


def _name(baseline: str) -> str:
    return IN_WORDS.get(baseline, baseline)


def _evidence(e: Evaluation, policy: PromotionPolicy) -> Reason:
    enough = e.n_folds >= policy.min_folds and len(e.times_ms) >= policy.min_times and bool(e.comparisons)
    return Reason(
        Bar.EVIDENCE,
        enough,
        f"Tested on {e.n_folds} folds, {len(e.times_ms)} times and against {len(e.comparisons)} baselines; "
        f"needs {policy.min_folds}, {policy.min_times} and at least one.",
    )


def _beats(code: Bar, name: str, c: Comparison, policy: PromotionPolicy) -> Reason:
    p = max(c.p_value, c.bootstrap_p)
    passed = c.improvement > 0 and p < policy.p_value
    better = f"{abs(c.improvement):.2%} {'smaller' if c.improvement > 0 else 'larger'}"
    verdict = "beats" if passed else "does not beat"
    return Reason(
        code,
        passed,
        f"The forecast {verdict} {name}: its loss is {better}, and the chance that this is luck is {p:.3f} "
        f"(needs below {policy.p_value:g}).",
    )


def _holds(e: Evaluation, rival: str, naive: Sequence[str], policy: PromotionPolicy) -> Reason:
    """Beyond doubt better than a mix of the best naive baseline and the rival, time by time.

    A simpler model that finds the same edge is no reason to leave the edge; one that finds far more of it is. Medicine
    tests a new drug against an old one so: it must surely preserve a share of the old one's effect over none.
    """
    plain, share = e.comparisons[rival], policy.rival_share
    theirs = np.asarray(e.rivals.get(rival, ()))
    if len(theirs) != len(e.losses) or len(theirs) < policy.min_times:
        text = f"The losses of {_name(rival)} at the tested times are not known: nothing can be compared."
        return Reason(Bar.HOLDS_AGAINST_RIVAL, False, text)
    best = min((np.asarray(e.rivals[name]) for name in naive), key=lambda losses: float(losses.mean()), default=theirs)
    against = f"{abs(plain.improvement):.2%} {'smaller' if plain.improvement > 0 else 'larger'} than that of"
    if theirs.mean() >= best.mean() and share < 1:
        text = f"The forecast's loss is {against} {_name(rival)}, which gains nothing over the best naive baseline."
        return Reason(Bar.HOLDS_AGAINST_RIVAL, plain.improvement > 0, text)
    c = compare(rival, np.asarray(e.losses), (1 - share) * best + share * theirs, max(e.horizons))
    p = max(c.p_value, c.bootstrap_p)
    kept = f"keep more than {share:.0%} of what that one gains" if share < 1 else "be better"
    return Reason(
        Bar.HOLDS_AGAINST_RIVAL,
        c.improvement > 0 and p < policy.p_value,
        f"The forecast's loss is {against} {_name(rival)} (p {max(plain.p_value, plain.bootstrap_p):.3f}); the chance "
        f"that it only seems to {kept} is {p:.3f} (needs below {policy.p_value:g}).",
    )


def _beats_champion(e: Evaluation, champion: Evaluation, policy: PromotionPolicy) -> Reason:
    """Only times that both have forecast count; too few of them prove nothing."""
    _, ours, theirs = np.intersect1d(e.times_ms, champion.times_ms, return_indices=True)
    if len(ours) < policy.min_times:
        return Reason(
            Bar.BEATS_CHAMPION,
            False,
            f"It shares only {len(ours)} tested times with the present champion, {policy.min_times} are needed: "
            "evaluate the champion's recipe on the same folds.",
        )
    c = compare("champion", np.asarray(e.losses)[ours], np.asarray(champion.losses)[theirs], max(e.horizons))
    return _beats(Bar.BEATS_CHAMPION, "the present champion", c, policy)


def _calibrated(e: Evaluation, policy: PromotionPolicy) -> Reason:
    worst = max(e.scores[MODEL].horizons, key=lambda s: abs(s.coverage - 0.8))
    off = abs(worst.coverage - 0.8)
    return Reason(
        Bar.CALIBRATED,
        off <= policy.coverage_tolerance,
        f"Its 80 % range held {worst.coverage:.1%} of the returns at its worst horizon ({worst.horizon} candles); "
        f"it may be off by {policy.coverage_tolerance:.0%}, and is off by {off:.1%}.",
    )


def _regimes(e: Evaluation, policy: PromotionPolicy) -> Reason:
    name, worst = max(e.regimes.items(), key=lambda item: item[1])
    return Reason(
        Bar.REGIMES,
        worst <= policy.regime_margin,
        f"In its worst market ({name}) its loss is {worst:+.2%} of recent volatility alone; "
        f"at most {policy.regime_margin:+.2%} is allowed.",
    )


def _direction(e: Evaluation) -> Reason:
    """At the longest horizon, which is traded: skill in volatility alone earns nothing from a position."""
    if not e.skill:
        return Reason(Bar.DIRECTION, False, "How its expected returns go with the actual ones is not known.")
    longest = e.skill[-1]
    ic = longest.ic
    return Reason(
        Bar.DIRECTION,
        ic.low > 0,
        f"Expected and actual returns over {longest.horizon} candles correlate by {ic.value:+.3f} (95 %: {ic.low:+.3f} "
        f"to {ic.high:+.3f}); that must surely be above zero.",
    )


def _profit(e: Evaluation, policy: PromotionPolicy) -> tuple[Reason, Reason]:
    ours, cash, hold = e.economics[MODEL], e.economics["cash"], e.economics["hold"]
    earned = ours.net_return >= 0 and ours.net_return > cash.net_return
    traded = ours.entries >= policy.min_entries
    result = (
        f"it returned {ours.net_return:+.2%} in {ours.entries} entries" if ours.turnover else "it never found a trade"
    )
    return (
        Reason(
            Bar.PROFIT,
            earned,
            f"After fees and spread {result} (worst fall {ours.max_drawdown:.1%}); "
            f"cash made {cash.net_return:+.2%}, buy and hold {hold.net_return:+.2%}. It must beat cash.",
        ),
        Reason(
            Bar.PROFIT_PROVEN,
            traded and e.profit_p < policy.profit_p,
            f"The chance that its profit above cash is luck is {e.profit_p:.3f} from {ours.entries} entries "
            f"(needs below {policy.profit_p:g} and at least {policy.min_entries}).",
        ),
    )
