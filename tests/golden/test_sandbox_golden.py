"""A day of seeded orders on spot and perpetuals, as a hash: the exchange's arithmetic changes only on purpose."""

from __future__ import annotations

import contextlib
import hashlib

import numpy as np

from trading.adapters.sandbox.audit import audit, audit_futures
from trading.adapters.sandbox.ledger import Ledger
from trading.adapters.sandbox.market import Candles, Funding, Ints, Market
from trading.adapters.sandbox.matching import Engine, Liquidity, Terms
from trading.adapters.sandbox.money import SpotMoney
from trading.adapters.sandbox.orders import Kind, OrderRequest, RefusalError
from trading.adapters.sandbox.path import PricePath
from trading.adapters.sandbox.perpetuals import PerpetualMoney
from trading.adapters.sandbox.rules import UNIT, SymbolRules

DAY_MS, CANDLE_MS, PAIR = 86_400_000, 900_000, "BTC/USDT"
GOLDEN = "adfc37ab3bb16883bc08570f4edc009722c75004094970e1af7b7ae87bd06047"


def _market() -> Market:
    """Candles by formula, so that no version of a random generator matters for the prices."""
    rows = np.arange(96 * 2, dtype=np.int64)
    wave: Ints = 6_000_000 + (rows * rows * 7919) % 100_003 + 400 * ((rows * 37) % 211)
    opened, closed = wave, np.roll(wave, -1)
    high, low = np.maximum(opened, closed) + rows % 977, np.minimum(opened, closed) - rows % 883
    first = 1_700_000_100_000 // CANDLE_MS * CANDLE_MS
    table = Candles(opened, high, low, closed, np.full(len(rows), 5.0))
    funding = Funding(first + DAY_MS + np.arange(1, 4, dtype=np.int64) * 28_800_000, np.array([1e-4, -2e-4, 3e-4]))
    rules = {PAIR: SymbolRules(PAIR, 2, 5)}
    return Market("golden", 7, "15m", first, first + DAY_MS, len(rows), rules, {PAIR: table}, {PAIR: funding})


def _played(engine: Engine, market: Market) -> None:
    """An order of some kind and size, by formula, every ten minutes."""
    kinds = (Kind.MARKET, Kind.LIMIT, Kind.LIMIT_MAKER, Kind.STOP_LOSS, Kind.TAKE_PROFIT_LIMIT, Kind.STOP_LOSS_LIMIT)
    now = market.open_ms
    for step in range(140):
        price = engine.quote(PAIR, now)[0]
        kind, away = kinds[step % len(kinds)], (step * 53) % 400 - 200
        request = OrderRequest(
            "alice",
            PAIR,
            "BUY" if (step * 7) % 5 < 3 else "SELL",
            kind,
            lots=100 + (step * 131) % 900,
            price=0 if kind.priceless else price * (10_000 + away) // 10_000,
            stop_price=price * (10_000 + (step * 29) % 300 - 150) // 10_000 if kind.conditional else 0,
        )
        with contextlib.suppress(RefusalError):
            engine.place(request, now)
        engine.advance(now, now + 600_000)
        now += 600_000


def _hash() -> str:
    market, wallets = _market(), (Ledger(), Ledger())
    path = PricePath(market)
    for wallet in wallets:
        wallet.open_account("alice", {"USDT": 10_000 * UNIT, "BTC": UNIT // 10})
    terms = Terms(1000, 1000, liquidity=Liquidity(200 * UNIT))
    spot = Engine(market.rules, path, SpotMoney(market.rules, wallets[0]), terms)
    money = PerpetualMoney(market.rules, wallets[1], market, path)
    futures = Engine(market.rules, path, money, Terms(200, 500, liquidity=Liquidity(300 * UNIT)))
    for engine in (spot, futures):
        _played(engine, market)
        assert len(engine.fills) > 50
    assert (*audit(spot), *audit_futures(futures, money)) == ()
    return hashlib.sha256(f"{spot.digest()}{futures.digest()}".encode()).hexdigest()


def test_equal_orders_make_equal_histories_and_the_one_that_they_always_made() -> None:
    assert _hash() == _hash() == GOLDEN
