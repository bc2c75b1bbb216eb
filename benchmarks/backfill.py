"""How fast candles come in: our backfill beside a plain sequential ccxt loop, on the same sandbox in the same run.

Both go through a relay that holds every answer back as an exchange's distance would: 0 ms is loopback, 50 ms a server
on the same continent. Neither is paced: the sandbox sets no limit, and ccxt's own is switched off for the loop.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl

from benchmarks.figures import Figure, Figures
from cluster.settings import Settings
from cluster.stages.exchange import start_exchange
from observability.ports import free_port
from observability.progress import NullProgress, Progress
from pipelines.adapters.exchange import backfill, binance_urls, open_exchange
from pipelines.store import CandleStore

PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "DOGE/USDT", "LINK/USDT")
DAY_MS, PAGE = 86_400_000, 1000
LATENCIES_MS = (0, 50)


def run(progress: Progress, days: float = 240.0, rounds: int = 3, replay: Path | None = None) -> Figures:
    """Time both, interleaved, `rounds` times at each distance; medians are told."""
    figures, facts = [], {}
    with tempfile.TemporaryDirectory(prefix="mtst-backfill-") as folder:
        root = Path(folder)
        market = {"pairs": PAIRS, "history_days": days, "replay": replay}
        running = start_exchange(Settings().changed(workspace={"root": root / "x"}, market=market), NullProgress())
        span = (max(running.first_ms, running.open_ms - int(days * DAY_MS)), running.open_ms)
        try:
            with progress.task("backfill", total=len(LATENCIES_MS) * rounds * 2) as task:
                for latency in LATENCIES_MS:
                    with relay(running.url, latency / 1000) as url:
                        times: dict[str, list[dict[str, float]]] = {"loop": [], "ours": []}
                        for number in range(rounds):
                            for name, work in (("loop", plain_loop), ("ours", ours)):
                                times[name].append(work(url, running.pairs, span, root / f"{latency}-{number}-{name}"))
                                task.advance(1, f"{name} at {latency} ms")
                    figures += _rows(latency, times)
                    facts[f"{latency} ms"] = times
        finally:
            running.stop()
    return Figures(
        f"Backfill of {len(running.pairs)} pairs, {days:g} days of 15m",
        tuple(figures),
        bound=(
            "at 0 ms Python: both parse, and ours also checks every candle, hashes it, and syncs each month to "
            "the disk as it comes; with distance the loop waits a round trip a page, and ours has eight on their way"
        ),
        facts=facts,
    )


def ours(url: str, pairs: tuple[str, ...], span: tuple[int, int], root: Path) -> dict[str, float]:
    """Our backfill into an empty store."""
    began = time.perf_counter()
    source = open_exchange("sandbox", url)
    done = backfill(
        source, CandleStore(str(root)), pairs, "15m", since_ms=span[0], until_ms=span[1],
        progress=NullProgress(), kinds=("ohlcv",),
    )  # fmt: skip
    return {"seconds": time.perf_counter() - began, "rows": done.rows, "requests": done.requests}


def plain_loop(url: str, pairs: tuple[str, ...], span: tuple[int, int], root: Path) -> dict[str, float]:
    """What most people write: page after page, pair after pair, then one Parquet file a pair."""
    import ccxt

    began, rows, requests = time.perf_counter(), 0, 0
    root.mkdir(parents=True)
    api: Any = ccxt.binance({"urls": {"api": binance_urls(url)}, "enableRateLimit": False})
    api.load_markets()
    for pair in pairs:
        candles: list[list[float]] = []
        since = span[0]
        while since < span[1]:
            page = api.fetch_ohlcv(pair, "15m", since, PAGE)
            requests += 1
            if not page:
                break
            candles += page
            since = page[-1][0] + 900_000
        names = ["timestamp", "open", "high", "low", "close", "volume"]
        table = pl.DataFrame(candles, schema=names, orient="row").filter(pl.col("timestamp") + 900_000 <= span[1])
        table.write_parquet(root / f"{pair.replace('/', '_')}.parquet")
        rows += table.height
    return {"seconds": time.perf_counter() - began, "rows": rows, "requests": requests + 3}


@contextmanager
def relay(url: str, delay_s: float) -> Iterator[str]:
    """A TCP relay that holds every answer back; the address to use instead of `url`."""
    port, there, ready = free_port(), urlsplit(url), threading.Event()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError, asyncio.CancelledError):  # cancelled where the relay ends before its clients
            while chunk := await reader.read(1 << 16):
                loop.call_later(delay, writer.write, chunk)
        loop.call_later(delay, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(there.hostname, there.port)
        await asyncio.gather(pump(reader, far_writer, 0.0), pump(far_reader, writer, delay_s))

    async def live() -> None:
        ends = asyncio.Event()
        running.append((asyncio.get_running_loop(), ends))
        server = await asyncio.start_server(serve, "127.0.0.1", port)
        ready.set()
        await ends.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(live()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop, ends = running[0]
        loop.call_soon_threadsafe(ends.set)
        thread.join(10)


def _rows(latency: int, times: dict[str, list[dict[str, float]]]) -> list[Figure]:
    def rate(name: str) -> float:
        return statistics.median(each["rows"] / each["seconds"] for each in times[name])

    mine, loop = times["ours"][0], times["loop"][0]
    speed, asked, rows = (rate("ours"), rate("loop")), (mine["requests"], loop["requests"]), f"{mine['rows']:,.0f} rows"
    return [
        Figure(f"rows/s, {latency} ms away", speed[0], "rows/s", "ccxt loop", speed[1], speed[0] / speed[1], note=rows),
        Figure(f"requests, {latency} ms away", asked[0], "", "ccxt loop", asked[1], asked[0] / asked[1]),
    ]
