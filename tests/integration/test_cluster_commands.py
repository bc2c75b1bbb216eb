"""Every command in the order of the tutorial, each a program of its own, as a person or a script would call them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import books_kit

pytestmark = pytest.mark.slow

SMALL = {
    "MTST__MARKET__PAIRS": '["BTC/USDT", "ETH/USDT"]',
    "MTST__MARKET__HISTORY_DAYS": "20",
    "MTST__MARKET__TRADING_DAYS": "20",
    "MTST__SWEEP__FOLDS": "2",
    "MTST__SWEEP__MAX_WINDOWS": "800",
    "MTST__CLUSTER__NUM_CPUS": "2",
}
ENDS = (("trade", "down"), ("serve", "down"), ("exchange", "down"), ("cluster", "down"))
BEFORE = {("trade", "down"): books_kit.workspace_agrees, ("exchange", "down"): books_kit.workspace_balances}


@dataclass(frozen=True)
class Terminal:
    """A shell in a workspace of its own."""

    home: Path
    environment: Mapping[str, str]

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cluster", *words],
            cwd=self.home,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def answer(self, *words: str, **environment: str) -> Any:
        """The JSON on stdout, which has to be all that is there, of a command that succeeds."""
        if words[:2] in BEFORE:
            BEFORE[words[:2]](self.home)
        done = self.run(*words, **environment)
        assert done.returncode == 0, f"{words}: {done.stderr[-2000:]}"
        return json.loads(done.stdout)

    def refusal(self, *words: str, **environment: str) -> str:
        """The one sentence of a command that must not succeed."""
        done = self.run(*words, **environment)
        assert done.returncode in (1, 2), f"{words} gave {done.returncode}: {done.stdout}"
        assert "Traceback" not in done.stderr
        (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        return sentence

    def processes(self) -> list[str]:
        """Processes that know this workspace by their arguments or their folder."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline", "cwd", "status"]):
            words = " ".join(process.info["cmdline"] or ())
            here = str(self.home) in words or (process.info["cwd"] or "").startswith(str(self.home))
            if here and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(words)
        return found


@pytest.fixture
def terminal(tmp_path: Path, repo_root: Path) -> Iterator[Terminal]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MTST__", "RAY_", "FREQTRADE__"))}
    here = Terminal(tmp_path, {**kept, **SMALL, "MTST_HOME": str(tmp_path), "PYTHONPATH": str(repo_root)})
    yield here
    for words in ENDS if here.processes() else ():  # a failed test leaves what it started
        here.run(*words)


def secrets_of(home: Path) -> set[str]:
    """Everything secret that the workspace holds."""
    found = set()
    for file in (home / "var" / "secrets").rglob("*"):
        if file.is_file():
            assert file.stat().st_mode & 0o077 == 0, f"others can read {file}"
            text = file.read_text().strip()
            found |= {str(value) for value in json.loads(text).values()} if text.startswith("{") else {text}
    for file in (home / "var" / "bots").glob("*/config/secrets.json"):
        assert file.stat().st_mode & 0o077 == 0, f"others can read {file}"
        api = json.loads(file.read_text())["api_server"]
        found |= {api["jwt_secret_key"], api["ws_token"], api["password"]}
    return {secret for secret in found if len(secret) >= 16}


def places_of(home: Path, secrets: set[str]) -> list[str]:
    """Files of the workspace, beside those for secrets, that hold one of them."""
    files = [file for file in home.rglob("*") if file.is_file() and not file.is_symlink()]
    open_to_all = [file for file in files if "secrets" not in file.parts and file.name != "secrets.json"]
    return [str(file) for file in open_to_all if any(secret.encode() in file.read_bytes() for secret in secrets)]


