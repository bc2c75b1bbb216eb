"""What all tests share: where the real market data lies, Ray's token, and a folder for caches."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests import books_kit
from tests.postgres_kit import Server, programs, serving

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """What holds for the whole run and has to stand before the first import.

    One token for all Ray sessions, because Ray reads it once a process, at its import. Caches in a folder of the run:
    tests write nothing into the home folder.
    """
    own = Path(tempfile.mkdtemp(prefix="mtst-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(own, ignore_errors=True))
    os.environ |= {"XDG_CACHE_HOME": str(own / "cache"), "MPLCONFIGDIR": str(own / "cache" / "matplotlib")}
    if "MTST__CLUSTER__TOKEN_FILE" not in os.environ:
        token = str(own / "ray.token")
        os.environ |= {"MTST__CLUSTER__TOKEN_FILE": token, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": token}
        os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def pytest_unconfigure() -> None:
    """Remove what `pytest_configure` made."""
    folder = Path(os.environ.get("MTST__CLUSTER__TOKEN_FILE", "")).parent
    if folder.name.startswith("mtst-tests-"):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _books() -> Iterator[None]:
    """No exchange and no fleet is stopped, by whatever test or fixture, before its books were compared."""
    with books_kit.compared():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Bots whose books differ on purpose: on the module, where its fixture stops them after the last test."""
    marker = item.get_closest_marker("books_differ")
    with books_kit.excused(str(marker.args[0]) if marker else ""):
        return (yield)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real market data: `MTST_SHARED_DATA`, else `shared/data` beside the checkout."""
    folder = Path(os.environ.get("MTST_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real market data at {folder}; set MTST_SHARED_DATA to run this test")
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL of the tests' own."""
    place = programs()
    if place is None:
        pytest.skip("PostgreSQL is not installed")
    with serving(place) as server:
        yield server
