"""The model card as one self-contained page that a trader can read: may it trade, why, and what it was tested on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster import card_charts, charts
from mtst.baselines import IN_WORDS
from mtst.evaluation import MODEL, Evaluation
from mtst.promotion import PromotionDecision
from observability.files import write_whole

TEMPLATES = Path(__file__).with_name("templates")
FILE = "model_card.html"


def write_card(folder: Path, card: Mapping[str, Any], evaluation: Evaluation, decision: PromotionDecision) -> Path:
    """Write the page `model_card.html` into a folder; `card` is the artifact's `card.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_whole(folder / FILE, render_card(card, evaluation, decision))


def render_card(card: Mapping[str, Any], evaluation: Evaluation, decision: PromotionDecision) -> str:
    """The page as a string; it loads nothing from anywhere."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    observed = {f"{row.horizon} candles": row.calibration for row in evaluation.scores[MODEL].horizons}
    equity = dict(evaluation.equity)
    if equity:
        equity = {"the model, after costs": equity[MODEL], "buy and hold": equity["hold"]}
    pictures: dict[str, Any] = {
        "equity": charts.lines("What 1 would have become, out of sample", equity),
        "drawdown": charts.drawdown("How far below its highest point", equity),
        "scores": charts.scores({name: scores.pinball for name, scores in evaluation.scores.items()}, MODEL),
        "regimes": card_charts.changes("Loss against EWMA, by market", evaluation.regimes, good_below=True),
        "calibration": charts.calibration(evaluation.levels, observed),
        "spread": card_charts.spread(evaluation.levels, observed),
    }
    safe = {name: Markup(svg) for name, svg in pictures.items()}  # noqa: S704 - our own SVG
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["day"] = lambda ms: f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d}"
    return environment.get_template("model_card.html.j2").render(
        card=card, e=evaluation, decision=decision, told=sentences(evaluation), rows=_horizons(evaluation),
        rivals=_rivals(evaluation), charts=safe,
    )  # fmt: skip


def sentences(e: Evaluation) -> tuple[str, ...]:
    """The findings in words, each with its doubt."""
    ours, cash, hold = (e.economics[name] for name in (MODEL, "cash", "hold"))
    told = [
        f"Money: after fees, spread and funding it would have made {ours.net_return:+.1%} in {ours.entries} entries "
        f"(worst fall {ours.max_drawdown:.1%}), where cash made {cash.net_return:+.1%} and holding all pairs "
        f"{hold.net_return:+.1%}. The chance that its lead over cash is luck is {e.profit_p:.1%}.",
    ]
    if e.deflated is not None:
        tried = (
            f"{e.deflated.trials} configurations were tried, and the best of so many worthless ones looks good too: "
            "the chance that it beats that"
            if e.deflated.trials > 1
            else "The chance that it is above zero"
        )
        told.append(
            f"Its Sharpe ratio was {ours.sharpe:.1f} a year. {tried} is {e.deflated.probability:.0%} "
            "(deflated Sharpe ratio)."
        )
    if e.overfitting is not None:
        told.append(
            f"Had the past been halved in {e.overfitting.splits} other ways, the best of the {e.overfitting.trials} "
            f"trials would have been below the middle on the other half in {e.overfitting.probability:.0%} of them "
            f"(about 50% when trials hardly differ)."
        )
    if e.skill:
        far, scores = e.skill[-1], e.scores[MODEL].horizons[-1]
        told.append(
            f"Direction: of the moves over {far.horizon} candles it called {scores.direction:.1%} right (95 %: "
            f"{scores.direction_low:.1%} to {scores.direction_high:.1%}); expected and actual returns correlate by "
            f"{far.ic.value:+.3f} ({far.ic.low:+.3f} to {far.ic.high:+.3f})."
        )
    for name, c in e.volatility.items():
        verdict = "better" if c.improvement > 0 else "worse"
        told.append(
            f"Volatility: its forecast is {verdict} than {IN_WORDS.get(name, name)} by {abs(c.improvement):.4f} QLIKE; "
            f"the chance that it is not better is {max(c.p_value, c.bootstrap_p):.3f}."
        )
    return tuple(told)


def _horizons(e: Evaluation) -> list[dict[str, str]]:
    skill = {each.horizon: each for each in e.skill}
    rows = []
    for row in e.scores[MODEL].horizons:
        known = skill.get(row.horizon)
        rows.append(
            {
                "candles ahead": str(row.horizon),
                "direction right": f"{row.direction:.1%} ({row.direction_low:.1%} to {row.direction_high:.1%})",
                "IC": "" if known is None else f"{known.ic.value:+.3f} ({known.ic.low:+.3f} to {known.ic.high:+.3f})",
                "rank IC": "" if known is None else f"{known.rank_ic.value:+.3f}",
                "in the 80 % range": f"{row.coverage:.1%}",
                "CRPS": f"{row.crps:.3g}",
            }
        )
    return rows


def _rivals(e: Evaluation) -> list[dict[str, str]]:
    ordered = sorted(e.comparisons.items(), key=lambda item: -item[1].improvement, reverse=True)
    return [
        {
            "compared with": IN_WORDS.get(name, name),
            "its loss": f"{e.scores[name].pinball:.5f}" if name in e.scores else "",
            "the model is better by": f"{c.improvement:+.2%}",
            "p (Diebold-Mariano)": f"{c.p_value:.4f}",
            "p (block bootstrap)": f"{c.bootstrap_p:.4f}",
        }
        for name, c in ordered
    ]
