"""Signed endpoints of perpetuals that are not orders: account, positions, leverage, margin type, income."""

from __future__ import annotations

from typing import Any

from trading.adapters.sandbox.brackets import BRACKETS, MAX_LEVERAGE, maintenance
from trading.adapters.sandbox.endpoint import Call, Endpoint
from trading.adapters.sandbox.futures_wire import position_answer
from trading.adapters.sandbox.orders import RefusalError
from trading.adapters.sandbox.positions import Position
from trading.adapters.sandbox.rules import PPM, UNIT, units_text
from trading.adapters.sandbox.venue import Venue

DONE = {"code": 200, "msg": "success"}


def assets(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """The wallet, an asset a row."""
    money, now = venue.margin, venue.now_ms
    marks, held = money.marks(now), money.held(call.account)
    names = {rules.quote for rules in money.rules.values()} | set(money.ledger.balances(call.account))
    answers = []
    for name in sorted(names):
        balance = money.ledger.balance(call.account, name)
        mine = [item for item in held if money.rules[item.pair].quote == name]
        profit = sum(item.profit(money.rules[item.pair], marks[item.pair]) for item in mine)
        needed = sum(maintenance(item.notional(money.rules[item.pair], marks[item.pair])) for item in mine)
        margins = sum(item.margin for item in mine)
        apart = sum(item.margin for item in mine if item.isolated)
        available = units_text(money.available(call.account, name, now))
        answers.append(
            {
                "asset": name,
                "walletBalance": units_text(balance.total),
                "balance": units_text(balance.total),
                "unrealizedProfit": units_text(profit),
                "marginBalance": units_text(balance.total + profit),
                "maintMargin": units_text(needed),
                "initialMargin": units_text(balance.locked),
                "positionInitialMargin": units_text(margins),
                "openOrderInitialMargin": units_text(balance.locked - margins),
                "crossWalletBalance": units_text(balance.total - apart),
                "crossUnPnl": units_text(money.crossed(call.account, name, now)),
                "availableBalance": available,
                "maxWithdrawAmount": available,
                "updateTime": now,
            }
        )
    return answers


def account(venue: Venue, call: Call) -> dict[str, Any]:
    """Wallet and positions."""
    wallet = assets(venue, call)
    stable = next((item for item in wallet if item["asset"] == "USDT"), {})
    names = ("initialMargin", "maintMargin", "unrealizedProfit", "marginBalance", "walletBalance")
    totals = {f"total{name[0].upper()}{name[1:]}": stable.get(name, "0") for name in names}
    return {
        **totals,
        "availableBalance": stable.get("availableBalance", "0"),
        "assets": wallet,
        "positions": [
            {**position_answer(venue.margin, item, venue.now_ms, venue.now_ms), "isolated": item.isolated}
            for item in venue.margin.held(call.account)
        ],
    }


def balance(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """The wallet alone."""
    return assets(venue, call)


def position_risk(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """Positions that are not flat."""
    symbol = call.params.get("symbol")
    pair = venue.futures.pair(symbol) if symbol else None
    chosen = [item for item in venue.margin.held(call.account) if pair in (None, item.pair)]
    return [
        position_answer(venue.margin, item, venue.now_ms, venue.seen_ms(venue.futures, item.pair)) for item in chosen
    ]


def leverage_brackets(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """The ladder of leverage, the same for every pair."""
    symbol = call.params.get("symbol")
    pairs = [venue.futures.pair(symbol)] if symbol else list(venue.futures.engine.rules)
    ladder = [
        {
            "bracket": number,
            "initialLeverage": step.leverage,
            "notionalCap": step.cap // UNIT,
            "notionalFloor": step.floor // UNIT,
            "maintMarginRatio": step.margin_ppm / PPM,
            "cum": step.cum / UNIT,
        }
        for number, step in enumerate(BRACKETS, start=1)
    ]
    return [{"symbol": venue.market.rules[pair].symbol, "notionalCoef": 1.0, "brackets": ladder} for pair in pairs]


def _position(venue: Venue, call: Call) -> Position:
    return venue.margin.position(call.account, venue.futures.pair(call.text("symbol")))


def set_leverage(venue: Venue, call: Call) -> dict[str, Any]:
    """Leverage of what is opened from now on."""
    position, wanted = _position(venue, call), call.integer("leverage")
    if wanted is None or not 1 <= wanted <= MAX_LEVERAGE:
        raise RefusalError(-4028, f"Leverage {wanted} is not valid")
    if position.isolated and position.lots and wanted < position.leverage:
        raise RefusalError(-4161, "Leverage reduction is not supported in Isolated Margin Mode with open positions.")
    position.leverage = wanted
    most = max((step.cap for step in BRACKETS if step.leverage >= wanted), default=0)
    symbol = venue.market.rules[position.pair].symbol
    return {"leverage": wanted, "maxNotionalValue": str(most // UNIT), "symbol": symbol}


def set_margin_type(venue: Venue, call: Call) -> dict[str, Any]:
    """ISOLATED or CROSSED, while nothing is open."""
    position, wanted = _position(venue, call), call.text("marginType")
    if wanted not in ("ISOLATED", "CROSSED"):
        raise RefusalError(-1130, "Data sent for parameter 'marginType' is not valid.")
    if position.isolated == (wanted == "ISOLATED"):
        raise RefusalError(-4046, "No need to change margin type.")
    if venue.futures.engine.open_orders(call.account, position.pair):
        raise RefusalError(-4047, "Margin type cannot be changed if there exists open orders.")
    if position.lots:
        raise RefusalError(-4048, "Margin type cannot be changed if there exists position.")
    position.isolated = wanted == "ISOLATED"
    return DONE


def position_mode(_venue: Venue, _call: Call) -> dict[str, Any]:
    """One-way mode, always."""
    return {"dualSidePosition": False}


def set_position_mode(_venue: Venue, call: Call) -> dict[str, Any]:
    """One-way mode stays."""
    if call.text("dualSidePosition").lower() == "true":
        raise RefusalError(-4059, "This exchange knows the one-way mode only.")
    raise RefusalError(-4059, "No need to change position side.")


def assets_mode(_venue: Venue, _call: Call) -> dict[str, Any]:
    """Single-asset mode, always."""
    return {"multiAssetsMargin": False}


def account_config(_venue: Venue, _call: Call) -> dict[str, Any]:
    """What the account may do."""
    modes = {"dualSidePosition": False, "multiAssetsMargin": False, "tradeGroupId": -1}
    return {"feeTier": 0, "canTrade": True, "canDeposit": False, "canWithdraw": False, "updateTime": 0, **modes}


def symbol_config(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """Leverage and margin type of one symbol or all."""
    symbol = call.params.get("symbol")
    pairs = [venue.futures.pair(symbol)] if symbol else list(venue.futures.engine.rules)
    return [
        {
            "symbol": venue.market.rules[pair].symbol,
            "marginType": "ISOLATED" if venue.margin.position(call.account, pair).isolated else "CROSSED",
            "isAutoAddMargin": False,
            "leverage": venue.margin.position(call.account, pair).leverage,
            "maxNotionalValue": str(BRACKETS[-1].cap // UNIT),
        }
        for pair in pairs
    ]


def commission_rate(venue: Venue, call: Call) -> dict[str, Any]:
    """Fees of a symbol."""
    symbol, terms = venue.market.rules[venue.futures.pair(call.text("symbol"))].symbol, venue.futures.engine.terms
    rates = {"makerCommissionRate": terms.maker_ppm / PPM, "takerCommissionRate": terms.taker_ppm / PPM}
    return {"symbol": symbol, **{name: f"{rate:.6f}" for name, rate in rates.items()}}


def income(venue: Venue, call: Call) -> list[dict[str, Any]]:
    """Movements of the wallet, oldest first: profits, fees, funding."""
    symbol, kind = call.params.get("symbol"), call.params.get("incomeType")
    pair = venue.futures.pair(symbol) if symbol else None
    start, end = call.integer("startTime"), call.integer("endTime")
    chosen = [
        item
        for item in venue.margin.incomes
        if item.account == call.account
        and pair in (None, item.pair)
        and kind in (None, "", item.kind)
        and (start is None or item.time_ms >= start)
        and (end is None or item.time_ms <= end)
    ]
    limit = call.limit(100, 1000)
    return [
        {
            "symbol": venue.market.rules[item.pair].symbol,
            "incomeType": item.kind,
            "income": units_text(item.units),
            "asset": item.asset,
            "info": item.kind,
            "time": item.time_ms,
            "tranId": item.income_id,
            "tradeId": str(item.fill_id or ""),
        }
        for item in (chosen[:limit] if start is not None else chosen[-limit:])
    ]


def open_listen_key(venue: Venue, call: Call) -> dict[str, Any]:
    """The key of the account's user data stream, good for an hour from now."""
    return {"listenKey": venue.listen_keys.open(call.account)}


def renew_listen_key(venue: Venue, call: Call) -> dict[str, Any]:
    """Another hour for it."""
    return {"listenKey": venue.listen_keys.renew(call.account)}


def close_listen_key(venue: Venue, call: Call) -> dict[str, Any]:
    """The end of it."""
    venue.listen_keys.close(call.account)
    return {}


ENDPOINTS = (
    *(Endpoint("GET", f"/fapi/{version}/account", account, signed=True, weight=5) for version in ("v2", "v3")),
    *(Endpoint("GET", f"/fapi/{version}/balance", balance, signed=True, weight=5) for version in ("v2", "v3")),
    *(
        Endpoint("GET", f"/fapi/{version}/positionRisk", position_risk, signed=True, weight=5)
        for version in ("v2", "v3")
    ),
    Endpoint("GET", "/fapi/v1/leverageBracket", leverage_brackets, signed=True),
    Endpoint("POST", "/fapi/v1/leverage", set_leverage, signed=True),
    Endpoint("POST", "/fapi/v1/marginType", set_margin_type, signed=True),
    Endpoint("GET", "/fapi/v1/positionSide/dual", position_mode, signed=True, weight=30),
    Endpoint("POST", "/fapi/v1/positionSide/dual", set_position_mode, signed=True),
    Endpoint("GET", "/fapi/v1/multiAssetsMargin", assets_mode, signed=True, weight=30),
    Endpoint("GET", "/fapi/v1/accountConfig", account_config, signed=True, weight=5),
    Endpoint("GET", "/fapi/v1/symbolConfig", symbol_config, signed=True, weight=5),
    Endpoint("GET", "/fapi/v1/commissionRate", commission_rate, signed=True, weight=20),
    Endpoint("GET", "/fapi/v1/income", income, signed=True, weight=30),
    Endpoint("POST", "/fapi/v1/listenKey", open_listen_key, keyed=True),
    Endpoint("PUT", "/fapi/v1/listenKey", renew_listen_key, keyed=True),
    Endpoint("DELETE", "/fapi/v1/listenKey", close_listen_key, keyed=True),
)
