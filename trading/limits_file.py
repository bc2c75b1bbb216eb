"""The limits that a person may change while bots trade: one TOML file of names and numbers, read again when it changes.

    max_daily_loss = 0.03
    max_position = 0.15

What is not named keeps the value that trading was started with. Which accounts exist, and where money is real, follows
from the bots and cannot be written here.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from observability.errors import SettingsError
from trading.limits import RiskLimits

WIRED = frozenset({"accounts", "play_money_venues", "shadow_trades_play_money", "rule_bots", "short_venues"})


class LimitsFile:
    """The file at `path` over the limits that trading was started with."""

    def __init__(self, path: Path, base: RiskLimits) -> None:
        self.path, self._base = path, base
        self._stamp: tuple[int, ...] | None = None

    def changed(self) -> RiskLimits | None:
        """The limits after a change of the file, None where it is as it was at the last call.

        Raises:
            SettingsError: the file as it is now cannot be used; said once, until it changes again.
        """
        try:
            status = self.path.stat()
            stamp: tuple[int, ...] = (status.st_mtime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            stamp = ()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        return self._read() if stamp else self._base

    def _read(self) -> RiskLimits:
        try:
            values = tomllib.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(
                f"the limits cannot be read: {error}", where=str(self.path), todo="mend it; the old limits stay"
            ) from error
        wired = sorted(WIRED & set(values))
        if wired:
            raise SettingsError(
                f"{', '.join(wired)} follow from the bots", where=str(self.path), todo="take it out of the file"
            )
        try:
            return RiskLimits.from_dict({**self._base.to_dict(), **values})
        except SettingsError as error:
            raise SettingsError(error.what, where=str(self.path), todo=error.todo) from error
