"""What a data set is: pairs, timeframe, features, horizons and look-back, named by one content hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from observability.errors import SpecError
from pipelines.candles import timeframe_ms
from pipelines.features import Param, get_feature
from pipelines.labels import Barrier

_FORMAT = 1


@dataclass(frozen=True)
class FeatureRef:
    """One feature of the registry with its parameters, for example `FeatureRef("log_return", {"n": 4})`."""

    name: str
    params: Mapping[str, Param] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", dict(sorted(self.params.items())))
        get_feature(self.name).check(self.params)

    @property
    def column(self) -> str:
        """Name of the column: the feature's name and its parameters' values."""
        return get_feature(self.name).column(self.params)

    @property
    def warmup(self) -> int:
        """Candles before row t that the value at row t depends on."""
        return get_feature(self.name).warmup(**self.params)


@dataclass(frozen=True)
class DatasetSpec:
    """A data set.

    Args:
        pairs: for example ("BTC/USDT", "ETH/USDT").
        timeframe: for example "15m".
        features: the feature columns, in the order the model sees them.
        horizons: label horizons in candles, strictly increasing.
        lookback: candles that the model sees at once.
        onchain_asset: whose on-chain table feeds every pair, for example "BTC"; "base" takes each pair's own asset;
            "glassnode:BTC" is the table of another source than files.
        barriers: further labels, by which of two prices is reached first.

    Raises:
        SpecError: if any of it is empty, repeated, unknown or out of range.
    """

    pairs: tuple[str, ...]
    timeframe: str
    features: tuple[FeatureRef, ...]
    horizons: tuple[int, ...]
    lookback: int
    onchain_asset: str = "BTC"
    barriers: tuple[Barrier, ...] = ()

    def __post_init__(self) -> None:
        for name in ("pairs", "features", "horizons", "barriers"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name) and name != "barriers":
                raise SpecError(f"a spec needs {name}", where="DatasetSpec")
        timeframe_ms(self.timeframe)
        for label, items in (("pair", self.pairs), ("feature column", self.columns), ("label", self.labels)):
            twice = sorted({item for item in items if items.count(item) > 1})
            if twice:
                raise SpecError(f"{label} {twice[0]!r} is named twice", where="DatasetSpec")
        if self.horizons[0] < 1 or list(self.horizons) != sorted(set(self.horizons)):
            raise SpecError(f"horizons {self.horizons} are not increasing from 1 up", where="DatasetSpec")
        if self.lookback < 1:
            raise SpecError(f"look-back {self.lookback} is not positive", where="DatasetSpec")

    @property
    def columns(self) -> tuple[str, ...]:
        """Feature columns in order."""
        return tuple(ref.column for ref in self.features)

    @property
    def labels(self) -> tuple[str, ...]:
        """Label columns in order."""
        return (*(f"fwd_{h}" for h in self.horizons), *(barrier.column for barrier in self.barriers))

    @property
    def warmup(self) -> int:
        """Candles needed before the first row that has every feature."""
        return max(ref.warmup for ref in self.features)

    @property
    def history(self) -> int:
        """Candles that one live forecast needs: warm-up and look-back."""
        return self.warmup + self.lookback

    @property
    def sources(self) -> frozenset[str]:
        """Enrichment that the features read: some of "funding", "onchain"."""
        return frozenset(get_feature(ref.name).source for ref in self.features) - {""}

    @property
    def hash(self) -> str:
        """16 hex digits of the SHA-256 of the canonical JSON; feature versions are part of it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        body = {
            "format": _FORMAT,
            "pairs": self.pairs,
            "timeframe": self.timeframe,
            "features": [
                {"name": ref.name, "params": ref.params, "version": get_feature(ref.name).version}
                for ref in self.features
            ],
            "horizons": self.horizons,
            "lookback": self.lookback,
            "onchain_asset": self.onchain_asset if "onchain" in self.sources else "",
        }
        if self.barriers:
            body["barriers"] = [asdict(barrier) for barrier in self.barriers]
        return json.dumps(body, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> DatasetSpec:
        """Read what `to_json` wrote.

        Raises:
            SpecError: if it is malformed, of another format, or names a feature whose formula has changed since.
        """
        try:
            body: dict[str, Any] = json.loads(text)
            if body["format"] != _FORMAT:
                raise SpecError(f"spec format {body['format']} is not {_FORMAT}", todo="build the data set again")
            features = tuple(_read_ref(ref) for ref in body["features"])
            return DatasetSpec(
                tuple(body["pairs"]),
                body["timeframe"],
                features,
                tuple(body["horizons"]),
                body["lookback"],
                body["onchain_asset"] or "BTC",
                tuple(Barrier(**barrier) for barrier in body.get("barriers", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError(f"not a data-set specification: {error!r}") from error


def _read_ref(ref: dict[str, Any]) -> FeatureRef:
    known = get_feature(ref["name"]).version
    if ref["version"] != known:
        raise SpecError(
            f"feature {ref['name']!r} is version {ref['version']} there and {known} here",
            todo="train again, or run the code version that the artifact's card names",
        )
    return FeatureRef(ref["name"], ref["params"])


def default_spec(
    pairs: Sequence[str],
    timeframe: str,
    *,
    funding: bool = False,
    onchain: bool = False,
    lookback: int = 96,
    horizons: Sequence[int] = (1, 4, 16),
    onchain_asset: str = "BTC",
) -> DatasetSpec:
    """Sixteen columns of price, volatility, volume and calendar; optionally funding and on-chain columns."""
    refs = [
        *(FeatureRef("log_return", {"n": n}) for n in (1, 4, 16)),
        *(FeatureRef("log_vol_close", {"n": n}) for n in (16, 96)),
        FeatureRef("log_vol_garman_klass", {"n": 16}),
        FeatureRef("range_ratio", {"n": 48}),
        FeatureRef("volume_z", {"n": 96}),
        FeatureRef("rsi", {"n": 14}),
        FeatureRef("atr_ratio", {"fast": 14, "slow": 96}),
        FeatureRef("macd_norm", {"fast": 12, "slow": 26}),
        FeatureRef("bollinger", {"n": 20}),
        *(FeatureRef(name) for name in ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos")),
    ]
    if funding:
        refs.append(FeatureRef("funding"))
    if onchain:
        refs += [FeatureRef("onchain_change", {"metric": m}) for m in ("active_addresses", "tx_count", "hash_rate")]
        refs += [FeatureRef("onchain_log", {"metric": "mvrv"}), FeatureRef("onchain_netflow")]
    return DatasetSpec(tuple(pairs), timeframe, tuple(refs), tuple(horizons), lookback, onchain_asset)
