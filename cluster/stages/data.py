"""Data: backfill candles and build features. `enrichment` and `inspection` beside it do the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from cluster.ray_local import ray_session
from cluster.settings import Settings
from cluster.stages.exchange import find_exchange, start_exchange
from observability.metrics import Meters
from observability.progress import Progress
from pipelines.adapters import exchange as exchanges
from pipelines.adapters.exchange import BackfillSummary, ExchangeSource
from pipelines.adapters.ray_features import FeatureSummary, build_features, standing
from pipelines.candles import timeframe_ms
from pipelines.frames import onchain_key
from pipelines.spec import DatasetSpec, default_spec
from pipelines.store import CandleStore, Manifest, SeriesKey

DAY_MS = 86_400_000
_FUNDING_SLACK_MS = DAY_MS
_ONCHAIN_SLACK_MS = 9 * DAY_MS


def open_store(settings: Settings) -> CandleStore:
    """The workspace's store of raw series."""
    return CandleStore(str(settings.workspace.data_raw))


def backfill(
    settings: Settings,
    progress: Progress,
    *,
    base_url: str | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
    kinds: Sequence[str] = ("ohlcv", "funding"),
    timeframes: Sequence[str] = (),
    reread: int = exchanges.REREAD,
    verify: bool = False,
    on_nodes: bool = False,
    meters: Meters | None = None,
) -> BackfillSummary:
    """Fetch the pairs' candles (and funding, where the exchange has it) up to the exchange's own present.

    Args:
        settings: `market` says which exchange, pairs, timeframe and how many days.
        progress: where progress is shown.
        base_url: address of the sandbox exchange. Without it the workspace's running one is asked, and if none runs,
            one is started for the time of the backfill.
        since_ms: start; default `history_days` before the end.
        until_ms: end; default now by the exchange's clock.
        kinds: series to fetch.
        timeframes: of the candles; default the market's one.
        reread: newest stored rows that are asked for again, because exchanges mend them.
        verify: read every stored file first, and set damaged ones aside.
        on_nodes: ask from every node of the Ray cluster, each within its own address's limit.
        meters: where rows and the data's age are counted.

    Raises:
        SourceError: if the exchange fails, or does not offer a pair.
    """
    span: dict[str, Any] = {"since_ms": since_ms, "until_ms": until_ms}
    with exchange_address(settings, progress, base_url) as url:
        source = exchanges.open_exchange(settings.market.exchange, url)
        more: dict[str, Any] = {"kinds": kinds, "timeframes": timeframes, "reread": reread, "verify": verify}
        with _fetchers(settings, url) if on_nodes else nullcontext() as fetchers:
            return fill(settings, progress, source, meters=meters, fetchers=fetchers, **more, **span)


def fill(
    settings: Settings,
    progress: Progress,
    source: ExchangeSource,
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    timeframes: Sequence[str] = (),
    meters: Meters | None = None,
    **more: Any,
) -> BackfillSummary:
    """`backfill` from an exchange that is open already."""
    market = settings.market
    until = source.now_ms() if until_ms is None else until_ms
    summary = exchanges.backfill(
        source,
        open_store(settings),
        market.pairs,
        tuple(timeframes) or (market.timeframe,),
        since_ms=until - int(market.history_days * DAY_MS) if since_ms is None else since_ms,
        until_ms=until,
        progress=progress,
        **more,
    )
    if meters is not None:
        _count_backfill(meters, summary)
    return summary


def data_spec(settings: Settings, *, funding: bool | None = None, onchain: bool | None = None) -> DatasetSpec:
    """The data set that the settings ask for; enrichment not decided is used when it spans all candles of all pairs."""
    market, store = settings.market, open_store(settings)
    candles = [store.manifest(SeriesKey(market.exchange, "ohlcv", pair, market.timeframe)) for pair in market.pairs]
    rates = [SeriesKey(market.exchange, "funding", pair) for pair in market.pairs]
    chain = [onchain_key(market.onchain_asset, pair) for pair in market.pairs]
    return default_spec(
        market.pairs,
        market.timeframe,
        funding=_spans(store, rates, candles, _FUNDING_SLACK_MS) if funding is None else funding,
        onchain=_spans(store, chain, candles, _ONCHAIN_SLACK_MS) if onchain is None else onchain,
        lookback=settings.features.lookback,
        horizons=settings.features.horizons,
        onchain_asset=market.onchain_asset,
    )


def build(
    settings: Settings,
    progress: Progress,
    *,
    funding: bool | None = None,
    onchain: bool | None = None,
    meters: Meters | None = None,
) -> FeatureSummary:
    """Build the feature files with Ray Data; what is up to date is kept, and then Ray is not even started.

    Raises:
        StoreError: if candles or asked-for enrichment are not stored.
        SpecError: if a pair has too little history.
        ClusterError: if Ray cannot be started or reached.
    """
    spec = data_spec(settings, funding=funding, onchain=onchain)
    raw, out = str(settings.workspace.data_raw), str(settings.workspace.features)
    name = settings.market.exchange
    found = standing(raw, name, spec, out)
    with nullcontext() if found.is_current else ray_session(settings):
        summary = build_features(raw, name, spec, out, progress, found=found)
    if meters is not None:
        for facts in summary.files:
            meters.inc("mtst_feature_rows_total", 0 if facts.reused else facts.rows, pair=facts.pair)
    return summary


def _count_backfill(meters: Meters, summary: BackfillSummary) -> None:
    for item in summary.series:
        labels = {"exchange": summary.exchange, "kind": item.kind, "pair": item.pair}
        meters.inc("mtst_candles_stored_total", item.new_rows, **labels)
        if item.kind == "ohlcv" and item.rows and item.timeframe == summary.timeframe:
            step = timeframe_ms(item.timeframe)
            meters.set("mtst_data_age_seconds", (summary.until_ms - item.end_ms - step) / 1000, pair=item.pair)


@contextmanager
def _fetchers(settings: Settings, url: str | None) -> Iterator[exchanges.NodeFetchers]:
    with ray_session(settings):
        fetchers = exchanges.NodeFetchers(settings.market.exchange, url)
        try:
            yield fetchers
        finally:
            fetchers.close()


@contextmanager
def exchange_address(settings: Settings, progress: Progress, base_url: str | None) -> Iterator[str | None]:
    """Address of the exchange: given, or found, or started for a while; None for a real one."""
    if base_url is not None or settings.market.exchange != exchanges.SANDBOX:
        yield base_url
        return
    found = find_exchange(settings)
    running = found or start_exchange(settings, progress)
    try:
        yield running.url
    finally:
        if found is None:
            running.stop()


def _spans(store: CandleStore, keys: Sequence[SeriesKey], candles: Sequence[Manifest], slack_ms: int) -> bool:
    """Whether each series reaches from the start to the end of its candles, give or take `slack_ms`."""
    if not all(store.exists(key) for key in keys):
        return False
    series = [store.manifest(key) for key in keys]
    return all(
        have.start_ms <= need.start_ms + slack_ms and have.end_ms >= need.end_ms - slack_ms
        for have, need in zip(series, candles, strict=True)
    )
