"""Settings: one typed tree from defaults, a TOML file and the environment; secrets appear only as file paths.

Order of precedence, later wins: defaults < TOML file < environment (`MTST__MARKET__TIMEFRAME=1h`) < command line.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableError

from observability.errors import SettingsError
from trading.kill_switch import FILE_NAME as KILL_SWITCH
from trading.limits import RiskLimits

DEFAULT_PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "DOGE/USDT", "LINK/USDT")
SETTINGS_FILE = "mtst-trader.toml"

Port = Annotated[int, Field(ge=0, le=65535, description="0 picks a free port")]


class Group(BaseModel):
    """A frozen group of settings; an unknown name is an error, not a silent no-op."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Workspace(Group):
    """Every file that the system writes lies below `root`."""

    root: Path = Field(default_factory=lambda: Path(os.environ.get("MTST_HOME", ".")), validate_default=True)

    @field_validator("root")
    @classmethod
    def _anchored(cls, root: Path) -> Path:
        return root.absolute()  # workers and services stand in other folders than the user

    @property
    def data_raw(self) -> Path:
        """Candles, funding and on-chain series."""
        return self.root / "data" / "raw"

    @property
    def features(self) -> Path:
        """Feature files, one folder a data-set hash."""
        return self.root / "data" / "features"

    @property
    def mlruns(self) -> Path:
        """MLflow's database and artifacts."""
        return self.root / "mlruns"

    @property
    def mlflow_uri(self) -> str:
        """Address of the tracking database."""
        return f"sqlite:///{(self.mlruns / 'mlflow.db').resolve()}"

    @property
    def var(self) -> Path:
        """State of the running system."""
        return self.root / "var"

    @property
    def run_dir(self) -> Path:
        """One file a running process."""
        return self.var / "run"

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.var / "log"

    @property
    def secrets(self) -> Path:
        """Key files, mode 0600."""
        return self.var / "secrets"

    @property
    def targets(self) -> Path:
        """Prometheus file_sd targets, one file an exporter."""
        return self.var / "targets"

    @property
    def models(self) -> Path:
        """Artifacts before they are registered, and Bentos."""
        return self.var / "models"

    @property
    def journal(self) -> Path:
        """The risk manager's append-only record."""
        return self.var / "journal.db"

    @property
    def kill_switch(self) -> Path:
        """What people ask of trading; read by every gate."""
        return self.var / KILL_SWITCH

    @property
    def risk_file(self) -> Path:
        """Limits that a person changes while bots trade; none until somebody writes it."""
        return self.root / "risk.toml"

    def make(self) -> None:
        """Create the folders; the secrets folder is closed to others."""
        for folder in (self.data_raw, self.features, self.mlruns, self.run_dir, self.logs, self.targets, self.models):
            folder.mkdir(parents=True, exist_ok=True)
        self.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)


class MarketSettings(Group):
    """Which candles the system lives on."""

    exchange: str = Field("sandbox", description="`sandbox`, or any exchange that ccxt knows, such as `binance`")
    pairs: tuple[str, ...] = DEFAULT_PAIRS
    timeframe: str = "15m"
    history_days: float = Field(120.0, gt=0, description="days of candles to learn from")
    replay: Path | None = Field(None, description="folder of real candles that the sandbox exchange replays")
    onchain: Path | None = Field(None, description="folder or file of on-chain metrics; looked for beside `replay`")
    onchain_asset: str = Field(
        "BTC",
        description="whose on-chain table feeds every pair; `base` is each pair's own, `glassnode:BTC` Glassnode's",
    )
    seed: int = Field(7, description="seed of the simulated market")
    edge: float = Field(2.0, ge=0, description="strength of the simulated market's planted edge; 0 is pure noise")
    basis: float = Field(
        0.0,
        ge=0,
        le=0.1,
        description="deviation of ln(perpetual / spot) in the simulated market; 0: one price for both",
    )
    basis_half_life: float = Field(32.0, gt=0, description="candles in which half of the basis is gone")
    trading_days: float = Field(3.0, gt=0, description="days kept back at the end for trading, never seen in training")

    @field_validator("pairs")
    @classmethod
    def _pairs_have_quotes(cls, pairs: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [pair for pair in pairs if pair.count("/") != 1]
        if wrong or not pairs:
            raise ValueError(f"pairs look like BTC/USDT, not {wrong or 'nothing'}")
        return pairs


class GlassnodeSettings(Group):
    """On-chain metrics from Glassnode; without a key nothing is asked of it."""

    key_file: Path | None = Field(None, description="API key, mode 0600")
    url: str = Field("https://api.glassnode.com", description="https, or http on loopback")
    assets: tuple[str, ...] = ("BTC",)
    metrics: tuple[str, ...] = Field(
        ("active_addresses", "tx_count", "hash_rate", "mvrv", "exchange_inflow", "exchange_outflow"),
        description="our names, or paths of Glassnode such as `indicators/sopr`",
    )
    resolution: Literal["10m", "1h", "24h", "1w"] = "24h"
    delay_hours: float = Field(
        24.0, ge=0, description="declared time to publication, for history without point-in-time values"
    )
    point_in_time: bool = Field(True, description="prefer the variants whose values are never revised")


class FeatureSettings(Group):
    """What the model sees and what it forecasts."""

    lookback: int = Field(96, ge=8, description="candles in one window")
    horizons: tuple[int, ...] = Field((1, 4, 16), description="candles ahead that are forecast")


class SweepSettings(Group):
    """How hard to search."""

    trials: int = Field(8, ge=1)
    max_epochs: int = Field(4, ge=1)
    max_windows: int = Field(6000, ge=64, description="training windows drawn per epoch")
    seed: int = 7
    scheduler: Literal["asha", "pbt", "none"] = Field(
        "asha", description="`asha` ends weak trials early, `pbt` trains a population, `none` is repeatable"
    )
    gpus_per_trial: float | None = Field(
        None, ge=0, description="part of a GPU a trial reserves; none: as many trials at a time as there are cores"
    )
    workers_per_fit: int = Field(1, ge=1, description="workers that train each model of an evaluation together")
    folds: int = Field(3, ge=1, description="walk-forward folds of the evaluation")
    model_name: str = "mtst"


class PromotionSettings(Group):
    """What a model must clear before it may trade; docs/evaluation.md has all bars."""

    rival_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="part of what each learning baseline gains over the best naive one that a model must surely keep; "
        "1: every baseline must be beaten outright (p < 0.05)",
    )


