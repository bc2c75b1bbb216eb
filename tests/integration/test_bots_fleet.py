"""Two real Freqtrade bots as Ray actors beside the real risk manager, live on the sandbox exchange and its clock."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.settings import Settings
from observability.progress import NullProgress
from tests import books_kit
from tests.books_kit import BooksDifferError
from tests.contract.sandbox_kit import trader_of
from trading.journal import Journal

pytestmark = pytest.mark.slow
CANDLES = 100


@pytest.fixture(scope="module")
def trading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    from cluster.ray_local import ray_session
    from cluster.stages import trade as stage
    from cluster.stages.bots import Forecasts, bot_specs
    from cluster.stages.exchange import start_exchange

    settings = Settings().changed(
        workspace={"root": tmp_path_factory.mktemp("fleet")},
        market={"trading_days": 10, "history_days": 10, "pairs": ("BTC/USDT", "ETH/USDT", "SOL/USDT", "DOGE/USDT")},
        trade={"strategies": ("swing", "scalp")},
        cluster={"dashboard": False},
    )
    settings.workspace.make()
    with ray_session(settings):
        handles = stage.prepare(settings)
        exchange = start_exchange(settings, NullProgress(), accounts=settings.trade.strategies)
        try:
            specs = bot_specs(settings, Forecasts(), exchange)
            fleet = stage.start_fleet(settings, NullProgress(), specs, handles=handles)
            try:
                run = stage.run_until(fleet, CANDLES, NullProgress())
                yield {"fleet": fleet, "run": run, "exchange": exchange, "settings": settings}
            finally:
                stage.stop_fleet(settings, fleet)
        finally:
            exchange.stop()


def _orders(trading: dict[str, Any], account: str) -> list[dict[str, Any]]:
    with closing(trading["exchange"].client()) as client:
        return list(client.ledger()["accounts"][account]["orders"])


def test_the_bots_follow_the_virtual_clock(trading: dict[str, Any]) -> None:
    states = trading["fleet"].status()
    assert trading["run"].candles == CANDLES
    assert {state.phase for state in states.values()} == {"running"}
    assert len({state.now_ms // 900_000 for state in states.values()}) == 1
    for state in states.values():
        assert CANDLES - 1 <= state.loops <= CANDLES + 5, "one loop a candle, none skipped"
        assert state.doubts == {}


def test_orders_were_filled_and_three_books_differ_by_nothing(trading: dict[str, Any]) -> None:
    books = trading["fleet"].books()
    assert books.agree, {name: book.text for name, book in books.by_bot.items()}
    assert books.orders >= 10
    assert books.difference < 1e-8
    assert books.conserved


def test_every_buy_stands_under_an_approval_of_its_own(trading: dict[str, Any]) -> None:
    with closing(Journal(trading["settings"].workspace.journal, read_only=True)) as journal:
        approved = {
            entry.payload["decision"]["reservation_id"]
            for entry in journal.read("decision")
            if entry.payload["decision"]["approved"]
        }
    ids = Counter(
        order["client_order_id"]
        for account in ("swing", "scalp")
        for order in _orders(trading, account)
        if order["side"] == "buy"
    )
    assert ids
    assert set(ids.values()) == {1}
    assert set(ids) <= approved


def test_a_halt_stops_entries_and_no_exit_also_after_a_reload(trading: dict[str, Any]) -> None:
    import ray

    from cluster.stages import trade as stage

    fleet = trading["fleet"]
    before = {name: len([o for o in _orders(trading, name) if o["side"] == "buy"]) for name in fleet.bots}
    stage.halt("tester", "to see that nothing opens")
    for handle in fleet.handles.values():
        ray.get(handle.reload.remote())
    stage.run_until(fleet, 60, NullProgress())
    after = {name: len([o for o in _orders(trading, name) if o["side"] == "buy"]) for name in fleet.bots}
    assert after == before
    refusals: Counter[str] = Counter()
    for state in fleet.status().values():
        refusals.update(state.refusals or {})
    assert refusals["STATE_HALTED"] > 0, "something did want to enter"
    stage.resume("tester", "enough seen")


def test_flatten_closes_every_position(trading: dict[str, Any]) -> None:
    from cluster.stages import trade as stage

    fleet = trading["fleet"]
    for _ in range(40):
        stage.run_until(fleet, 5, NullProgress())
        if any(state.open_trades for state in fleet.status().values()):
            break
    else:
        pytest.fail(f"nothing opened in 200 candles: {stage.status(fleet)}")
    stage.flatten("tester", "to see everything closed")
    stage.run_until(fleet, 3, NullProgress())
    assert [state.open_trades for state in fleet.status().values()] == [(), ()]
    assert fleet.books().agree
    assert stage.status(fleet).state in ("reducing", "halted")
    stage.resume("tester", "enough seen")


def test_two_units_of_the_last_decimal_in_a_bots_database_are_seen_at_the_fleets_end(
    trading: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = trading["fleet"]
    first = "id = (SELECT MIN(id) FROM orders WHERE filled > 0)"
    books_kit.fleet_agrees(fleet)
    monkeypatch.setattr(books_kit, "PATIENCE_S", 1.0)
    with closing(sqlite3.connect(fleet.bots["swing"].database)) as database:
        (cost,) = database.execute(f"SELECT cost FROM orders WHERE {first}").fetchone()
        for planted in (cost + 2e-8, cost):
            with database:
                database.execute(f"UPDATE orders SET cost = ? WHERE {first}", [planted])
            seen = pytest.raises(BooksDifferError, match="cost 2e-08") if planted != cost else nullcontext()
            with seen:
                books_kit.fleet_agrees(fleet)


def test_freqtrades_own_client_reaches_a_bot_with_the_password_made_for_it(trading: dict[str, Any]) -> None:
    import subprocess
    import sys

    secrets = Path(trading["fleet"].bots["swing"].folder) / "config" / "secrets.json"

    def ask(word: str, config: Path = secrets) -> str:
        client = Path(sys.executable).with_name("freqtrade-client")
        done = subprocess.run(
            [client, "--config", config, word], capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr

    assert "pong" in ask("ping")
    assert '"bot_name": "swing"' in ask("show_config")
    assert "current" in ask("count")
    api = json.loads(secrets.read_text())["api_server"]
    assert api["listen_ip_address"] == "127.0.0.1"
    stranger = secrets.with_name("stranger.json")
    stranger.write_text(json.dumps({"api_server": {**api, "password": "guessed"}}))
    assert "current" not in ask("count", stranger)
    stranger.unlink()


def test_the_bots_show_their_metrics(trading: dict[str, Any]) -> None:
    import urllib.request

    folder: Path = trading["settings"].workspace.targets
    (target,) = json.loads((folder / "bot-swing.json").read_text())
    with urllib.request.urlopen(f"http://{target['targets'][0]}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert 'mtst_bot_loops_total{bot="swing"}' in text
    last = next(line for line in text.splitlines() if line.startswith("mtst_bot_last_loop_timestamp_seconds{"))
    assert abs(float(last.split()[-1]) - time.time()) < 600, "by the wall, not by the virtual clock"


def test_an_operator_sees_what_agrees_what_differs_and_what_becomes_of_it(trading: dict[str, Any]) -> None:
    from cluster.commands import trade as command
    from cluster.stages import trade as stage
    from trading.adapters.fleet_reconcile import look

    def asked(*options: str) -> tuple[int, str]:
        done = CliRunner().invoke(command.app, ["reconcile", *options], obj=trading["settings"])
        return done.exit_code, done.stdout

    def differing() -> dict[str, str]:
        code, text = asked("--json")
        found = [each for bot in json.loads(text) for each in bot["differences"]]
        assert code == bool(found), found
        return {each["order"] or each["what"]: each["kind"] for each in found}

    fleet, api = trading["fleet"], trader_of(trading["exchange"], "swing")
    before = _orders(trading, "swing")
    assert differing() == {}
    assert _orders(trading, "swing") == before
    code, text = asked()
    assert (code, text.count("agree"), text.count("bot, journal, exchange")) == (0, 2, 2)

    low = api.fetch_ticker("BTC/USDT")["last"] * 0.5
    made = [
        str(api.create_order("BTC/USDT", "limit", "buy", 0.01, low, {"newClientOrderId": name})["id"])
        for name in ("x-" + "0" * 32, "by-hand")
    ]
    fleet.hold()
    seen = {each.order: each.kind for bot in look(fleet) for each in bot.differences}
    assert seen == dict(zip(made, ("orphan", "stranger"), strict=True))
    code, text = asked()
    assert code == 1
    assert "swing stranger BTC/USDT" in text
    stage.run_until(fleet, 2, NullProgress())
    assert differing() == {made[1]: "stranger"}, "the bot's own reconciler took the orphan back"
    api.load_time_difference()  # virtual time has gone on
    api.cancel_order(made[1], "BTC/USDT")
    stage.run_until(fleet, 2, NullProgress())
    assert differing() == {}
