"""What a sandbox exchange is started with: one JSON file without secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from observability.errors import SettingsError
from observability.files import write_whole
from trading.adapters.sandbox.market import Market
from trading.adapters.sandbox.matching import Liquidity, Terms
from trading.adapters.sandbox.replay import replay
from trading.adapters.sandbox.rules import UNIT
from trading.adapters.sandbox.simulated import SimulatedMarket, simulate, simulated_pairs


class Part(BaseModel):
    """A frozen piece of the configuration; unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SimulatedConfig(Part):
    """A drawn market; `edge` is the predictable share of the return variance, 0 plants nothing.

    `basis` is the deviation of ln(perpetual / spot), which halves in `basis_half_life` candles; 0: one price for both.
    """

    kind: Literal["simulated"] = "simulated"
    pairs: tuple[str, ...] = ()
    timeframe: str = "15m"
    history_days: float = Field(120.0, gt=0)
    trading_days: float = Field(30.0, gt=0)
    edge: float = Field(0.05, ge=0, le=0.5)
    basis: float = Field(0.0, ge=0, le=0.1)
    basis_half_life: float = Field(32.0, gt=0)

    def build(self, seed: int) -> Market:
        """Draw it."""
        values = {**self.model_dump(exclude={"kind"}), "pairs": simulated_pairs(self.pairs)}
        return simulate(SimulatedMarket(**values), seed)


class ReplayConfig(Part):
    """Recorded candles in `<BASE>_<QUOTE>-<timeframe>.parquet` files of `folder`; no pairs means all of them.

    Perpetuals have the prices of `<BASE>_<QUOTE>-perpetual-<timeframe>.parquet`, where present, else those of spot.
    """

    kind: Literal["replay"] = "replay"
    folder: Path
    pairs: tuple[str, ...] = ()
    timeframe: str = "15m"
    trading_days: float = Field(3.0, gt=0)

    def build(self, seed: int) -> Market:
        """Read it."""
        return replay(self.folder, self.timeframe, self.trading_days, self.pairs, seed)


MarketConfig = Annotated[SimulatedConfig | ReplayConfig, Field(discriminator="kind")]


class AccountConfig(Part):
    """A trading account: where its key lies (JSON {"key", "secret"}, mode 0600) and what it owns at the start,
    on spot and in its futures wallet; `withdrawals`: its key says that it may withdraw, which nobody can here."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    key_file: Path
    balances: dict[str, str]
    futures: dict[str, str] = {}
    withdrawals: bool = False


class TermsConfig(Part):
    """Fees and spread in parts per million; `max_fill` caps one resting fill's quote value (0: none)."""

    maker_ppm: int = Field(1000, ge=0, lt=500_000)
    taker_ppm: int = Field(1000, ge=0, lt=500_000)
    spread_ppm: int = Field(100, ge=0, lt=500_000)
    max_fill: float = Field(0.0, ge=0)

    def build(self) -> Terms:
        """As the engine takes them."""
        return Terms(self.maker_ppm, self.taker_ppm, self.spread_ppm, Liquidity(round(self.max_fill * UNIT)))


class SandboxConfig(Part):
    """Everything.

    Attributes:
        instance: any token; /sandbox/health returns it, so a starter knows its own server from a stale one.
        grace_s: real seconds that a participant of the clock may be busy before time goes on without it.
        forget_s: real seconds after which an absent participant no longer counts.
        weight_limit: request weight allowed in a virtual minute (0: counted, not enforced).
        order_limit: new orders an account may send in ten virtual seconds (0: counted, not enforced).
        targets_dir: folder of Prometheus targets; none means no exporter.
    """

    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65535)
    instance: str = ""
    seed: int = 7
    mode: Literal["lockstep", "wall"] = "lockstep"
    grace_s: float = Field(3.0, gt=0)
    forget_s: float = Field(180.0, gt=0)
    weight_limit: int = Field(0, ge=0)
    order_limit: int = Field(0, ge=0)
    market: MarketConfig = SimulatedConfig()
    terms: TermsConfig = TermsConfig()
    futures_terms: TermsConfig = TermsConfig(maker_ppm=200, taker_ppm=500)
    accounts: tuple[AccountConfig, ...] = ()
    targets_dir: Path | None = None


def load_config(path: Path) -> SandboxConfig:
    """Read a configuration file; raises SettingsError when it is missing or wrong."""
    try:
        return SandboxConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SettingsError("cannot read the exchange's configuration", where=str(path), todo=str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{path}: {'.'.join(map(str, first['loc']))}"
        raise SettingsError(f"the exchange's configuration is wrong: {first['msg']}", where=where) from error


def save_config(config: SandboxConfig, path: Path) -> None:
    """Write a configuration file."""
    write_whole(path, config.model_dump_json(indent=2) + "\n")
