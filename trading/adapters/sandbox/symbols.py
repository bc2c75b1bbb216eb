"""What can be traded: exchangeInfo of spot and futures, with the filters that orders must pass."""

from __future__ import annotations

from typing import Any

from trading.adapters.sandbox.checks import MAX_ORDERS, MAX_STOPS
from trading.adapters.sandbox.endpoint import Call
from trading.adapters.sandbox.orders import Kind
from trading.adapters.sandbox.rules import SymbolRules, units_text
from trading.adapters.sandbox.venue import Venue

FAR_FUTURE_MS = 4_133_404_800_000  # Binance's delivery date of perpetuals


def _filters(rules: SymbolRules) -> list[dict[str, Any]]:
    tick, step = rules.price_text(1), rules.lots_text(1)
    lots = {"minQty": step, "maxQty": rules.lots_text(rules.max_lots), "stepSize": step}
    return [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": rules.price_text(10**15), "tickSize": tick},
        {"filterType": "LOT_SIZE", **lots},
        {"filterType": "MARKET_LOT_SIZE", **lots},
        {
            "filterType": "NOTIONAL",
            "minNotional": units_text(rules.min_notional),
            "applyMinToMarket": True,
            "maxNotional": "9000000.00000000",
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            **{
                f"{side}Multiplier{end}": value
                for side in ("bid", "ask")
                for end, value in (("Up", "5"), ("Down", "0.2"))
            },
            "avgPriceMins": 5,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": MAX_ORDERS},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": MAX_STOPS},
    ]


def _exchange_info(venue: Venue, symbols: list[dict[str, Any]]) -> dict[str, Any]:
    limit = venue.config.weight_limit or 6000
    weights = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": limit}
    orders = {
        "rateLimitType": "ORDERS",
        "interval": "SECOND",
        "intervalNum": 10,
        "limit": venue.config.order_limit or 100,
    }
    limits, now = [weights, orders], venue.told_ms
    return {"timezone": "UTC", "serverTime": now, "rateLimits": limits, "exchangeFilters": [], "symbols": symbols}


def spot_info(venue: Venue, _call: Call) -> dict[str, Any]:
    """Spot symbols and their filters."""
    symbols = [
        {
            "symbol": rules.symbol,
            "status": "TRADING" if venue.trading(rules) else "BREAK",
            "baseAsset": rules.base,
            "baseAssetPrecision": 8,
            "quoteAsset": rules.quote,
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "baseCommissionPrecision": 8,
            "quoteCommissionPrecision": 8,
            "orderTypes": [str(kind) for kind in Kind],
            "icebergAllowed": False,
            "ocoAllowed": False,
            "quoteOrderQtyMarketAllowed": True,
            "allowTrailingStop": False,
            "cancelReplaceAllowed": True,
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "filters": _filters(rules),
            "permissions": [],
            "permissionSets": [["SPOT"]],
            "defaultSelfTradePreventionMode": "NONE",
            "allowedSelfTradePreventionModes": ["NONE"],
        }
        for rules in venue.market.rules.values()
    ]
    return _exchange_info(venue, symbols)


def futures_info(venue: Venue, _call: Call) -> dict[str, Any]:
    """Perpetual symbols: the pairs whose funding is known."""
    symbols = [
        {
            "symbol": rules.symbol,
            "pair": rules.symbol,
            "contractType": "PERPETUAL",
            "deliveryDate": FAR_FUTURE_MS,
            "onboardDate": venue.market.first_ms,
            "status": "TRADING" if venue.trading(rules) else "SETTLING",
            "baseAsset": rules.base,
            "quoteAsset": rules.quote,
            "marginAsset": rules.quote,
            "pricePrecision": rules.price_decimals,
            "quantityPrecision": rules.lot_decimals,
            "baseAssetPrecision": 8,
            "quotePrecision": 8,
            "underlyingType": "COIN",
            "filters": [entry for entry in _filters(rules) if entry["filterType"].endswith(("FILTER", "LOT_SIZE"))],
            "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET"],
            "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
        }
        for rules in venue.futures.market.rules.values()
    ]
    return _exchange_info(venue, symbols)


def coin_futures_info(venue: Venue, _call: Call) -> dict[str, Any]:
    """No coin-margined futures here."""
    return _exchange_info(venue, [])
