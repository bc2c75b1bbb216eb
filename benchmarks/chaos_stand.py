"""Four bots, their risk manager and their forecasts on one exchange, and every way in which one of them is broken.

What breaks and when is `benchmarks.chaos_plan`'s; here it is done, and what must not happen meanwhile is noted.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import httpx

from benchmarks.chaos_plan import BETWEEN, BLIND, CANDLE_MS, KILLS, ORDER, SLOT_MS, Incident
from benchmarks.chaos_watch import Gap
from benchmarks.loss_stand import helpers
from benchmarks.loss_stand.network import untrained
from benchmarks.loss_stand.stand import FORKS, PRELOADED, Stand
from observability.ports import free_port
from pipelines.spec import DatasetSpec, FeatureRef
from trading.adapters.sandbox.market import Market
from trading.adapters.sandbox.path import PricePath

PAIRS = ("ETH/USDT", "BTC/USDT", "SOL/USDT", "XRP/USDT")
STAKE = 0.05  # of the equity: a month of fees must not end in the breaker of the drawdown
SCHEDULED = {"anna": ("ETH/USDT", 4), "bert": ("BTC/USDT", 6)}  # pair, and candles from entry to entry
BOTS = (*SCHEDULED, "carl", "nina")
NODE = ("bert", "nina")  # what lives on the node that dies, beside the forecasts
GRACE_MS = 61_000  # how long into the next candle a bot may still go by the one before it


@dataclass
class Damage:
    """What was broken: real seconds until what was killed worked again, when nothing may have been entered,
    and how often forecasts lied, by the label of the incident."""

    recovery_s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    gaps: list[Gap] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    struck: dict[str, int] = field(default_factory=dict)


class ChaosStand(Stand):
    """`Stand` with real strategies beside the scheduled ones, a served model, and incidents by name."""

    def __init__(self, *, seed: int, market: dict[str, Any], folder: Path) -> None:
        self.damage, self._forecasts, self._port = Damage(), None, free_port()  # type: Damage, Any, int
        self._artifact = _artifact(folder / "model")
        FORKS.set_forkserver_preload([*PRELOADED, "mtst.answering"])
        super().__init__(
            ours=True, seed=seed, plan=self._remember, accounts=BOTS, grace_s=120.0, specs=_specs(self._port),
            market={"pairs": PAIRS, "history_days": 8.0, **market},
        )  # fmt: skip
        self.path = PricePath(self.market)
        self.halted = False
        """Whether a person has halted, and nobody else may lift it."""
        self._returns: list[tuple[int, Callable[[], None]]] = []
        self._hunted: dict[str, Incident] = {}
        self._skews: list[str] = []

    def _remember(self, market: Market) -> dict[str, Any]:
        self.market = market
        return {}

    @property
    def risk_away(self) -> bool:
        """Whether the risk manager is dead now."""
        return self._risk is None

    def begin(self) -> int:
        """Everybody up, half a minute into a candle; returns its opening time."""
        opened_ms = -(-self.client.now_ms() // CANDLE_MS) * CANDLE_MS
        self.client.advance(opened_ms + 30_000)
        self.start_forecasts()
        for name in BOTS:
            self.start(name)
        self.settled()
        return opened_ms

    def __exit__(self, *args: object) -> None:
        if self._forecasts is not None:
            self._forecasts.kill()
        super().__exit__(*args)

    def settled(self) -> None:
        """Wait until every bot sleeps: its loop is done."""
        self.until(lambda: all(self.client.health()["participants"].get(name) for name in self._bots))

    def start_forecasts(self) -> None:
        """The prediction service, answering."""
        self._forecasts = self.fork(helpers.run_forecasts, (str(self._artifact), self._port), self._trouble_taken)

    def stop_forecasts(self) -> None:
        """SIGKILL."""
        self._forecasts.kill()
        self._forecasts.join()

    def prices(self) -> dict[str, float]:
        """The last price of every pair, as it is and not as a fault shows it."""
        now_ms, rules = self.client.now_ms(), self.market.rules
        return {pair: self.path.price(pair, now_ms) / 10 ** rules[pair].price_decimals for pair in PAIRS}

    def pass_to(self, slot: int, until_ms: int) -> None:
        """Let virtual time pass into the middle of a slot; who is due there comes back."""
        self.revive()
        while (reached := self._clock.sleep(until_ms)) is None or reached < until_ms:
            self._catch()
        self._catch()
        due, self._returns = (
            [back for at, back in self._returns if at <= slot],
            [(at, back) for at, back in self._returns if at > slot],
        )
        for back in due:
            back()

    def do(self, incident: Incident) -> None:
        """Break it, now; what comes back by itself does so in a later slot."""
        if incident.fault:
            self._fail(incident)
        elif incident.name in KILLS:
            self._KILLERS[incident.name](self, incident)
        else:
            self._lie(incident)

    # --- incidents --------------------------------------------------------------------------------------------------

    def _fail(self, incident: Incident) -> None:
        fault = dict(incident.fault)
        aim = {"account": incident.who} if incident.who else {}
        self.client.plan_fault(**fault, **aim, name=incident.label)
        if incident.name.startswith("clock: "):
            self._skews.append(incident.label)
        if incident.name in BLIND:
            now_ms = self.client.now_ms()
            gap = Gap(f"the feed was blind ({incident.name})", BOTS, self._stale_ms(now_ms), now_ms + fault["for_ms"])
            self.damage.gaps.append(gap)

    def _lose_bot(self, incident: Incident) -> None:
        """Back at once, or after some slots, through which the exchange alone guards its positions."""
        self.kill(incident.who)
        if incident.slots:
            self._later(incident, lambda: self._bot_back(incident))
        else:
            self._bot_back(incident)

    def _bot_back(self, incident: Incident) -> None:
        def begin() -> None:
            self._mend_clock()
            self.start(incident.who)
            self.settled()

        self._timed(incident.name, begin)

    def _hunt(self, incident: Incident) -> None:
        """The exchange will have the order and the bot is gone before it knows; a plain kill if none comes in time."""
        order = {"kind": "timeout_after", **ORDER, "account": incident.who, "count": 1, "hold_s": 30.0}
        self.client.plan_fault(**order, name=incident.label)
        self._hunted[incident.label] = incident

        def end() -> None:
            if self._hunted.pop(incident.label, None) is not None:
                self.client.clear_faults(incident.label)
                self.kill(incident.who)
                self._bot_back(incident)

        self._later(incident, end)

    def _catch(self) -> None:
        """Kill whoever waits for the answer to an order now, and begin him again while time stands still."""
        if not self._hunted:
            return
        struck = self.client.struck()
        for label in [label for label in self._hunted if label in struck]:
            incident = self._hunted.pop(label)
            until_ms = self.client.health()["participants"]["stand"]
            self._clock.join()
            self.kill(incident.who)
            self._bot_back(incident)
            if until_ms is not None:
                self._clock.sleep(until_ms)

    def _lose_manager(self, incident: Incident) -> None:
        """Gone for some slots; nobody may enter meanwhile."""
        since_ms = self.client.now_ms()
        self.kill_risk()

        def back() -> None:
            self._timed(incident.name, self.start_risk)
            self._closed("nobody decided", BOTS, since_ms)

        self._later(incident, back)

    def _lose_halted(self, incident: Incident) -> None:
        """A person's halt outlives the risk manager, and ends by a person only."""
        since_ms, self.halted = self.client.now_ms(), True
        self.risk.halt("chaos", "tester")
        self.kill_risk()
        self._timed(incident.name, self.start_risk)

        def resume() -> None:
            if (latch := self.risk.state()).state.value != "halted":
                self.damage.broken.append(f"the halt did not hold: {latch}")
            self._closed("halted by a person", BOTS, since_ms)
            self.risk.resume("tester", "chaos is over", True)
            self.halted = False

        self._later(incident, resume)

    def _lose_forecasts(self, incident: Incident) -> None:
        """Gone for some slots; their bot may not enter meanwhile, once a candle has closed without a forecast."""
        since_ms = self._stale_ms(self.client.now_ms())
        self.stop_forecasts()

        def back() -> None:
            self._timed(incident.name, self.start_forecasts)
            self._closed("there were no forecasts", ("nina",), since_ms)

        self._later(incident, back)

    def _lose_node(self, incident: Incident) -> None:
        """Everything on one machine at once; another takes over after some slots."""
        since_ms = self.client.now_ms()
        self.stop_forecasts()
        for name in NODE:
            self.kill(name)

        def begin() -> None:
            self._mend_clock()
            self.start_forecasts()
            for name in NODE:
                self.start(name)
            self.settled()

        def back() -> None:
            self._closed("its node was gone", NODE, since_ms)
            self._timed(incident.name, begin)

        self._later(incident, back)

    def _lie(self, incident: Incident) -> None:
        since_ms, word = self._stale_ms(self.client.now_ms()), incident.name.partition(": ")[2]
        self._tell(word)

        def truth() -> None:
            self.damage.struck[incident.label] = self._tell("")
            self._closed(f"forecasts were {word}", ("nina",), since_ms)

        self._later(incident, truth)

    _KILLERS: ClassVar[Mapping[str, Callable[[ChaosStand, Incident], None]]] = {
        "kill -9 bot": _lose_bot,
        "kill -9 bot, away for a while": _lose_bot,
        BETWEEN: _hunt,
        "kill -9 risk manager": _lose_manager,
        "kill -9 risk manager while halted": _lose_halted,
        "kill -9 forecasts": _lose_forecasts,
        "kill -9 node": _lose_node,
    }

    # --- inside -----------------------------------------------------------------------------------------------------

    def _later(self, incident: Incident, back: Callable[[], None]) -> None:
        self._returns.append((incident.slot + max(1, incident.slots), back))

    @staticmethod
    def _stale_ms(now_ms: int) -> int:
        """From when on nobody may go by what he knows now."""
        return now_ms - now_ms % CANDLE_MS + CANDLE_MS + GRACE_MS

    def _mend_clock(self) -> None:
        """A bot cannot begin by a wrong clock and tries again in real time, but that clock is wrong in virtual time."""
        while self._skews:
            self.client.clear_faults(self._skews.pop())

    def _timed(self, incident: str, back: Callable[[], object]) -> None:
        began = time.perf_counter()
        back()
        self.damage.recovery_s[incident].append(time.perf_counter() - began)

    def _closed(self, what: str, accounts: tuple[str, ...], since_ms: int) -> None:
        self.damage.gaps.append(Gap(what, accounts, since_ms, self.client.now_ms()))

    def _tell(self, word: str) -> int:
        """Have the forecasts lie, or not; returns how often they did so far."""
        answer = httpx.post(f"http://127.0.0.1:{self._port}/trouble", content=word, trust_env=False)
        return int(answer.raise_for_status().json()["met"])

    def _trouble_taken(self) -> bool:
        try:
            self._tell("")
        except httpx.HTTPError:
            return False
        return True


