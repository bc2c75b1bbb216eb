"""What a look at the data found, in words: the few things that are worth a person's time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipelines.candles import iso, timeframe_ms
from pipelines.drift import ANOTHER, FeatureReport
from pipelines.inspect import OUTLIER_SIGMAS, Outlier, SeriesReport, SlowReport

HOUR_MS = 3_600_000
_LATE_STEPS = 3  # a series that ends more steps before the newest one of its kind is stale
_LONG_RUN = 12  # candles without a trade, or without a move, in one run


@dataclass(frozen=True)
class StoredSeries:
    """One stored series; `report` for candles and mark prices, `slow` for the others; times in ms.

    `confirmed`: missing candles that the exchange does not have either, asked twice; `listed_ms` and `delisted_ms`: its
    first and last row ever, where the exchange told. `behind_hours`: how far its end lies behind the newest one of its
    exchange, kind and timeframe. `delays`: hours from a period's end to its publication, measured and assumed ones.
    """

    exchange: str
    kind: str
    pair: str
    timeframe: str
    rows: int
    start_ms: int
    end_ms: int
    content_hash: str
    report: SeriesReport | None
    slow: SlowReport | None = None
    confirmed: int = 0
    listed_ms: int | None = None
    delisted_ms: int | None = None
    behind_hours: float = 0.0
    delays: tuple[tuple[float, ...], ...] = field(default=(), repr=False)

    @property
    def alike(self) -> tuple[str, ...]:
        """What it shares with the series that it is compared with."""
        return self.exchange, self.kind, self.timeframe

    @property
    def name(self) -> str:
        """As people say it."""
        kind = "" if self.kind == "ohlcv" else self.kind
        return " ".join(filter(None, (self.exchange, kind, self.pair, self.timeframe)))


@dataclass(frozen=True)
class FeaturesReport:
    """A built data set: its features over all pairs, and the periods that drift is told for."""

    spec_hash: str
    pairs: tuple[str, ...]
    timeframe: str
    rows: int
    start_ms: int
    end_ms: int
    warmup: int
    periods: tuple[str, ...]
    features: tuple[FeatureReport, ...]


def findings(series: Sequence[StoredSeries], features: FeaturesReport | None) -> Iterator[str]:
    """Holes first, then silence, staleness, assumed times, drift, and extreme moves."""
    yield from (f"{item.name}: {text}" for kind in (_holes, _silence) for item in series for text in kind(item))
    yield from _late(series)
    yield from (f"{item.name}: {text}" for item in series for text in _assumed(item))
    if features is not None:
        yield from _feature_findings(features.features, features.periods)
    worst = [(max(item.report.extremes, key=_size), item) for item in series if item.report and item.report.extremes]
    for move, item in sorted(worst, key=lambda entry: -entry[0].sigmas):
        more = len(item.report.outliers) - 1 if item.report is not None else 0
        where = f"{move.log_return:+.1%} in the candle of {iso(move.time_ms)}, {move.sigmas:.0f} robust sigmas"
        yield f"{item.name}: {where}{f' ({more} more beyond {OUTLIER_SIGMAS:.0f})' if more else ''}."


def _size(move: Outlier) -> float:
    return move.sigmas


def _holes(item: StoredSeries) -> Iterator[str]:
    if item.report is not None and item.report.gaps:
        found, longest = item.report, max(item.report.gaps, key=lambda gap: gap.missing)
        yield (
            f"{len(found.gaps)} gap(s), {found.missing} candles missing ({1 - found.coverage:.2%}); the longest of"
            f" {longest.missing} from {iso(longest.start_ms)}"
            f"{f'; the exchange has {item.confirmed} of them no more than we' if item.confirmed else ''}."
        )
    if item.slow is not None and item.slow.holes:
        yield f"{item.slow.holes} hole(s) between rows that usually come every {item.slow.step_hours:g} h."


def _silence(item: StoredSeries) -> Iterator[str]:
    if item.report is not None and item.report.idle.length >= _LONG_RUN:
        yield f"nothing was traded for {item.report.idle.length} candles from {iso(item.report.idle.start_ms)}."
    if item.report is not None and item.report.stuck.length >= _LONG_RUN:
        yield f"the price stood still for {item.report.stuck.length} candles from {iso(item.report.stuck.start_ms)}."


def _late(series: Sequence[StoredSeries]) -> Iterator[str]:
    for item in series:
        if item.delisted_ms is not None:
            yield f"{item.name}: delisted; its last row is of {iso(item.delisted_ms)}."
    groups: dict[tuple[str, ...], list[StoredSeries]] = {}
    for item in series:
        step_ms = (
            timeframe_ms(item.timeframe) if item.timeframe else (item.slow.step_hours if item.slow else 0) * HOUR_MS
        )
        if item.delisted_ms is None and item.behind_hours * HOUR_MS > _LATE_STEPS * step_ms:
            groups.setdefault(item.alike, []).append(item)
    for alike, late in groups.items():
        hours = max(item.behind_hours for item in late)
        names = ", ".join(item.pair for item in late)
        kind = " ".join(filter(None, alike)).replace(" ohlcv", "")
        yield f"{kind}: {names} end(s) up to {hours:.1f} h before the newest series of that kind."


def _assumed(item: StoredSeries) -> Iterator[str]:
    if item.slow is not None and item.slow.assumed > 0:
        yield f"{item.slow.assumed:.0%} of the rows have an assumed time of publication and may hold later revisions."


def _feature_findings(features: Sequence[FeatureReport], periods: Sequence[str]) -> Iterator[str]:
    holes = [f"{each.name} ({each.missing:.1%})" for each in features if each.missing > 0.01]
    if holes:
        yield f"features without a value in more than 1% of the rows: {', '.join(holes)}."
    moved = [(each, periods[each.psi.index(each.worst_psi)]) for each in features if each.worst_psi > ANOTHER]
    if moved:
        words = ", ".join(f"{each.name} ({each.worst_psi:.2f} in {at})" for each, at in moved)
        yield f"features with another distribution than at first, by PSI: {words}."
