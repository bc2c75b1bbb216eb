"""Files that appear whole or not at all, on a local disk or any fsspec file system."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from observability.errors import StoreError
from observability.files import DRAFT_SUFFIX, write_whole


@dataclass(frozen=True)
class Blobs:
    """Byte files below one root URL, for example `var/data`, `s3://bucket/data` or `memory://data`.

    `write` replaces a file atomically: on a local disk through a temporary file, synced where `durable`, and a rename,
    elsewhere through the single put that object stores make visible as a whole. So a process killed at any point leaves
    the old file or the new one.
    """

    fs: Any
    root: str

    @staticmethod
    def at(url: str) -> Blobs:
        """Open a root; nothing is created yet.

        Raises:
            StoreError: if the URL's protocol is unknown or its driver is not installed.
        """
        try:
            # A remembered listing would hide what another process has just written.
            fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise StoreError(
                f"cannot open the root: {error}", where=url, todo="use a folder or an fsspec URL"
            ) from error
        return Blobs(fs, str(path).rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def url(self) -> str:
        """The root as a URL that any process understands, whatever its folder."""
        return str(self.fs.unstrip_protocol(self.root))

    def path(self, name: str) -> str:
        """Full path of a file below the root, for messages and libraries."""
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        return bool(self.fs.exists(self.path(name)))

    def read(self, name: str) -> bytes:
        """The bytes of a file; FileNotFoundError if there is none."""
        return bytes(self.fs.cat_file(self.path(name)))

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Write or replace a file as a whole; `durable` False leaves the time of its way to the disk to the system."""
        if self.is_local:
            write_whole(Path(self.path(name)), data, durable=durable)
        else:
            self.fs.pipe_file(self.path(name), data)

    def size(self, name: str) -> int:
        """Bytes in a file; FileNotFoundError if there is none."""
        return int(self.fs.info(self.path(name))["size"])

    def holds(self, name: str, size: int, digest: str = "") -> bool:
        """Whether a file of this size is there; with a digest, whether its bytes have this SHA-256, too."""
        try:
            return self.size(name) == size and (not digest or hashlib.sha256(self.read(name)).hexdigest() == digest)
        except FileNotFoundError:
            return False

    def rename(self, name: str, to: str) -> None:
        """Give a file another name; one that is gone is fine."""
        try:
            self.fs.mv(self.path(name), self.path(to))
        except FileNotFoundError:
            return

    def remove(self, name: str) -> None:
        """Delete a file; one that is gone already is fine."""
        try:
            self.fs.rm_file(self.path(name))
        except FileNotFoundError:
            return

    def names(self, suffix: str, under: str = "") -> list[str]:
        """Names below `under` that end with `suffix`, sorted; temporary files are left out."""
        start = self.path(under) if under else self.root
        found = self.fs.find(start) if self.fs.exists(start) else []
        names = (str(path)[len(self.root) + 1 :] for path in found if str(path).endswith(suffix))
        return sorted(name for name in names if not name.rsplit("/", 1)[-1].startswith("."))

    @contextmanager
    def lock(self, folder: str) -> Iterator[None]:
        """Keep other writers of this machine out of a folder, and clear what killed ones left half-written.

        On object stores there must be one writer a folder.
        """
        if not self.is_local:
            yield
            return
        path = Path(self.path(folder))
        path.mkdir(parents=True, exist_ok=True)
        with (path / ".lock").open("w") as file:
            # The kernel drops the lock with its owner, so a killed writer never blocks the next one.
            fcntl.flock(file, fcntl.LOCK_EX)
            for leftover in path.glob(f".*{DRAFT_SUFFIX}"):
                leftover.unlink(missing_ok=True)
            yield
