"""A bot that Ray cannot bring back gets a new actor after a stated time, and there are never two of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.ray_local import ray_session
from cluster.settings import Settings
from trading.adapters.bot_actor import BotActor
from trading.adapters.bot_actors import CONCURRENCY, BotActors, actor_name
from trading.adapters.bot_runner import BEGUN, BotStatus
from trading.adapters.bot_spec import BotSpec
from trading.adapters.named_actor import actor_options
from trading.adapters.risk_actor import ACTOR_NAME, NAMESPACE

pytestmark = pytest.mark.slow
BOT = "swing"
PATIENCE_S = 3.0
TRADES = ("starting", "running", "failed")  # what a bot says of itself once nothing keeps it from trading


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[None]:
    settings = Settings().changed(workspace={"root": tmp_path}, cluster={"dashboard": False, "num_cpus": 1})
    settings.workspace.make()
    with ray_session(settings):
        yield


def _until(ask: Callable[[], BotStatus], wanted: Callable[[BotStatus], bool], seconds: float = 30.0) -> BotStatus:
    deadline = time.monotonic() + seconds
    while not wanted(found := ask()):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


def _begun(folder: Path) -> BotSpec:
    """A bot that was told to trade, at an exchange that does not answer."""
    spec = BotSpec(BOT, BOT, BOT, "sandbox", "live", ("BTC/USDT",), "15m", str(folder), url="http://127.0.0.1:9")
    folder.mkdir()
    (folder / BEGUN).write_text(spec.to_json())
    return spec


def _occupy(handle: Any) -> Any:
    """Kill the bot's process and give its only processor away, so that Ray cannot bring it back; returns the taker."""
    import ray

    @ray.remote(num_cpus=1)
    class Taker:
        def ping(self) -> bool:
            return True

    pid = ray.get(handle.status.remote(), timeout=30).pid
    taker = Taker.remote()  # waits for the processor, and is served before the restarted bot
    time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
    assert ray.get(taker.ping.remote(), timeout=30)
    return taker


@pytest.mark.usefixtures("cluster")
def test_a_bot_that_stays_away_is_replaced_and_goes_on_from_its_folder(tmp_path: Path) -> None:
    import ray

    spec = _begun(folder := tmp_path / "bot")
    options = {**actor_options(actor_name(BOT), NAMESPACE, CONCURRENCY, detached=False), "num_cpus": 1}
    handle = ray.remote(BotActor).options(**options).remote(str(folder), ACTOR_NAME, NAMESPACE)
    actors = BotActors({BOT: folder}, {BOT: handle}, patience_s=PATIENCE_S)
    taker = _occupy(handle)

    lost = _until(lambda: actors.status_of(BOT), lambda state: state.last_error == "ActorUnavailableError")
    began = time.monotonic()
    assert (lost.phase, lost.replaced) == ("down", 0), "Ray has its time first"
    back = _until(lambda: actors.status()[BOT], lambda state: state.pid != 0)
    assert time.monotonic() - began > PATIENCE_S - 1.0, "not before its time"
    assert (back.name, back.replaced, dict(actors.replaced)) == (BOT, 1, {BOT: 1})
    assert BotSpec.from_json((folder / BEGUN).read_text()) == spec, "what it was told is not forgotten"
    assert ray.get_actor(actor_name(BOT), namespace=NAMESPACE) == actors.handles[BOT] != handle

    _until(lambda: actors.status_of(BOT), lambda state: state.phase in TRADES)

    assert actors._replace(BOT), "also one that lives after all, as behind a network that was cut"
    again = _until(lambda: actors.status_of(BOT), lambda state: state.phase in TRADES)
    assert again.pid != back.pid
    assert not psutil.pid_exists(back.pid), "never two of them"
    del taker


@pytest.mark.usefixtures("cluster")
def test_a_successor_does_not_trade_while_a_process_of_its_former_self_lives(tmp_path: Path) -> None:
    import ray

    _begun(folder := tmp_path / "bot")
    options = actor_options(actor_name(BOT), NAMESPACE, CONCURRENCY, detached=False)
    handle = ray.remote(BotActor).options(**options).remote(str(folder), ACTOR_NAME, NAMESPACE)
    actors = BotActors({BOT: folder}, {BOT: handle}, patience_s=PATIENCE_S)
    former = _until(lambda: actors.status_of(BOT), lambda state: state.phase in TRADES)
    os.kill(former.pid, signal.SIGSTOP)  # it can neither trade nor hear that it shall end
    try:
        assert actors._replace(BOT)  # Ray counts it as dead at once, and ends its process seconds later
        seen, deadline = set(), time.monotonic() + 30.0
        while time.monotonic() < deadline:
            phase = actors.status_of(BOT).phase
            if not psutil.pid_exists(former.pid):
                break
            seen.add(phase)
            time.sleep(0.1)
    finally:
        with suppress(ProcessLookupError):
            os.kill(former.pid, signal.SIGKILL)
    assert seen, "for a time both processes were there"
    assert not seen & set(TRADES)
    _until(lambda: actors.status_of(BOT), lambda state: state.phase in TRADES)
