"""Four bots, their risk manager and their forecasts on one exchange, and every way in which one of them is broken.

All of it happens in the middle of a candle, while every bot sleeps, and faults of the exchange are aimed at one account
or last for a span of virtual time: so nothing depends on who of the bots comes first, and a seed tells the whole story.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.chaos_watch import Gap
from benchmarks.loss_stand import helpers
from benchmarks.loss_stand.network import untrained
from benchmarks.loss_stand.stand import CANDLE_MS, FORKS, Stand
from observability.ports import free_port
from pipelines.spec import DatasetSpec, FeatureRef
from trading.adapters.sandbox.market import Market

PAIRS = ("ETH/USDT", "BTC/USDT", "SOL/USDT", "XRP/USDT")
STAKE = 0.05  # of the equity: a month of fees must not end in the breaker of the drawdown
SCHEDULED = {"anna": ("ETH/USDT", 4), "bert": ("BTC/USDT", 6)}  # pair, and candles from entry to entry
BOTS = (*SCHEDULED, "carl", "nina")
NODE = ("bert", "nina")  # what lives on the node that dies, beside the forecasts
ORDER = {"method": "POST", "path": "/api/v3/order"}
AWAY = 2  # candles for which something stays away, where it does
FAULTS: dict[str, dict[str, Any]] = {
    "lost reply": {"kind": "timeout_after", **ORDER, "hold_s": 0.1},
    "order never arrives": {"kind": "timeout_before", **ORDER, "hold_s": 0.1},
    "cut connection": {"kind": "drop_after", **ORDER},
    "garbled reply": {"kind": "garble", **ORDER},
    "stops refused": {**ORDER, "kind": "error", "params": {"type": "STOP"}, "status": 400, "code": -2010,
                      "message": "Stop price would trigger immediately.", "count": 2},
}  # fmt: skip
OUTAGES: dict[str, dict[str, Any]] = {
    "exchange down": {"kind": "error", "path": "/api/v3", "status": 503, "code": -1001},
    "rate limit": {"kind": "error", "path": "/api/v3", "status": 429, "code": -1003},
    "disconnected": {"kind": "disconnect"},
}  # fmt: skip
FEED: dict[str, dict[str, Any]] = {
    "stale candles": {"kind": "stale_candles", "lag_ms": 4 * CANDLE_MS},
    "frozen feed": {"kind": "frozen_feed"},
    "garbage candles": {"kind": "garbage_candles", "how": "nan"},
    "revised candles": {"kind": "revised_candles", "lag_ms": CANDLE_MS},
    "partial fills": {"kind": "partial_fills", "max_fill": 200, "refill_ms": CANDLE_MS},
}
BLIND = ("stale candles", "frozen feed")  # faults after which no bot has the newest candle
GRACE_MS = 61_000  # how long into the next candle a bot may still go by the one before it
FROZEN = 4  # candles for which a feed stands still or lags: longer than anybody may go by what he saw last
OUTAGE_MS = 45_000  # from just before a candle's close: one try fails, and one of half a minute later


@dataclass
class Damage:
    """What was broken: real seconds until what was killed worked again, and when nothing may have been entered."""

    recovery_s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    gaps: list[Gap] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


class ChaosStand(Stand):
    """`Stand` with real strategies beside the scheduled ones, a served model, and incidents by name."""

    def __init__(self, *, seed: int, market: dict[str, Any], folder: Path) -> None:
        self.damage, self._forecasts, self._port = Damage(), None, free_port()  # type: Damage, Any, int
        self._artifact = _artifact(folder / "model")
        FORKS.set_forkserver_preload(["benchmarks.loss_stand.bot", "benchmarks.loss_stand.helpers", "mtst.answering"])
        super().__init__(
            ours=True, seed=seed, plan=_nothing, accounts=BOTS, grace_s=120.0, specs=_specs(self._port),
            market={"pairs": PAIRS, "history_days": 8.0, **market},
        )  # fmt: skip
        self.incidents: dict[str, Callable[[np.random.Generator], None]] = {
            **{name: self._aimed(name) for name in FAULTS},
            **{name: self._spanning(name) for name in (*OUTAGES, *FEED)},
            **{f"forecasts {word}": self._lying(word) for word in helpers.TROUBLES},
            "kill -9 bot": self.kill_bot,
            "kill -9 bot, away for a while": self.lose_bot,
            "kill -9 bot between order and commit": self.kill_at_order,
            "kill -9 risk manager": self.kill_manager,
            "kill -9 risk manager while halted": self.kill_halted,
            "kill -9 forecasts": self.kill_forecasts,
            "kill -9 node": self.kill_node,
        }

    def begin(self) -> None:
        """Everybody up, in the middle of a candle."""
        now = self.client.now_ms()
        self.client.advance(now - now % CANDLE_MS + CANDLE_MS // 2)
        self.start_forecasts()
        for name in BOTS:
            self.start(name)
        self.settled()

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

    # --- incidents --------------------------------------------------------------------------------------------------

    def kill_bot(self, rng: np.random.Generator) -> None:
        """Back at once."""
        self._restarted("kill -9 bot", str(rng.choice(BOTS)), 0)

    def lose_bot(self, rng: np.random.Generator) -> None:
        """Back after some candles, through which the exchange alone guards its positions."""
        self._restarted("kill -9 bot, away for a while", str(rng.choice(BOTS)), AWAY)

    def kill_at_order(self, rng: np.random.Generator) -> None:
        """The exchange has the order and the bot is gone before it knows; a plain kill if none comes in time."""
        name = str(rng.choice(tuple(SCHEDULED)))
        self.client.plan_fault(kind="timeout_after", **ORDER, account=name, count=1, hold_s=30.0)
        until = self.client.now_ms() + AWAY * CANDLE_MS
        while self.client.now_ms() < until and self.client.faults():
            self._clock.sleep(until)
        self.client.clear_faults()
        self._restarted("kill -9 bot between order and commit", name, 0)

    def kill_manager(self, rng: np.random.Generator) -> None:
        """Gone for some candles; nobody may enter meanwhile."""
        with self._closed("nobody decides", BOTS):
            self.kill_risk()
            self.run(AWAY)
            self._timed("kill -9 risk manager", self.start_risk)

    def kill_halted(self, rng: np.random.Generator) -> None:
        """A person's halt outlives the risk manager, and ends by a person only."""
        with self._closed("halted by a person", BOTS):
            self.risk.halt("chaos", "tester")
            self.kill_risk()
            self._timed("kill -9 risk manager while halted", self.start_risk)
            self.run(AWAY)
            if (latch := self.risk.state()).state.value != "halted":
                self.damage.broken.append(f"the halt did not hold: {latch}")
        self.risk.resume("tester", "chaos is over", False)

    def kill_forecasts(self, rng: np.random.Generator) -> None:
        """Gone for some candles; its bot may not enter meanwhile."""
        with self._closed("there are no forecasts", ("nina",)):
            self.stop_forecasts()
            self.run(AWAY)
            self._timed("kill -9 forecasts", self.start_forecasts)

    def kill_node(self, rng: np.random.Generator) -> None:
        """Everything on one machine at once; another takes over after some candles."""
        with self._closed("its node is gone", NODE):
            self.stop_forecasts()
            for name in NODE:
                self.kill(name)
            self.run(AWAY)
        began = time.perf_counter()
        self.start_forecasts()
        for name in NODE:
            self.start(name)
        self.settled()
        self.damage.recovery_s["kill -9 node"].append(time.perf_counter() - began)

    def _aimed(self, name: str) -> Callable[[np.random.Generator], None]:
        return lambda rng: self.client.plan_fault(**FAULTS[name], account=str(rng.choice(BOTS)))

    def _spanning(self, name: str) -> Callable[[np.random.Generator], None]:
        def plan(_rng: np.random.Generator) -> None:
            now_ms = self.client.now_ms()
            closes_ms = now_ms - now_ms % CANDLE_MS + CANDLE_MS
            if name in OUTAGES:
                begins = closes_ms - now_ms - OUTAGE_MS // 2
                self.client.plan_fault(**OUTAGES[name], count=0, after_ms=begins, for_ms=OUTAGE_MS)
                return
            for_ms = (FROZEN if name in BLIND else AWAY) * CANDLE_MS
            self.client.plan_fault(**FEED[name], for_ms=for_ms)
            if name in BLIND:
                self.damage.gaps.append(Gap(f"there were {name}", BOTS, closes_ms + GRACE_MS, now_ms + for_ms))
                self.run(FROZEN)  # nothing else may end it early

        return plan

    def _lying(self, word: str) -> Callable[[np.random.Generator], None]:
        def lie(_rng: np.random.Generator) -> None:
            with self._closed(f"forecasts are {word}", ("nina",)):
                self._tell(word)
                self.run(AWAY)
                self._tell("")

        return lie

    # --- inside -----------------------------------------------------------------------------------------------------

    def _restarted(self, incident: str, name: str, away: int) -> None:
        self.kill(name)
        if away:
            self.run(away)
        began = time.perf_counter()
        self.start(name)
        self.settled()
        self.damage.recovery_s[incident].append(time.perf_counter() - began)

    def _timed(self, incident: str, back: Callable[[], None]) -> None:
        began = time.perf_counter()
        back()
        self.damage.recovery_s[incident].append(time.perf_counter() - began)

    def _closed(self, what: str, accounts: tuple[str, ...]) -> _Closed:
        return _Closed(self, what, accounts)

    def _tell(self, word: str) -> None:
        httpx.post(f"http://127.0.0.1:{self._port}/trouble", content=word, trust_env=False).raise_for_status()

    def _trouble_taken(self) -> bool:
        try:
            self._tell("")
        except httpx.HTTPError:
            return False
        return True


