"""Public endpoints: time, candles, books and tickers, of spot and of perpetuals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from trading.adapters.sandbox.endpoint import Call, Endpoint, Handler
from trading.adapters.sandbox.orders import RefusalError
from trading.adapters.sandbox.rules import PPM, UNIT, decimal_text
from trading.adapters.sandbox.side import Side
from trading.adapters.sandbox.symbols import coin_futures_info, futures_info, spot_info
from trading.adapters.sandbox.venue import Venue

LEVELS, LEVEL_NOTIONAL = 100, 50_000 * UNIT


def ping(_venue: Venue, _call: Call) -> dict[str, Any]:
    """Answer."""
    return {}


def server_time(venue: Venue, _call: Call) -> dict[str, Any]:
    """Virtual time."""
    return {"serverTime": venue.told_ms}


def _klines(venue: Venue, side: Side, call: Call, symbol: str = "symbol", *, with_volume: bool) -> bytes:
    pair, interval = side.pair(call.text(symbol)), call.text("interval")
    if interval not in side.klines.intervals():
        raise RefusalError(-1120, f"Invalid interval. This market is kept in {side.market.timeframe}.")
    start, end = call.integer("startTime"), call.integer("endTime")
    limit = call.limit(500, 1500)
    return side.feed.rows(
        pair, interval, venue.now_ms, start_ms=start, end_ms=end, limit=limit, with_volume=with_volume
    )


def klines(venue: Venue, side: Side, call: Call) -> bytes:
    """Candles."""
    return _klines(venue, side, call, with_volume=True)


def mark_klines(venue: Venue, call: Call) -> bytes:
    """Mark price candles: the perpetual's without volume."""
    return _klines(venue, venue.futures, call, with_volume=False)


def index_klines(venue: Venue, call: Call) -> bytes:
    """Index price candles: spot's without volume; Binance calls the symbol `pair` here."""
    return _klines(venue, venue.spot, call, "pair", with_volume=False)