def test_the_whole_chain_by_single_commands(terminal: Terminal) -> None:
    exchange = terminal.answer("exchange", "up", "--detach", "--json")
    assert set(exchange["key_files"]) == {"nn_predictor", "swing"}, "one account a bot"
    assert terminal.answer("exchange", "status", "--json")["health"]["mode"] == "lockstep"
    assert "already running" in terminal.refusal("exchange", "up", "--detach")

    stored = terminal.answer("data", "backfill", "--json")
    assert {item["rows"] for item in stored["series"] if item["kind"] == "ohlcv"} == {1920}
    seen = terminal.answer("data", "inspect", "--json")["series"]
    assert [item["report"]["coverage"] for item in seen if item["kind"] == "ohlcv"] == [1, 1]
    assert terminal.answer("data", "features", "--json")["rows"] == 3840

    address = terminal.answer("cluster", "up", "--json")["dashboard_url"]
    assert "cluster down" in terminal.refusal("cluster", "up")
    job = terminal.answer("cluster", "submit", "--json", "train", "sweep", "--trials", "2", "--epochs", "1")
    assert (job["status"], job["exit_code"]) == ("SUCCEEDED", 0)
    assert by_ray_itself(terminal, address).returncode == 0

    judged = terminal.answer("train", "evaluate", "--json")
    assert judged["windows"] > 0
    card = json.loads((Path(judged["artifact"]) / "card.json").read_text())
    told = {source: facts["status"] for source, facts in card["enrichment"].items()}
    assert told == {"funding": "present", "mark": "absent", "onchain": "absent"}
    assert card["absent"] == judged["absent"] == ["mark", "onchain"]
    promoted = terminal.answer("train", "promote", "--json")
    assert promoted["status"] in ("champion", "shadow")
    assert promoted["reasons"]

    served = terminal.answer("serve", "up", "--json")
    assert (served["version"], served["status"]) == (judged["version"], promoted["status"])
    assert terminal.answer("serve", "status", "--json")["url"] == served["url"]
    asked = terminal.answer("serve", "predict", "--json")
    assert {forecast["pair"] for forecast in asked["forecasts"]} == {"BTC/USDT", "ETH/USDT"}

    trade(terminal)
    held = secrets_of(terminal.home)
    assert len(held) >= 6
    arguments = "\n".join(terminal.processes())
    assert not [secret for secret in held if secret in arguments]

    for words in ENDS:
        ended = terminal.answer(*words, "--json")
        assert ended.get("stopped", True), words
    assert not terminal.processes()
    assert not list((terminal.home / "var" / "targets").iterdir()), "an alert would tell that something is down"
    assert not places_of(terminal.home, held)
    assert terminal.run("cluster", "status").returncode == 1


def trade(terminal: Terminal) -> None:
    """Start bots, look at them, pull and lift the kill switch."""
    assert "no bots run" in terminal.refusal("trade", "halt")
    sentence = terminal.refusal("trade", "up", "--detach", FREQTRADE__DRY_RUN="false")
    assert "FREQTRADE__DRY_RUN would override" in sentence
    live = ("trade", "up", "--exchange", "binance", "--mode", "live")
    assert "one account serves exactly one bot" in terminal.refusal(*live)
    assert "live trading needs an exchange key" in terminal.refusal(*live, MTST__TRADE__STRATEGIES='["swing"]')

    started = terminal.answer("trade", "up", "--detach", "--json")
    assert {bot["name"] for bot in started["bots"]} == {"nn_predictor", "swing"}
    assert all(bot["loops"] >= 1 for bot in started["bots"])
    assert "trade in this workspace already" in terminal.refusal("trade", "up", "--detach")

    halted = terminal.answer("trade", "halt", "--who", "anna", "--reason", "a drill", "--json")
    assert (halted["state"], halted["who"]) == ("halted", "anna")
    assert terminal.answer("trade", "status", "--json")["state"] == "halted"
    terminal.answer("trade", "resume", "--who", "anna", "--json")
    running = terminal.answer("trade", "status", "--json")
    assert running["who"] in ("anna", "system")
    oracle = next(bot for bot in running["bots"] if bot["name"] == "nn_predictor")
    assert oracle["forecasts"] > 0
    assert oracle["forecast_errors"] == 0, "funding is kept fresh while bots trade"


def by_ray_itself(terminal: Terminal, address: str) -> subprocess.CompletedProcess[str]:
    """Ray's own command line, with nothing but the token, as docs/operations.md tells it."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(terminal.home / "var" / "secrets" / "ray.token")}
    job = [sys.executable, "-m", "cluster", "--workspace", str(terminal.home), "data", "inspect", "--json"]
    return subprocess.run(
        [str(Path(sys.executable).with_name("ray")), "job", "submit", "--address", address, "--", *job],
        env={**terminal.environment, **token},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