class _Closed:
    """While inside, these accounts may not enter; the times are virtual."""

    def __init__(self, stand: ChaosStand, what: str, accounts: tuple[str, ...]) -> None:
        self._stand, self._what, self._accounts, self._since_ms = stand, what, accounts, 0

    def __enter__(self) -> None:
        self._since_ms = self._stand.client.now_ms()

    def __exit__(self, *_: object) -> None:
        gap = Gap(self._what, self._accounts, self._since_ms, self._stand.client.now_ms())
        self._stand.damage.gaps.append(gap)


def _nothing(_market: Market) -> dict[str, Any]:
    return {}


def _specs(port: int) -> dict[str, dict[str, Any]]:
    """Two bots in and out by the clock, one by the real rules of the scalper, one by a served model."""
    common = {"max_history": 150, "stake_fraction": STAKE}
    by_clock = {
        name: {"pairs": (pair,), "settings": {**common, "max_history": 100, "plan": {"cycle": cycle}}}
        for name, (pair, cycle) in SCHEDULED.items()
    }
    # the network is not trained, so its forecasts are noise: without costs every other one is a wish to trade
    policy = {"horizon": 4, "fee_rate": 0.0, "slippage": 0.0, "max_stake": STAKE}
    return {
        **by_clock,
        "carl": {"strategy": "scalp", "pairs": PAIRS[2:], "settings": common},
        "nina": {
            "strategy": "nn_predictor", "pairs": PAIRS[:1] + PAIRS[2:3], "settings": {**common, "policy": policy},
            "forecast_url": f"http://127.0.0.1:{port}",
        },
    }  # fmt: skip


def _artifact(folder: Path) -> Path:
    """A small network."""
    refs = [*(FeatureRef("log_return", {"n": n}) for n in (1, 4)), FeatureRef("rsi", {"n": 14})]
    spec = DatasetSpec(PAIRS, "15m", tuple(refs), (1, 4), 16)
    return untrained(folder, spec, patches=(4, 8), d_model=8, n_heads=2, d_ff=16)