def depth(venue: Venue, side: Side, call: Call) -> dict[str, Any]:
    """An order book of the market maker: tick after tick, about 50,000 quote units a level, deeper further out."""
    pair = side.pair(call.text("symbol"))
    rules, (bid, ask) = side.market.rules[pair], side.engine.quote(pair, venue.seen_ms(side, pair))
    step = max(1, bid * 50 // PPM)

    def level(price: int, k: int) -> list[str]:
        return [rules.price_text(price), rules.lots_text(max(1, LEVEL_NOTIONAL // rules.cost(price, 1)) * (4 + k) // 4)]

    levels = range(min(call.limit(100, 5000), LEVELS))
    return {
        "lastUpdateId": venue.now_ms,
        "E": venue.now_ms,
        "T": venue.now_ms,
        "bids": [level(bid - step * k, k) for k in levels if bid > step * k],
        "asks": [level(ask + step * k, k) for k in levels],
    }


def _asked_pairs(side: Side, call: Call) -> tuple[list[str], bool]:
    """Pairs that a ticker request names, and whether it wants a list."""
    if call.params.get("symbol"):
        return [side.pair(call.params["symbol"])], False
    if call.params.get("symbols"):
        try:
            names = orjson.loads(call.params["symbols"])
        except orjson.JSONDecodeError:
            raise RefusalError(-1100, "Illegal characters found in parameter 'symbols'.") from None
        return [side.pair(str(name)) for name in names], True
    return list(side.market.pairs), True


def _book_ticker(venue: Venue, side: Side, pair: str) -> dict[str, Any]:
    rules, (bid, ask) = side.market.rules[pair], side.engine.quote(pair, venue.seen_ms(side, pair))
    lots = rules.lots_text(max(1, LEVEL_NOTIONAL // rules.cost(bid, 1)))
    prices = {"bidPrice": rules.price_text(bid), "askPrice": rules.price_text(ask)}
    return {"symbol": rules.symbol, **prices, "bidQty": lots, "askQty": lots}


def _day_ticker(venue: Venue, side: Side, pair: str) -> dict[str, Any]:
    rules, day = side.market.rules[pair], side.klines.day(pair, venue.seen_ms(side, pair))
    text = rules.price_text
    average = round(day.quote_volume / day.volume * 10**rules.price_decimals) if day.volume else day.last
    return {
        **_book_ticker(venue, side, pair),
        "priceChange": decimal_text(day.last - day.open, rules.price_decimals),
        "priceChangePercent": f"{100 * (day.last / day.open - 1):.3f}",
        "weightedAvgPrice": text(average),
        "prevClosePrice": text(day.open),
        "lastPrice": text(day.last),
        "lastQty": rules.lots_text(1),
        "openPrice": text(day.open),
        "highPrice": text(day.high),
        "lowPrice": text(day.low),
        "volume": f"{day.volume:.8f}",
        "quoteVolume": f"{day.quote_volume:.8f}",
        "openTime": day.open_ms,
        "closeTime": venue.now_ms,
        "firstId": 1,
        "lastId": 1,
        "count": 1,
    }


def day_ticker(venue: Venue, side: Side, call: Call) -> Any:
    """24-hour statistics of one, some or all symbols."""
    pairs, many = _asked_pairs(side, call)
    answers = [_day_ticker(venue, side, pair) for pair in pairs]
    return answers if many else answers[0]


def book_ticker(venue: Venue, side: Side, call: Call) -> Any:
    """Best bid and ask."""
    pairs, many = _asked_pairs(side, call)
    answers = [_book_ticker(venue, side, pair) for pair in pairs]
    return answers if many else answers[0]


def price_ticker(venue: Venue, side: Side, call: Call) -> Any:
    """Last price."""
    pairs, many = _asked_pairs(side, call)
    rules = side.market.rules
    answers = [
        {"symbol": rules[p].symbol, "price": rules[p].price_text(side.path.price(p, venue.seen_ms(side, p)))}
        for p in pairs
    ]
    return answers if many else answers[0]


def funding_rate(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """Funding payments up to now, oldest first."""
    side = venue.futures
    pair = side.pair(call.text("symbol"))
    table, rules = side.market.funding[pair], side.market.rules[pair]
    start, end = call.integer("startTime"), call.integer("endTime", venue.now_ms)
    chosen = table.time_ms <= min(venue.now_ms, venue.now_ms if end is None else end)
    if start is not None:
        chosen &= table.time_ms >= start
    rows = chosen.nonzero()[0]
    limit = call.limit(100, 1000)
    return [
        {
            "symbol": rules.symbol,
            "fundingTime": int(table.time_ms[row]),
            "fundingRate": f"{table.rate[row]:.8f}",
            "markPrice": rules.price_text(side.path.price(pair, int(table.time_ms[row]))),
        }
        for row in (rows[:limit] if start is not None else rows[-limit:])
    ]


def premium_index(venue: Venue, call: Call) -> Any:
    """Mark price, index price (that of spot) and the last known funding rate of the perpetuals."""
    side = venue.futures
    pairs, many = _asked_pairs(side, call)
    answers = []
    for pair in pairs:
        table, rules, seen_ms = side.market.funding[pair], side.market.rules[pair], venue.seen_ms(side, pair)
        known = int((table.time_ms <= venue.now_ms).sum())
        mark, index = (rules.price_text(which.path.price(pair, seen_ms)) for which in (side, venue.spot))
        answers.append(
            {
                "symbol": rules.symbol,
                "markPrice": mark,
                "indexPrice": index,
                "estimatedSettlePrice": index,
                "lastFundingRate": f"{table.rate[known - 1]:.8f}" if known else "0.00000000",
                "interestRate": "0.00010000",
                "nextFundingTime": int(table.time_ms[known]) if known < len(table.time_ms) else 0,
                "time": venue.now_ms,
            }
        )
    return answers if many else answers[0]


def _on(handler: Callable[[Venue, Side, Call], Any], *, futures: bool) -> Handler:
    return lambda venue, call: handler(venue, venue.futures if futures else venue.spot, call)


ROOMS = {"api/v3": False, "fapi/v1": True}  # and whether its prices are those of perpetuals
SHARED = (
    ("klines", klines),
    ("depth", depth),
    ("ticker/24hr", day_ticker),
    ("ticker/bookTicker", book_ticker),
    ("ticker/price", price_ticker),
)
ENDPOINTS = (
    *(
        Endpoint("GET", f"/{room}/{name}", _on(handler, futures=futures))
        for room, futures in ROOMS.items()
        for name, handler in SHARED
    ),
    *(
        Endpoint("GET", f"/{room}/{name}", handler)
        for room in ROOMS
        for name, handler in (("ping", ping), ("time", server_time))
    ),
    Endpoint("GET", "/api/v3/exchangeInfo", spot_info, weight=20),
    Endpoint("GET", "/fapi/v1/exchangeInfo", futures_info),
    Endpoint("GET", "/fapi/v1/fundingRate", funding_rate),
    Endpoint("GET", "/fapi/v1/markPriceKlines", mark_klines),
    Endpoint("GET", "/fapi/v1/indexPriceKlines", index_klines),
    Endpoint("GET", "/fapi/v1/premiumIndex", premium_index),
    Endpoint("GET", "/dapi/v1/exchangeInfo", coin_futures_info),
    Endpoint("GET", "/dapi/v1/ping", ping),
)
