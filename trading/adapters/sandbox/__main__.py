"""`python -m trading.adapters.sandbox --config FILE`: run a sandbox exchange until it is told to stop."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

import uvicorn

from observability.errors import MtstError, StartError
from observability.exporter import start_exporter
from observability.logging import configure_logging, get_logger
from observability.metrics import Meters
from trading.adapters.sandbox.app import build_app
from trading.adapters.sandbox.config import SandboxConfig, load_config
from trading.adapters.sandbox.venue import open_venue

PR_SET_PDEATHSIG = 1
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def main(argv: list[str] | None = None) -> int:
    """Parse the command line and serve; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trading.adapters.sandbox", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="JSON file, see trading/adapters/sandbox/config.py")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the starting process ends (Linux)")
    parser.add_argument("--log-level", default="INFO")
    arguments = parser.parse_args(argv)
    configure_logging(arguments.log_level)
    if arguments.die_with_parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        serve(load_config(arguments.config))
    except MtstError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def serve(config: SandboxConfig) -> None:
    """Serve until SIGINT or SIGTERM; raises StartError for an address that is not loopback."""
    if config.host not in LOOPBACK:
        raise StartError(
            "the control API has no keys, so the sandbox exchange listens on loopback only",
            where=config.host,
            todo=f"use one of {', '.join(LOOPBACK)}",
        )
    venue, meters = open_venue(config), Meters("exchange")
    log = get_logger(__name__)
    with contextlib.ExitStack() as stack:
        if config.targets_dir is not None:
            stack.enter_context(start_exporter(meters, config.targets_dir, "exchange"))
        server = uvicorn.Server(
            uvicorn.Config(
                build_app(venue, meters),
                host=config.host,
                port=config.port,
                log_level="warning",
                access_log=False,
                lifespan="on",
                timeout_keep_alive=75,
                timeout_graceful_shutdown=2,
            )
        )
        # uvicorn raises a signal again after its shutdown; by then it has said all that it had to say.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        market = venue.market
        log.info(
            "open", pid=os.getpid(), market=market.name, seed=market.seed, pairs=len(market.pairs), port=config.port
        )
        server.run()
        log.info(
            "closed", now_ms=venue.now_ms, orders=len(venue.spot.engine.orders), fills=len(venue.spot.engine.fills)
        )


if __name__ == "__main__":
    raise SystemExit(main())