class ServeSettings(Group):
    """Where forecasts are served."""

    host: str = "127.0.0.1"
    port: Port = 0
    token_file: Path | None = Field(None, description="bearer token; made in the secrets folder when absent")


class TradeSettings(Group):
    """How the bots trade."""

    mode: Literal["dry-run", "live"] = "dry-run"
    strategies: tuple[str, ...] = ("nn_predictor", "swing")
    options: dict[str, dict[str, Any]] = Field(
        {}, description="a strategy's own settings by its name; see docs/strategies.md"
    )
    play_money: float = Field(10_000.0, gt=0, description="stake currency that each sandbox account starts with")
    horizon: int = Field(
        0, ge=0, description="candles ahead that forecast-driven bots trade; 0 is the longest forecast"
    )
    min_edge: float = Field(
        0.0,
        gt=-0.05,
        lt=0.5,
        description="least expected return net of costs of such an entry; below 0 play money only",
    )
    notify_file: Path | None = Field(
        None, description="JSON with Freqtrade's tables telegram, discord, webhook, mode 0600, for every bot"
    )
    journal_dsn_file: Path | None = Field(
        None, description="PostgreSQL's connection string for the journal, mode 0600; none keeps it in var/journal.db"
    )
    bots_dsn_file: Path | None = Field(
        None, description="PostgreSQL's connection string for the bots' trades, mode 0600; none keeps a file a bot"
    )
    key_file: Path | None = Field(None, description='exchange key, JSON {"key": ..., "secret": ...}, mode 0600')
    key_files: dict[str, Path] = Field(
        {}, description="by bot, where several trade live: the key of an account of its own, as trade.key_file"
    )


class ClusterSettings(Group):
    """The Ray cluster."""

    address: str = Field("", description="empty: a local cluster on loopback")
    num_cpus: int | None = None
    num_gpus: int | None = None
    dashboard: bool = True
    dashboard_port: Port = 0
    token_file: Path | None = Field(None, description="Ray token; made in the secrets folder when absent")


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix="MTST__",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    workspace: Workspace = Workspace()
    market: MarketSettings = MarketSettings()
    glassnode: GlassnodeSettings = GlassnodeSettings()
    features: FeatureSettings = FeatureSettings()
    sweep: SweepSettings = SweepSettings()
    promotion: PromotionSettings = PromotionSettings()
    serve: ServeSettings = ServeSettings()
    trade: TradeSettings = TradeSettings()
    risk: dict[str, Any] = Field({}, description="limits that differ from the defaults; names in docs/risk-rules.md")
    cluster: ClusterSettings = ClusterSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment wins over the file, which arrives as init values; `changed` applies the command line."""
        return env_settings, init_settings

    @field_validator("risk")
    @classmethod
    def _limits_exist(cls, risk: dict[str, Any]) -> dict[str, Any]:
        RiskLimits.from_dict(risk)  # a misspelt limit would bound nothing
        return risk

    def changed(self, **groups: dict[str, Any]) -> Settings:
        """A copy with some values replaced, validated: `settings.changed(market={"timeframe": "1h"})`.

        Raises:
            SettingsError: a value does not fit.
        """
        try:
            # Rebuilt group by group: model_copy alone would not validate what the user typed.
            fresh: dict[str, Any] = {
                name: type(getattr(self, name)).model_validate({**getattr(self, name).model_dump(), **values})
                for name, values in groups.items()
                if name != "risk"
            }
            if "risk" in groups:
                fresh["risk"] = self._limits_exist({**self.risk, **groups["risk"]})
        except ValidationError as error:
            raise _readable(error, "command line") from error
        return self.model_copy(update=fresh)


def load_settings(file: Path | None = None) -> Settings:
    """Read settings from `file`, else from `mtst-trader.toml` in the current folder if there is one.

    Raises:
        SettingsError: the file is missing, not TOML, or a value does not fit.
    """
    path = file or Path(SETTINGS_FILE)
    if file is not None and not path.is_file():
        raise SettingsError("the settings file does not exist", where=str(path), todo="check --config")
    try:
        values = tomllib.loads(path.read_text()) if path.is_file() else {}
        return Settings(**values)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not valid TOML: {error}", where=str(path), todo="mend the line named") from error
    except ValidationError as error:
        raise _readable(error, f"{path} or the environment" if path.is_file() else "environment") from error
    except UnreadableError as error:  # a list or table that is no JSON
        cause = str(error.__cause__ or "").replace("\n", " ")
        raise SettingsError(
            f"{error}: {cause}", where="environment", todo="lists are JSON there: MTST__TRADE__STRATEGIES='[\"swing\"]'"
        ) from error


def _readable(error: ValidationError, where: str) -> SettingsError:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    return SettingsError(f"{name}: {first['msg']}", where=where, todo="see docs/cli.md for the settings")
