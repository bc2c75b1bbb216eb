"""One exchange, one contender: starting, running by candles, killing, and counting what is left."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from benchmarks.ledger import DUST, works
from benchmarks.loss_stand import helpers
from benchmarks.loss_stand.plain import plain_config
from benchmarks.loss_stand.risk_wire import RemoteRisk
from cluster.settings import Settings
from cluster.stages.exchange import RunningExchange, start_exchange
from observability.errors import GateError
from observability.ports import free_port
from observability.progress import NullProgress
from trading.adapters.api_key import read_key
from trading.adapters.bot_books import read_book
from trading.adapters.bot_spec import BotSpec
from trading.adapters.fleet_books import ledger_lines
from trading.adapters.sandbox.client import SandboxClient
from trading.adapters.sandbox.market import Market
from trading.adapters.venue_clock import Participant

CANDLE_MS = 900_000
PAIR = "ETH/USDT"
PATIENCE_S = 60.0
POLL_S = 0.25
OPEN_ORDERS = "SELECT order_id FROM orders WHERE ft_is_open = 1"

FORKS = multiprocessing.get_context("forkserver")
PRELOADED = ("benchmarks.loss_stand.bot", "benchmarks.loss_stand.helpers", "httpcore", "sqlalchemy.dialects.sqlite")
FORKS.set_forkserver_preload(list(PRELOADED))


@dataclass(frozen=True)
class Harm:
    """What is left of a scenario; counts, and quote currency.

    Attributes:
        fills: orders that the exchange filled, at least in part. known: of them, those the bot's database has whole.
        orphans: the others, and orders that are open on the exchange while its database says that they are over.
        duplicates: entries beyond the one that was wanted.
        unprotected: positions that nobody's stop watches, or that are still held far below their stop.
        money: by how much the database and the exchange differ about what was paid and received.
    """

    fills: int
    known: int
    orphans: int
    duplicates: int
    unprotected: int
    money: float

    @property
    def none(self) -> bool:
        """Whether nothing was lost."""
        return not (self.orphans or self.duplicates or self.unprotected) and self.money < 1e-8


class Stand:
    """A contender on its exchange; `ours` decides which. Use as a context manager.

    Args:
        plan: finds in the market's future when to enter and to leave.
        accounts: of the exchange; a bot trades the one of its name, else the first.
        market: settings that differ from the small simulated market.
        grace_s: real seconds for which virtual time waits for a busy bot; long, every run makes the same history.
        specs: by bot, what its `BotSpec` has in place of the scheduled trades of one pair.
        config: what plain Freqtrade's configuration has besides.
    """

    def __init__(
        self,
        *,
        ours: bool,
        seed: int,
        plan: Callable[[Market], dict[str, Any]],
        grace_s: float = 3.0,
        accounts: tuple[str, ...] = ("bot",),
        market: Mapping[str, Any] | None = None,
        specs: Mapping[str, Mapping[str, Any]] | None = None,
        **config: Any,
    ) -> None:
        self.ours, self.accounts, self._specs = ours, accounts, specs or {}
        self.root = Path(tempfile.mkdtemp(prefix="mtst-losses-"))
        settings = Settings().changed(
            workspace={"root": self.root / "space"},
            market={
                "pairs": (PAIR, "BTC/USDT"),
                "history_days": 3.0,
                "trading_days": 8.0,
                "seed": seed,
                **(market or {}),
            },
        )
        self.exchange: RunningExchange = start_exchange(settings, NullProgress(), accounts=accounts, grace_s=grace_s)
        self.client: SandboxClient = self.exchange.client()
        self.plan = plan(_market(settings))
        self._config, self._bots, self._risk = config, {}, None  # type: dict[str, Any], dict[str, Any], Any
        self._clock = Participant(self.exchange.url, "stand", POLL_S)
        self._clock.join()
        self._risk_port = free_port()
        self.risk = RemoteRisk(self.risk_url)
        self._market = httpx.Client(base_url=f"{self.exchange.url}/api/v3", trust_env=False)
        self.ended = 0
        """Bots that ended by themselves and were begun again."""
        if ours:
            self.start_risk()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._bots):
            self.kill(name)
        self.kill_risk()
        self.risk.close()
        self._market.close()
        self._clock.leave()
        with contextlib.closing(self.client):
            self.exchange.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def folder(self, name: str) -> Path:
        """A bot's own folder."""
        return self.root / name

    def database(self, name: str = "bot") -> Path:
        """A bot's database."""
        return self.folder(name) / ("trades-live.sqlite" if self.ours else "trades.sqlite")

    def start(self, name: str = "bot") -> None:
        """Begin a bot, or begin it again after its death."""
        self.folder(name).mkdir(exist_ok=True)
        if self.ours:
            self._write_ours(name)
            arguments: tuple[str, ...] = (str(self.folder(name)), self.risk_url)
        else:
            self._write_plain(name)
            arguments = (str(self.folder(name)), self.exchange.url, name)
        from benchmarks.loss_stand import bot

        target = bot.run_ours if self.ours else bot.run_plain
        self._bots[name] = self.fork(target, arguments, lambda: name in self.client.health()["participants"])

    def kill(self, name: str = "bot") -> None:
        """SIGKILL, as the kernel does it when memory is short."""
        process = self._bots.pop(name)
        process.kill()
        process.join()
        self.client.leave(name)

    def died(self, name: str = "bot") -> bool:
        """Whether a bot ended by itself."""
        return not self._bots[name].is_alive()

    def run(self, candles: float = 1) -> None:
        """Let virtual time pass; a bot that ended is begun again, as a service manager does it, and waited for."""
        until = self.client.now_ms() + int(candles * CANDLE_MS)
        while self.client.now_ms() < until:
            self.revive()
            # a candle at a time: a bot that fails meanwhile leaves the clock, and must not miss all the rest
            self._clock.sleep(min(until, self.client.now_ms() + CANDLE_MS))

    def revive(self) -> None:
        """Begin again what ended by itself, and wait for who has left the clock."""
        for name in [name for name in self._bots if self.died(name)]:
            self.ended += 1
            self.kill(name)
            self.start(name)
        self.until(lambda: self._awaited() or any(map(self.died, self._bots)))

    def _awaited(self) -> bool:
        """Whether every bot takes part in the clock: one that builds its worker anew is away from it meanwhile."""
        return set(self._bots) <= set(self.client.health()["participants"])

    def run_to(self, at_ms: int) -> None:
        """Let virtual time pass until a moment."""
        self.run((at_ms - self.client.now_ms()) / CANDLE_MS)

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait in real time; raises TimeoutError."""
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not reached by {self._bots}; see {self.root}")
            time.sleep(0.02)

    def account(self, name: str) -> str:
        """Which account a bot trades."""
        return name if name in self.accounts else self.accounts[0]

    def orders(self) -> list[dict[str, Any]]:
        """The first account's orders by the exchange."""
        return list(self.client.ledger()["accounts"][self.accounts[0]]["orders"])

    @property
    def risk_url(self) -> str:
        """Where the risk manager answers."""
        return f"http://127.0.0.1:{self._risk_port}"

    @property
    def journal(self) -> Path:
        """The risk manager's record."""
        return self.root / "space" / "risk.sqlite"

    def kill_risk(self) -> None:
        """The risk manager is gone at once, its journal stays."""
        if self._risk is not None:
            self._risk.kill()
            self._risk.join()
            self._risk = None

    def start_risk(self) -> None:
        """A risk manager on the journal that is there; returns when it answers."""
        pairs = {PAIR, *(pair for spec in self._specs.values() for pair in spec.get("pairs", ()))}
        rules = [name for name in self.accounts if self._specs.get(name, {}).get("strategy") != "nn_predictor"]
        table = helpers.limits(self.accounts, sorted(pairs), (*rules, "twin"), CANDLE_MS)
        self._risk = self.fork(
            helpers.run_risk, (str(self.journal), self.exchange.url, self._risk_port, table), self._risk_answers
        )

    def _risk_answers(self) -> bool:
        try:
            return not self.risk.ping()["failure"]
        except GateError:
            return False

    def fork(self, target: Callable[..., None], arguments: tuple[Any, ...], ready: Callable[[], bool]) -> Any:
        """A process forked from one that has imported everything; returned once it is ready."""
        process = FORKS.Process(target=target, args=arguments, daemon=True)
        process.start()
        self.until(ready)
        return process

    def held(self) -> float:
        """Base currency on the account."""
        return float(self.client.ledger()["accounts"]["bot"]["balances"].get(PAIR[:3], {"total": 0})["total"])

    def prices(self) -> dict[str, float]:
        """The last price of every symbol."""
        return {row["symbol"]: float(row["price"]) for row in self._market.get("/ticker/price").json()}

    def price(self, pair: str = PAIR) -> float:
        """The last price of a pair."""
        return self.prices()[pair.replace("/", "")]

    def harm(self, *, stop: float = 0.0) -> Harm:
        """Count; `stop`: below it nothing should be held any more."""
        ledger = self.client.ledger()
        assert ledger["problems"] == [], ledger["problems"]
        theirs = {key: line for key, line in ledger_lines(ledger, "bot").items() if line.filled > 0}
        mine = {key: line for name in self._known() for key, line in read_book(self.database(name)).items()}
        same = {key for key, line in theirs.items() if key in mine and abs(mine[key].cost - line.cost) < 1e-6}
        money = sum(
            abs((theirs[key].cost if key in theirs else 0.0) - (mine[key].cost if key in mine else 0.0))
            for key in {*theirs, *mine}
        )
        held, price, watched = self.held(), self.price(), sum(self._watched(name) for name in self._known())
        forgotten = {order["order_id"] for order in self.orders() if works(order)}
        forgotten -= {number for name in self._known() for number in self._column(name, OPEN_ORDERS)}
        unprotected = int((held - watched) * price > DUST) + int(stop > price and held * price > DUST)
        entries = sum(line.side == "buy" for line in theirs.values())
        money = 0.0 if money < 1e-8 else money
        orphans = len({*theirs, *forgotten} - same) + len(forgotten & same)
        return Harm(len(theirs), len(same), orphans, max(0, entries - 1), unprotected, money)

    def _known(self) -> list[str]:
        return [path.name for path in self.root.iterdir() if path.name != "space"]

    def _watched(self, name: str) -> float:
        """Base currency in open trades that have a stop, by a bot's database."""
        return sum(self._column(name, "SELECT amount FROM trades WHERE is_open = 1 AND stop_loss > 0"))

    def _column(self, name: str, query: str) -> list[Any]:
        """The first column of what a bot's database answers, nothing while there is none."""
        if not self.database(name).exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{self.database(name)}?mode=ro", uri=True)) as database:
            return [row[0] for row in database.execute(query)]

    def _write_ours(self, name: str) -> None:
        usual: dict[str, Any] = {
            "strategy": "swing",
            "pairs": (PAIR,),
            "settings": {"max_history": 100, "plan": self.plan},
        }
        spec = BotSpec(
            name=name,
            account=self.account(name),
            venue="sandbox",
            mode="live",
            timeframe="15m",
            folder=str(self.folder(name)),
            url=self.exchange.url,
            key_file=str(self.exchange.key_files[self.account(name)].resolve()),
            virtual_clock=True,
            api_server=False,
            **(usual | self._specs.get(name, {})),
        )
        (self.folder(name) / "begun.json").write_text(json.dumps(asdict(spec)))

    def _write_plain(self, name: str) -> None:
        key = read_key(self.exchange.key_files[self.account(name)])
        config = plain_config(key, self.exchange.url, self.database(name), PAIR) | {"plan": self.plan}
        path = self.folder(name) / "config.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config | self._config))


def _market(settings: Settings) -> Market:
    from cluster.stages.exchange import market_config

    return market_config(settings).build(settings.market.seed)


def filled(orders: list[Mapping[str, Any]], side: str) -> Iterator[Mapping[str, Any]]:
    """Orders of a side that filled, at least in part."""
    return (order for order in orders if order["side"] == side and float(order["filled"]) > 0)
