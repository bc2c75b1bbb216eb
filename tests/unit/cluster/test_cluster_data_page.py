"""The data page: it shows what is odd, needs nothing from anywhere, and can be read in a browser, on a phone too."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import polars as pl
import pytest
from typer.testing import CliRunner

from cluster.commands import data
from cluster.settings import Settings
from cluster.stages.data import data_spec, open_store
from pipelines.blobs import Blobs
from pipelines.frames import SPEC_FILE
from pipelines.partitions import build_partition, plan
from pipelines.store import SeriesKey
from tests.unit.pipelines.pipelines_makers import Walk, candles, onchain

PAIRS = ("BTC/USDT", "ETH/USDT")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two pairs, one with a gap and a wrong price, on-chain rows, and the features of both."""
    settings = Settings().changed(
        workspace={"root": tmp_path_factory.mktemp("page")}, market={"exchange": "binance", "pairs": PAIRS}
    )
    settings.workspace.make()
    store, row = open_store(settings), pl.int_range(pl.len())
    good, bad = (candles(Walk(seed=seed, rows=96 * 30, sigma=0.002)) for seed in (1, 2))
    bad = bad.with_columns(close=pl.when(row == 1500).then(pl.col("high") * 1.5).otherwise("close"))
    bad = bad.with_columns(high=pl.max_horizontal("high", "close")).filter(~row.is_between(700, 719))
    for pair, table in zip(PAIRS, (good, bad), strict=True):
        store.write(SeriesKey("binance", "ohlcv", pair, "15m"), table)
    days = onchain([(day, 24 + 4 + day % 150, 5.0 + day) for day in range(-20, 30)])
    metrics = ("active_addresses", "hash_rate", "mvrv", "exchange_inflow", "exchange_outflow")
    store.write(
        SeriesKey("file", "onchain", "BTC"), days.with_columns(pl.col("tx_count").alias(name) for name in metrics)
    )
    spec = data_spec(settings)
    out = Blobs.at(f"{settings.workspace.features}/{spec.hash}")
    out.write(SPEC_FILE, spec.to_json().encode())
    for part in plan(store, "binance", spec):
        build_partition(store, "binance", spec, out, part)
    return settings


def run(settings: Settings, *words: str) -> str:
    done = CliRunner().invoke(data.app, ["inspect", *words], obj=settings, env={"COLUMNS": "200"})
    assert done.exception is None, done.exception
    return done.stdout


@pytest.fixture(scope="module")
def told(workspace: Settings) -> str:
    """What the command prints; the page lies where it says."""
    return run(workspace)


class Page(HTMLParser):
    """Text of a page, and every address that it would load something from."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [
            value or "" for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")
        ]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_shows_what_is_odd_and_loads_nothing(workspace, told):
    path = workspace.workspace.var / "data.html"
    assert f"Page: {path}" in told
    text = path.read_text()
    page = Page(text)
    assert not page.loads
    assert "script" not in page.tags
    assert not re.findall(r"url\((?!#)", text)
    words = " ".join(page.words)
    assert "binance ETH/USDT 15m: 1 gap(s), 20 candles missing" in words
    assert "2024-01-16T15:00:00Z" in words  # the wrong price
    assert "4.0, " in words  # hours of delay
    for name in ("log_return_1", "onchain_netflow", "Drift against the first period", "published how late"):
        assert name in words
    assert text.count("<svg") >= 3 + 1 + 21


def test_json_tells_the_same(workspace, tmp_path):
    report = json.loads(run(workspace, "--json", "--page", str(tmp_path / "x.html")))
    assert report["page"] == str(tmp_path / "x.html")
    assert (tmp_path / "x.html").is_file()
    bad = next(item for item in report["series"] if item["pair"] == "ETH/USDT")
    assert (bad["report"]["missing"], len(bad["report"]["outliers"])) == (20, 2)
    chain = next(item for item in report["series"] if item["kind"] == "onchain")
    assert chain["slow"]["delay_hours"][0] >= 4.0
    assert {each["name"] for each in report["features"]["features"]} >= {"rsi_14", "onchain_log_mvrv"}
    assert any("ETH/USDT" in text for text in report["findings"])


def test_an_empty_store_and_unbuilt_features_say_so(tmp_path):
    settings = Settings().changed(workspace={"root": tmp_path}, market={"exchange": "binance", "pairs": PAIRS})
    assert "Nothing is stored yet" in run(settings)
    open_store(settings).write(SeriesKey("binance", "ohlcv", "BTC/USDT", "15m"), candles(Walk(seed=1)))
    assert "Next: data features" in run(settings)
    page = (tmp_path / "var" / "data.html").read_text()
    assert "Nothing: no gaps" in page
    assert "is not built yet" in page


@pytest.mark.parametrize("width", [390, 1100])
def test_a_browser_draws_it_without_cutting_anything_off(told, tmp_path, width):
    """No part is wider than the window: what is wide scrolls in its own place."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    (page,) = re.findall(r"Page: (.+)", told)
    shutil.copy(page, tmp_path / "data.html")
    # A frame is as narrow as we like; a headless window is not.
    ask = "document.title = [f.contentDocument.documentElement.scrollWidth, f.clientWidth].join(' ')"
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'<title>waiting</title><iframe id="f" width="{width}" height="900" src="data.html" frameborder="0"'
        f' onload="const f = this; {ask}"></iframe>'
    )
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [browser, *flags, profile, "--virtual-time-budget=5000", outer.as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
    assert found, done.stdout[:300]
    assert int(found[1]) <= int(found[2]) == width