def _specs(port: int) -> dict[str, dict[str, Any]]:
    """Two bots in and out by the clock, one by the real rules of the scalper, one by a served model."""
    common = {"max_history": 150, "stake_fraction": STAKE}
    by_clock = {
        name: {"pairs": (pair,), "settings": {**common, "max_history": 100, "plan": {"cycle": cycle}}}
        for name, (pair, cycle) in SCHEDULED.items()
    }
    # no edge to trade on, only as much to trade as can be: without costs, with bounds that are easily crossed, and with
    # a warm-up that is shorter than the history
    policy = {"horizon": 4, "fee_rate": 0.0, "slippage": 0.0, "max_stake": STAKE}
    eager = {"oversold": 45.0, "recovered": 50.0, "width": 0.5, "volume_factor": 0.5, "max_below": 0.5, "trend": 40}
    bots = {
        **by_clock,
        "carl": {"strategy": "scalp", "pairs": PAIRS[2:], "settings": {**common, "policy": eager}},
        "nina": {
            "strategy": "nn_predictor", "pairs": PAIRS[:1] + PAIRS[2:3], "settings": {**common, "policy": policy},
            "forecast_url": f"http://127.0.0.1:{port}",
        },
    }  # fmt: skip
    return {name: {**spec, "loop_s": SLOT_MS // 1000} for name, spec in bots.items()}


def _artifact(folder: Path) -> Path:
    """A small network that expects the last hours to go on."""
    refs = [*(FeatureRef("log_return", {"n": n}) for n in (1, 4)), FeatureRef("rsi", {"n": 14})]
    spec = DatasetSpec(PAIRS, "15m", tuple(refs), (1, 4), 16)
    return untrained(folder, spec, follows=spec.columns[-1], patches=(4, 8), d_model=8, n_heads=2, d_ff=16)
