"""One holder per account, by a lease with a fencing epoch; pure functions, persisted by the journal.

Every grant raises the epoch. An order carries the epoch under which it was made, so whatever a paused, partitioned or
replaced bot still sends is recognised as old, however late it arrives. Nor can such a bot take the lease back from its
successor: of two processes of one bot the later born has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from observability.errors import LeaseError
from trading.orders import Reader, to_plain


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may add risk on an account, under which epoch, until when (ms; live while now < expires_ms).

    `born_ms`: when the holder's process began, by the wall's clock; 0 where it does not say.
    """

    account: str
    holder: str
    epoch: int
    expires_ms: int
    born_ms: int = 0

    def live(self, now_ms: int) -> bool:
        """Whether it still counts."""
        return now_ms < self.expires_ms

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return dict(to_plain(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Lease:
        """Read `to_dict` back; raises OrderError."""
        read = Reader(data, "lease")
        account, holder, epoch = read.text("account"), read.text("holder"), read.whole("epoch")
        return cls(account, holder, epoch, read.whole("expires_ms"), read.whole("born_ms", 0))


def grant(current: Lease | None, account: str, holder: str, *, ttl_ms: int, now_ms: int, born_ms: int = 0) -> Lease:
    """Give the account to `holder` under a new epoch.

    The present holder may ask again: it was restarted, and its former self, born earlier, is fenced off.

    Raises:
        LeaseError: the lease of another holder, or of a later process of this one, is still live.
    """
    if not holder.strip():
        raise LeaseError("a lease needs a named holder", where=account, todo="pass the bot's name")
    if current is not None and current.holder != holder and current.live(now_ms):
        left = (current.expires_ms - now_ms) / 1000
        raise LeaseError(
            f"the account is held by {current.holder} for another {left:.1f} s",
            where=account,
            todo="stop that bot or wait until its lease ends; one account serves one bot",
        )
    if current is not None and current.live(now_ms) and born_ms < current.born_ms:
        raise LeaseError(
            f"a later process of {holder} has the account",
            where=account,
            todo="end this one: it was replaced, and can only close",
        )
    epoch = 1 if current is None else current.epoch + 1
    return Lease(account, holder, epoch, now_ms + ttl_ms, born_ms)


def renew(current: Lease | None, account: str, holder: str, epoch: int, *, ttl_ms: int, now_ms: int) -> Lease:
    """Prolong a live lease under the same epoch.

    Raises:
        LeaseError: it was lost, taken over or has run out; acquire it again and use the new epoch.
    """
    if current is None or current.holder != holder or current.epoch != epoch or not current.live(now_ms):
        raise LeaseError(
            f"{holder} no longer holds the lease under epoch {epoch}", where=account, todo="acquire it again"
        )
    return replace(current, expires_ms=max(current.expires_ms, now_ms + ttl_ms))


def expire(current: Lease, now_ms: int) -> Lease:
    """End a lease now (an orderly stop, or a person taking it away); its epoch stays used."""
    return replace(current, expires_ms=min(current.expires_ms, now_ms))
