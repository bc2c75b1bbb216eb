"""Binance's rate limits: request weight a minute, orders in ten seconds, and the ban of those who do not listen."""

from __future__ import annotations

from trading.adapters.sandbox.orders import RefusalError

MINUTE_MS, TEN_S_MS = 60_000, 10_000
PATIENCE = 10  # refused requests in one minute before the ban
BAN_MS = 120_000


class Traffic:
    """Counts what arrives, by virtual time; a limit of 0 is counted and not enforced."""

    def __init__(self, weight_limit: int, order_limit: int) -> None:
        self._weight_limit, self._order_limit = weight_limit, order_limit
        self._minute = self._ten = self._weight = self._refused = self._banned_until = 0
        self._orders: dict[str, int] = {}

    def weigh(self, weight: int, now_ms: int) -> int:
        """Add a request's weight to this minute; returns the sum; raises RefusalError -1003 over the limit."""
        minute = now_ms // MINUTE_MS
        if minute != self._minute:
            self._minute, self._weight, self._refused = minute, 0, 0
        if now_ms < self._banned_until:
            raise RefusalError(
                -1003,
                f"Way too much request weight used; IP banned until {self._banned_until}. Please use WebSocket Streams"
                " for live updates to avoid bans.",
                418,
                retry_after_s=-(-(self._banned_until - now_ms) // 1000),
            )
        self._weight += weight
        if 0 < self._weight_limit < self._weight:
            self._refused += 1
            if self._refused > PATIENCE:
                self._banned_until = now_ms + BAN_MS
            raise RefusalError(
                -1003,
                f"Too much request weight used; current limit is {self._weight_limit} request weight per 1 MINUTE.",
                429,
                retry_after_s=-(-((minute + 1) * MINUTE_MS - now_ms) // 1000),
            )
        return self._weight

    def order(self, account: str, now_ms: int) -> int:
        """Count an order of an account; returns its orders in these ten seconds; raises RefusalError -1015."""
        ten = now_ms // TEN_S_MS
        if ten != self._ten:
            self._ten = ten
            self._orders.clear()
        count = self._orders[account] = self._orders.get(account, 0) + 1
        if 0 < self._order_limit < count:
            raise RefusalError(
                -1015, f"Too many new orders; current limit is {self._order_limit} orders per 10 SECOND.", 429
            )
        return count
