"""A PostgreSQL of the tests' own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from observability.ports import free_port


@dataclass(frozen=True)
class Server:
    """Its connection string but for the database's name, and how to control it."""

    dsn: str
    control: tuple[str, ...]
    options: str

    def start(self) -> None:
        """Start it, and wait until it answers."""
        # it would keep a pipe open that it inherits
        subprocess.run([*self.control, "-o", self.options, "start"], check=True, timeout=60, cwd="/")

    def stop(self) -> None:
        """Stop it as a crash does; what was committed stays."""
        subprocess.run([*self.control, "-m", "immediate", "stop"], check=True, capture_output=True, timeout=60, cwd="/")


def programs() -> Path | None:
    """The folder with `initdb` and `pg_ctl`; None where PostgreSQL is not installed."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return places[-1] if places else None


@contextmanager
def serving(place: Path) -> Iterator[Server]:
    """A server in a new folder, out of the programs in `place`."""
    root = os.geteuid() == 0  # it refuses to run as root
    prefix = ("runuser", "-u", "postgres", "--") if root else ()
    # TMPDIR and pytest's folders may be closed to other users
    folder, port = Path(tempfile.mkdtemp(prefix="mtst-pg-", dir="/tmp" if root else None)), free_port()
    if root:
        shutil.chown(folder, "postgres")
    data = str(folder / "data")
    make = [*prefix, str(place / "initdb"), "-D", data, "-A", "trust", "-U", "risk"]
    subprocess.run(make, check=True, capture_output=True, timeout=60, cwd="/")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    control = (*prefix, str(place / "pg_ctl"), "-D", data, "-l", str(folder / "log"), "-w", "-s")
    server = Server(f"host=127.0.0.1 port={port} user=risk dbname=", control, options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
