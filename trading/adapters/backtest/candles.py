"""Candles for Freqtrade's engine: its own files, and an exchange whose markets are known without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
from freqtrade.data.history import get_datahandler
from freqtrade.enums import CandleType
from freqtrade.exchange import Exchange
from freqtrade.resolvers import ExchangeResolver

from observability.errors import DataError
from trading.adapters.sandbox.rules import lot_decimals_for, price_decimals_for

COLUMNS = ["date", "open", "high", "low", "close", "volume"]
FORMAT = "feather"
FUTURES_FROM = 1_567_000_000_000  # the first perpetual of the exchange; any time before the candles will do


def to_pandas(candles: pl.DataFrame) -> pd.DataFrame:
    """A candle table in Freqtrade's layout: `date` with zone, then open, high, low, close, volume."""
    frame = candles.select(pl.col("timestamp").alias("date"), "open", "high", "low", "close", "volume").to_pandas()
    frame["date"] = frame["date"].astype("datetime64[ms, UTC]")
    return frame[COLUMNS]


def write_candles(folder: Path, candles: Mapping[str, pl.DataFrame], timeframe: str) -> None:
    """Write candle tables as the files that Freqtrade reads.

    Raises:
        DataError: a pair has no candles.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handler = get_datahandler(folder, FORMAT)
    for pair, table in candles.items():
        if not table.height:
            raise DataError("there are no candles to trade on", where=pair, todo="run `data backfill` first")
        kind = CandleType.FUTURES if ":" in pair else CandleType.SPOT
        handler.ohlcv_store(pair, timeframe, data=to_pandas(table), candle_type=kind)


def write_funding(folder: Path, pair: str, funding: pl.DataFrame, candles: pl.DataFrame) -> None:
    """Write a perpetual's funding rates, and for mark prices its own at full hours: payments are made on them.

    Raises:
        DataError: no payments are known.
    """
    if not funding.height:
        raise DataError("a perpetual's funding is not known", where=pair, todo="run `data backfill` for it")
    handler = get_datahandler(folder, FORMAT)
    marks = candles.filter(pl.col("timestamp").dt.truncate("1h") == pl.col("timestamp"))
    rates = funding.select(pl.col("timestamp").dt.truncate("1h").alias("date"), "funding_rate").to_pandas()
    rates["date"] = rates["date"].astype("datetime64[ms, UTC]")
    handler.ohlcv_store(pair, "1h", data=rates, candle_type=CandleType.FUNDING_RATE)
    handler.ohlcv_store(pair, "1h", data=to_pandas(marks), candle_type=CandleType.MARK)


def offline_exchange(config: dict[str, Any], prices: Mapping[str, float]) -> Exchange:
    """Freqtrade's exchange object with the markets of these pairs; it never reaches for the network.

    Args:
        config: Freqtrade's configuration.
        prices: a typical price of each pair, from which tick and lot size are taken as on the sandbox exchange.
    """
    exchange = ExchangeResolver.load_exchange(config, validate=False)
    exchange._api.options |= {"crossMarginPairsData": [], "isolatedMarginPairsData": []}  # asked for with a key only
    markets = [exchange._api.parse_market(_raw_market(pair, price)) for pair, price in prices.items()]
    for client in (exchange._api, exchange._api_async):
        client.set_markets(markets)
    exchange._markets = exchange._api.markets
    exchange._last_markets_refresh = 2**62
    if any(":" in pair for pair in prices):
        exchange.fill_leverage_tiers()  # from the table that Freqtrade ships
    exchange.reload_markets = lambda *_args, **_kwargs: None
    return exchange


def _raw_market(pair: str, price: float) -> dict[str, Any]:
    """A symbol of Binance's exchangeInfo, as ccxt reads it."""
    base, quote = pair.split(":", maxsplit=1)[0].split("/")
    lots = lot_decimals_for(price)
    ticks = price_decimals_for(price, lots)
    step, tick = f"{10.0**-lots:.8f}", f"{10.0**-ticks:.8f}"
    lot = {"minQty": step, "maxQty": "9000000", "stepSize": step}
    market = {
        "symbol": base + quote, "status": "TRADING", "baseAsset": base, "quoteAsset": quote,
        "isSpotTradingAllowed": True, "permissions": ["SPOT"], "orderTypes": ["LIMIT", "MARKET", "STOP_LOSS_LIMIT"],
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "10000000", "tickSize": tick},
            {"filterType": "LOT_SIZE", **lot},
            {"filterType": "MARKET_LOT_SIZE", **lot},
            {"filterType": "NOTIONAL", "minNotional": "5", "applyMinToMarket": True, "maxNotional": "9000000"},
        ],
    }  # fmt: skip
    if ":" in pair:
        market |= {
            "pair": base + quote, "contractType": "PERPETUAL", "marginAsset": quote, "onboardDate": FUTURES_FROM,
            "pricePrecision": ticks, "quantityPrecision": lots, "deliveryDate": 4_133_404_800_000,
            "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET"],
        }  # fmt: skip
    return market
