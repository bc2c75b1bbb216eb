"""What an entry is made of before anybody is asked: who wants it, what its strategy knows, and the question itself."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from trading.orders import ForecastRef, OrderIntent


@dataclass(frozen=True)
class GateId:
    """Who stands behind the gate."""

    bot: str
    account: str
    venue: str
    timeframe_ms: int


@dataclass(frozen=True)
class EntryFacts:
    """What the strategy knows about an entry: newest closed candle, stop, and the forecast behind it, if any."""

    candle_ms: int
    stop_price: float
    forecast: ForecastRef | None


def entry_intent(
    who: GateId, facts: EntryFacts, pair: str, side: str, *, amount: float, price: float, epoch: int, now_ms: int
) -> OrderIntent:
    """What the risk manager is asked before an entry, live and in backtests alike."""
    return OrderIntent(
        intent_id=uuid.uuid4().hex,
        bot=who.bot,
        account=who.account,
        venue=who.venue,
        pair=pair,
        side="buy" if side == "buy" else "sell",
        action="entry",
        amount=amount,
        price=price,
        stop_price=facts.stop_price,
        lease_epoch=epoch,
        created_ms=now_ms,
        candle_ms=facts.candle_ms,
        forecast=facts.forecast,
        timeframe_ms=who.timeframe_ms,
    )
