"""What the prediction service says to a request, free of any web framework: bytes in, status and plain object out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from mtst.forecast import Forecast
from mtst.predictor import Predictor
from mtst.request import parse_request
from observability.errors import CandleError, ForecastError, MtstError, RequestError, SpecError, StoreError
from observability.logging import get_logger
from observability.metrics import Meters
from pipelines.frames import Enrichment, enrichment_keys
from pipelines.spec import DatasetSpec
from pipelines.store import CandleStore

log = get_logger(__name__)
EnrichmentSource = Callable[[str], Enrichment]


class StoredEnrichment:
    """Funding and on-chain series from the candle store, read again only when their manifest changed.

    Args:
        root: the store's root, empty when there is none.
        exchange: whose funding.
        spec: which series the model reads.
    """

    def __init__(self, root: str, exchange: str, spec: DatasetSpec) -> None:
        self._store = CandleStore(root) if root else None
        self._exchange, self._spec = exchange, spec
        self._known: dict[Any, tuple[str, Any]] = {}

    def __call__(self, pair: str) -> Enrichment:
        """Series of one pair.

        Raises:
            StoreError: the specification reads a series that is not stored.
        """
        # The market's closes are the request's own candles.
        if not self._spec.sources - {"market"}:
            return Enrichment()
        if self._store is None:
            needs = ", ".join(sorted(self._spec.sources))
            raise StoreError(f"the model reads {needs}, but the service has no store", todo="serve with a store")
        keys = enrichment_keys(self._spec, self._exchange, pair)
        return Enrichment(**{source: self._read(key) for source, key in keys.items()})

    def _read(self, key: Any) -> Any:
        assert self._store is not None
        stamp = self._store.manifest(key).content_hash
        if self._known.get(key, ("", None))[0] != stamp:
            self._known[key] = (stamp, self._store.read(key))
        return self._known[key][1]


class Answerer:
    """Answers forecast requests and counts them.

    Args:
        predictor: the model.
        status: "champion" or "shadow".
        enrichment: gives a pair's slower series.
        meters: where answers are counted.
        instance: a word that this start was given, so that a caller can tell it from a stale server on the same port.
    """

    def __init__(
        self,
        predictor: Predictor,
        status: str,
        enrichment: EnrichmentSource,
        meters: Meters,
        instance: str = "",
    ) -> None:
        self._predictor, self._status, self._enrichment = predictor, status, enrichment
        self._meters, self._instance = meters, instance
        loaded = predictor.loaded
        meters.set("mtst_model_info", 1, name=loaded.name, version=loaded.artifact.version, status=status)

    def about(self) -> dict[str, Any]:
        """Who answers, and what it needs."""
        loaded, spec = self._predictor.loaded, self._predictor.spec
        return {
            "name": loaded.name,
            "version": loaded.artifact.version,
            "status": self._status,
            "spec_hash": spec.hash,
            "pid": os.getpid(),
            "instance": self._instance,
            "pairs": list(spec.pairs),
            "timeframe": spec.timeframe,
            "horizons": list(spec.horizons),
            "levels": list(loaded.model.config.levels),
            "history": self._predictor.history,
            "enrichment": sorted(spec.sources),
            "absent": list(loaded.card.get("absent", [])),
        }

    def answer(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """HTTP status and answer: 200 with forecasts, 422 for a bad request, 503 when data of ours is missing."""
        started = time.perf_counter()
        try:
            forecasts = self._forecast(body)
        except RequestError as error:
            return self._refuse(422, "invalid", error)
        except (CandleError, ForecastError, SpecError, StoreError) as error:
            return self._refuse(503, "unavailable", error)
        self._meters.observe("mtst_forecast_latency_seconds", time.perf_counter() - started)
        model = self._predictor.loaded.name
        self._meters.inc("mtst_forecasts_total", len(forecasts), model=model, status=self._status)
        named = ("name", "version", "status", "spec_hash", "pid")
        about = self.about()
        return 200, {
            "forecasts": [f.to_dict() for f in forecasts],
            "model": {key: about[key] for key in named},
        }

    def _forecast(self, body: bytes) -> list[Forecast]:
        frames = parse_request(body, self._predictor.spec, self._predictor.history)
        enrichment = {pair: self._enrichment(pair) for pair in frames}
        return self._predictor.forecast(frames, self._status, enrichment)

    def _refuse(self, status: int, reason: str, error: MtstError) -> tuple[int, dict[str, Any]]:
        self._meters.inc("mtst_forecast_errors_total", reason=reason)
        log.warning("no forecast", reason=reason, error=str(error))
        return status, {"error": str(error)}
