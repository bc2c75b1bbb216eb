"""Perpetuals with prices of their own: what they see, how they differ from spot, and that each trades at its own."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observability.errors import DataError, SettingsError
from trading.adapters.sandbox.accounts import make_accounts
from trading.adapters.sandbox.audit import audit, audit_futures
from trading.adapters.sandbox.config import SandboxConfig, SimulatedConfig
from trading.adapters.sandbox.market import Candles, Market
from trading.adapters.sandbox.orders import Kind, OrderRequest, RefusalError
from trading.adapters.sandbox.path import FIRST, SECOND, PricePath
from trading.adapters.sandbox.replay import replay
from trading.adapters.sandbox.rules import UNIT
from trading.adapters.sandbox.simulated import DAMPER, INTEREST, SimulatedMarket, simulate
from trading.adapters.sandbox.venue import Venue, open_venue

BTC, ETH = "BTC/USDT", "ETH/USDT"
SPEC = SimulatedMarket((BTC, ETH), history_days=60, trading_days=30, basis=0.004, basis_half_life=32)
ONE_PRICE = simulate(replace(SPEC, basis=0.0), seed=5)
APART = simulate(SPEC, seed=5)
START = datetime(2024, 1, 1, tzinfo=UTC)


def _basis(market: Market, pair: str) -> np.ndarray:
    return np.log(market.perpetuals[pair].close / market.candles[pair].close)


def _same(one: Candles, other: Candles) -> bool:
    names = ("open", "high", "low", "close", "volume")
    return all((getattr(one, name) == getattr(other, name)).all() for name in names)


def test_perpetuals_without_candles_of_their_own_see_those_of_spot() -> None:
    view = ONE_PRICE.futures
    assert view.pairs == ONE_PRICE.pairs
    assert all(view.candles[pair] is ONE_PRICE.candles[pair] for pair in view.pairs)
    assert view.futures.candles == view.candles
    at = range(ONE_PRICE.open_ms, ONE_PRICE.open_ms + 5_000_000, 31_013)
    spot, perpetual = PricePath(ONE_PRICE), PricePath(view)
    assert [spot.price(ETH, ms) for ms in at] == [perpetual.price(ETH, ms) for ms in at]


def test_the_view_has_the_pairs_with_funding_and_moves_in_time_with_the_market() -> None:
    market = replace(APART, funding={ETH: APART.funding[ETH]}, perpetuals={ETH: APART.perpetuals[ETH]})
    assert market.futures.pairs == tuple(market.futures.rules) == (ETH,)
    assert market.futures.candles[ETH] is APART.perpetuals[ETH]
    later = market.rebased(market.open_ms + 10 * market.step_ms)
    assert later.futures.open_ms == later.open_ms == market.open_ms + 10 * market.step_ms
    assert later.futures.candles[ETH] is APART.perpetuals[ETH]
    with pytest.raises(SettingsError, match="needs funding"):
        replace(market, perpetuals=APART.perpetuals)
    short = Candles(*(getattr(APART.perpetuals[ETH], name)[1:] for name in ("open", "high", "low", "close", "volume")))
    with pytest.raises(SettingsError, match="different lengths"):
        replace(market, perpetuals={ETH: short})


def test_a_basis_leaves_the_spot_market_of_a_seed_as_it_is() -> None:
    again = simulate(SPEC, seed=5)
    for pair in SPEC.pairs:
        assert _same(APART.candles[pair], ONE_PRICE.candles[pair])
        assert _same(APART.perpetuals[pair], again.perpetuals[pair])
        assert (APART.funding[pair].rate == again.funding[pair].rate).all()
        assert (APART.funding[pair].time_ms == ONE_PRICE.funding[pair].time_ms).all()
    assert APART.rules == ONE_PRICE.rules
    assert ONE_PRICE.perpetuals == {}


def test_the_basis_has_its_deviation_and_half_life_and_each_pair_its_own() -> None:
    many = [simulate(SPEC, seed=seed) for seed in range(6)]
    values = np.array([_basis(market, pair) for market in many for pair in SPEC.pairs])
    assert values.std() == pytest.approx(SPEC.basis, rel=0.06)
    assert abs(values.mean()) < 3 * SPEC.basis / np.sqrt(values.size / (2 * SPEC.basis_half_life))
    for lag, share in ((8, 0.5**0.25), (32, 0.5), (64, 0.25)):
        assert (values[:, lag:] * values[:, :-lag]).mean() / (values**2).mean() == pytest.approx(share, abs=0.06)
    assert abs(np.corrcoef(values)[0, 1]) < 0.2
    assert values[:, 0].std() > SPEC.basis / 2, "stationary from the first candle on"
    table = APART.perpetuals[BTC]
    assert (table.open[1:] == table.close[:-1]).all()
    assert (table.high >= np.maximum(table.open, table.close)).all()
    assert (table.low <= np.minimum(table.open, table.close)).all()


def test_funding_follows_the_premium_and_is_the_interest_while_that_is_small() -> None:
    table, basis = APART.funding[BTC], np.expm1(_basis(APART, BTC))
    rows = (table.time_ms - APART.first_ms) // APART.step_ms
    known = rows >= 32
    rates = table.rate[known]
    mean = np.array([np.average(basis[row - 32 : row], weights=np.arange(1, 33)) for row in rows[known]])
    expected = mean + np.clip(INTEREST - mean, -DAMPER, DAMPER)
    assert np.corrcoef(rates, expected)[0, 1] > 0.999
    assert np.abs(rates - expected).max() < SPEC.basis / 10
    inside = np.abs(mean - INTEREST) < DAMPER - SPEC.basis / 10
    assert inside.any()
    assert (rates[inside] == INTEREST).all()
    assert ((rates > INTEREST) <= (mean > INTEREST)).all()


def test_both_prices_meet_their_extremes_in_the_same_order() -> None:
    spot, perpetual = PricePath(APART), PricePath(APART.futures)
    for row in range(0, APART.rows, 13):
        opened = APART.first_ms + row * APART.step_ms
        ways = [
            np.sign(
                path.price(BTC, opened + int(SECOND * APART.step_ms))
                - path.price(BTC, opened + int(FIRST * APART.step_ms))
            )
            for path in (spot, perpetual)
        ]
        assert ways[0] * ways[1] >= 0


def _write(folder: Path, name: str, rows: int, *, factor: float = 1.0, skip: tuple[int, ...] = ()) -> None:
    times = pl.datetime_range(START, interval="1h", end=START.replace(day=28), eager=True, time_zone="UTC")[:rows]
    price = factor * (100.0 + np.arange(rows) * 0.25)
    frame = pl.DataFrame({"timestamp": times.cast(pl.Datetime("ms", "UTC")), "open": price, "high": price + 1.5})
    frame = frame.with_columns(low=pl.col("open") - 1.25, close=pl.col("open") + 0.25, volume=pl.lit(3.0))
    frame.with_row_index().filter(~pl.col("index").is_in(skip)).drop("index").write_parquet(folder / name)


def _write_funding(folder: Path, name: str) -> None:
    due = pl.datetime_range(START, interval="8h", end=START.replace(day=8), eager=True, time_zone="UTC")
    frame = pl.DataFrame({"timestamp": due.cast(pl.Datetime("ms", "UTC"))}).with_columns(funding_rate=pl.lit(1e-4))
    frame.write_parquet(folder / name)


def test_a_replay_reads_the_perpetuals_own_candles_on_the_grid_of_spot(tmp_path: Path) -> None:
    for name in ("AAA_USDT", "BBB_USDT"):
        _write(tmp_path, f"{name}-1h.parquet", 200, skip=(0, 1))
        _write_funding(tmp_path, f"{name}-funding.parquet")
    _write(tmp_path, "AAA_USDT-perpetual-1h.parquet", 210, factor=1.0125, skip=(2, 60))
    market = replay(tmp_path, "1h", trading_days=2)
    assert market.pairs == market.futures.pairs == ("AAA/USDT", "BBB/USDT")
    assert market.rows == 198
    spot, own = market.candles["AAA/USDT"], market.perpetuals["AAA/USDT"]
    scale = 10 ** market.rules["AAA/USDT"].price_decimals
    assert own.open[10] / scale == pytest.approx(1.0125 * spot.open[10] / scale), "its ticks say the prices of both"
    assert own.open[0] == own.high[0] == own.low[0] == own.close[0] == round((1.0125 * 100.25 + 0.25) * scale)
    assert own.close[58] == own.open[58] == own.close[57]
    assert own.volume[58] == 0.0
    assert market.futures.candles["BBB/USDT"] is market.candles["BBB/USDT"]


def test_a_replay_says_what_is_wrong_with_a_perpetuals_candles(tmp_path: Path) -> None:
    _write(tmp_path, "AAA_USDT-1h.parquet", 200)
    _write(tmp_path, "AAA_USDT-perpetual-1h.parquet", 190)
    with pytest.raises(DataError, match=r"without its funding.*AAA_USDT-funding"):
        replay(tmp_path, "1h", trading_days=2)
    _write_funding(tmp_path, "AAA_USDT-funding.parquet")
    with pytest.raises(DataError, match=r"2024-01-08T21:00:00Z, do not cover spot's, 2024-01-01.* to 2024-01-09T07:00"):
        replay(tmp_path, "1h", trading_days=2)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SandboxConfig:
    accounts = make_accounts(tmp_path_factory.mktemp("keys"), ["alice"], {"USDT": 10_000, "BTC": 1})
    market = SimulatedConfig(pairs=(BTC,), history_days=2, trading_days=4, basis=0.01)
    return SandboxConfig(seed=11, market=market, accounts=accounts)


def _order(venue: Venue, side: str, kind: Kind = Kind.MARKET, **changes: int) -> OrderRequest:
    values = {"lots": 0.05 * UNIT // venue.market.rules[BTC].amount(1), "price": 0, **changes}
    return OrderRequest("alice", BTC, side, kind, lots=int(values["lots"]), price=values["price"])  # type: ignore[arg-type]


def test_each_order_fills_by_the_path_of_its_own_side(config: SandboxConfig) -> None:
    filled = set()
    for perpetual in (False, True):
        venue = open_venue(config)
        side, now = (venue.futures if perpetual else venue.spot), venue.now_ms
        bought = side.engine.place(_order(venue, "BUY"), now)
        assert bought.cost == venue.market.rules[BTC].cost(side.engine.quote(BTC, now)[1], bought.lots)
        level = round(side.path.price(BTC, now) * 0.985)
        reached = side.path.first_below(BTC, now, venue.market.end_ms, level)
        side.engine.place(_order(venue, "BUY", Kind.LIMIT, price=level), now)
        venue.clock.advance(venue.market.end_ms)
        assert [fill.time_ms for fill in side.engine.fills] == [now, reached]
        filled |= {bought.cost, reached}
    assert len(filled) == 4, "the two sides have prices of their own"


@settings(max_examples=25, deadline=None)
@given(
    actions=st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from(["BUY", "SELL"]),
            st.sampled_from([Kind.MARKET, Kind.LIMIT]),
            st.integers(-200, 200),
            st.integers(1, 240),
        ),
        max_size=12,
    )
)
def test_the_books_balance_on_both_sides_and_equal_seeds_have_equal_histories(
    config: SandboxConfig, actions: list[tuple[bool, str, Kind, int, int]]
) -> None:
    digests = set()
    for _ in range(2):
        venue = open_venue(config)
        for perpetual, way, kind, away, minutes in actions:
            side = venue.futures if perpetual else venue.spot
            price = 0 if kind is Kind.MARKET else side.path.price(BTC, venue.now_ms) * (10_000 + away) // 10_000
            with contextlib.suppress(RefusalError):
                side.engine.place(_order(venue, way, kind, price=price), venue.now_ms)
            venue.clock.advance(venue.now_ms + 60_000 * minutes)
        assert (*audit(venue.spot.engine), *audit_futures(venue.futures.engine, venue.margin)) == ()
        digests.add(venue.digest())
    assert len(digests) == 1


def test_a_short_is_liquidated_by_the_perpetuals_price_and_not_by_spots(config: SandboxConfig) -> None:
    calm = open_venue(config).market
    flat = Candles(*(np.full(calm.rows, calm.candles[BTC].open[0]) for _ in range(4)), calm.candles[BTC].volume)
    risen = Candles(*(np.where(np.arange(calm.rows) < 250, column, column * 11 // 10) for column in
                      (flat.open, flat.high, flat.low, flat.close)), flat.volume)  # fmt: skip
    for spot, perpetual, ruined in ((flat, risen, True), (risen, flat, False)):
        venue = Venue(config, replace(calm, candles={BTC: spot}, perpetuals={BTC: perpetual}))
        position = venue.margin.position("alice", BTC)
        position.isolated = True
        venue.futures.engine.place(_order(venue, "SELL"), venue.now_ms)
        venue.clock.advance(venue.market.end_ms)
        assert (position.lots == 0) is ruined
        assert any(order.client_id.startswith("autoclose-") for order in venue.futures.engine.orders.values()) is ruined
