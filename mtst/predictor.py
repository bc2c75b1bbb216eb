"""From candles to forecasts, the one path that evaluation, the prediction service and tests share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import polars as pl

from mtst.artifact import LoadedArtifact
from mtst.forecast import Forecast
from mtst.panel import make_panel
from mtst.training import predict
from observability.errors import ForecastError
from pipelines.candles import iso
from pipelines.frames import Enrichment, feature_frames


class Predictor:
    """A loaded model that forecasts from the newest candle of each pair.

    Args:
        loaded: a verified artifact.
    """

    def __init__(self, loaded: LoadedArtifact) -> None:
        self.loaded = loaded
        self.spec = loaded.spec

    @property
    def history(self) -> int:
        """Candles that one forecast reads, the newest included; more are accepted and cut off."""
        return max(self.spec.history, self.spec.lookback + 1)  # the scale reads one close before the window

    def forecast(
        self,
        frames: Mapping[str, pl.DataFrame],
        status: str,
        enrichment: Mapping[str, Enrichment] | None = None,
    ) -> list[Forecast]:
        """One forecast a pair, as of its last row.

        Args:
            frames: pair -> candle table on the spec's grid, oldest first.
            status: "champion" or "shadow", stamped on every forecast.
            enrichment: pair -> funding and on-chain tables, for a specification that reads them.

        Raises:
            ForecastError: a pair is unknown, its history is too short, has a gap or lacks an enrichment value.
            CandleError: candles break their contract.
            SpecError: enrichment that the specification reads is not given.
        """
        tables = {pair: self._newest(pair, candles) for pair, candles in frames.items()}
        if not tables:
            return []
        spec = self.spec
        features = feature_frames(tables, spec, enrichment)
        panel = make_panel(features, spec.columns, spec.horizons, spec.timeframe, spec.lookback)
        last = np.cumsum([table.height for table in tables.values()]) - 1
        usable = set(panel.rows(spec.lookback, labelled=False).tolist())
        for pair, row in zip(tables, last, strict=True):
            if int(row) not in usable:
                raise ForecastError(
                    _why(features[pair], pair, spec.lookback), where=pair, todo="send candles without gaps"
                )
        values = predict(self.loaded.model, self.loaded.scaler, panel, last)
        return [
            Forecast(
                pair=pair,
                as_of_ms=_ms(table["timestamp"][-1]),
                timeframe=spec.timeframe,
                horizons=spec.horizons,
                levels=self.loaded.model.config.levels,
                values=tuple(tuple(float(v) for v in row) for row in quantiles),
                model_name=self.loaded.name,
                model_version=self.loaded.artifact.version,
                spec_hash=spec.hash,
                status=status,
            )
            for (pair, table), quantiles in zip(tables.items(), values, strict=True)
        ]

    def _newest(self, pair: str, candles: pl.DataFrame) -> pl.DataFrame:
        """Exactly the rows that a forecast reads: the answer must not depend on how much more a caller sent."""
        if pair not in self.spec.pairs:
            raise ForecastError(
                f"the model was not trained on {pair}",
                where=pair,
                todo=f"ask for {', '.join(self.spec.pairs)}",
            )
        if candles.height < self.history:
            raise ForecastError(
                f"{candles.height} candles are too few, a forecast reads {self.history}",
                where=pair,
                todo="send more history",
            )
        return candles.tail(self.history)


def _why(features: pl.DataFrame, pair: str, lookback: int) -> str:
    """Why the last row of a pair has no whole window, in words."""
    window = features.tail(lookback)
    lacking = [name for name in window.columns if window[name].null_count()]
    last = iso(_ms(features["timestamp"][-1]))
    if lacking:
        names = ", ".join(lacking[:4])
        return f"features {names} are missing in the {lookback} candles up to {last} (gap or enrichment)"
    return f"the {lookback} candles up to {last} have a gap"


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)
