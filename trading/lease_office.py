"""Gives out the lease of each account of a running book, every change journalled; the rules are in `trading.lease`."""

from __future__ import annotations

from observability.errors import LeaseError, TradingError
from trading import lease as leases
from trading.events import AccountReport, LeaseChanged
from trading.running_book import RunningBook


class LeaseOffice:
    """One lease an account at a time; see `trading.manager.RiskManager` for what each call promises."""

    def __init__(self, running: RunningBook) -> None:
        self._running = running

    def acquire(self, account: str, holder: str, born_ms: int) -> leases.Lease:
        """Under a new epoch; raises LeaseError while another, or a later process of this holder, has it."""
        running = self._running
        with running.lock:
            if account not in running.limits.accounts:
                raise LeaseError("the account is not configured", where=account, todo="add it to risk.accounts")
            ttl_ms, current = running.limits.lease_ttl_ms, running.book.leases.get(account)
            granted = leases.grant(current, account, holder, ttl_ms=ttl_ms, now_ms=running.now_ms(), born_ms=born_ms)
            return self._changed(granted)

    def renew(self, account: str, holder: str, epoch: int) -> leases.Lease:
        """Prolong a live lease; raises LeaseError when it was lost."""
        running = self._running
        with running.lock:
            ttl_ms, current = running.limits.lease_ttl_ms, running.book.leases.get(account)
            prolonged = leases.renew(current, account, holder, epoch, ttl_ms=ttl_ms, now_ms=running.now_ms())
            return self._changed(prolonged, durable=False)

    def release(self, account: str, holder: str, epoch: int) -> bool:
        """End one's own lease; False when it was lost already."""
        running = self._running
        with running.lock:
            current = running.book.leases.get(account)
            if current is None or (current.holder, current.epoch) != (holder, epoch):
                return False
            self._changed(leases.expire(current, running.now_ms()))
            return True

    def check(self, report: AccountReport) -> None:
        """Raises TradingError: the account is not configured; LeaseError: it is reported under an old epoch."""
        if report.account not in self._running.limits.accounts:
            raise TradingError("an unknown account reports", where=report.account, todo="add it to risk.accounts")
        held = self._running.book.leases.get(report.account)
        if held is None or held.epoch != report.lease_epoch:
            raise LeaseError(f"{report.bot} reports under an old lease", where=report.account, todo="acquire it")

    def _changed(self, lease: leases.Lease, *, durable: bool = True) -> leases.Lease:
        self._running.commit(LeaseChanged(lease), durable=durable)
        return lease
