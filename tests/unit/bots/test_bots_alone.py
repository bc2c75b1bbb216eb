"""A bot whose risk manager is away: it watches its share of the portfolio's stop by itself, over restarts too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from freqtrade.persistence import Trade, init_db

from observability.errors import GateError
from tests.unit.bots.bots_accounts import account
from trading.adapters.bookkeeper import Bookkeeper
from trading.adapters.bot_spec import DIRECTIVE, BotSpec
from trading.adapters.call_record import CallRecord
from trading.directive import Directive
from trading.events import AccountReport
from trading.lease import Lease
from trading.state import TradingState

PRICES = {"BTC/USDT": 1.0}


class Risk:
    """Answers with one directive, or not at all."""

    def __init__(self) -> None:
        self.away = False
        self.heard: list[AccountReport] = []
        self.told = Directive(TradingState.ACTIVE, False, "fine", 9_000.0, 12_000.0)

    def directive(self, _account: str) -> Directive:
        if self.away:
            raise GateError("nobody answers")
        return self.told

    def report(self, told: AccountReport) -> Directive:
        if self.away:
            raise GateError("nobody answers")
        self.heard.append(told)
        return self.told


Made = Callable[[Risk], Bookkeeper]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    def make(risk: Risk) -> Bookkeeper:
        spec = BotSpec("nn", "swing", "acc", "binance", "dry-run", ("BTC/USDT",), "15m", str(tmp_path))
        books = Bookkeeper(spec, risk)  # type: ignore[arg-type]
        books.lease = Lease("acc", "nn", 1, 10**15)
        return books

    init_db("sqlite://")
    yield make
    Trade.session.remove()


@pytest.mark.parametrize(("equity", "stops"), [(9_500.0, False), (8_999.0, True), (11_999.0, False), (12_001.0, True)])
def test_beyond_its_share_it_closes_by_itself_and_tells_when_somebody_listens(
    made: Made, equity: float, stops: bool
) -> None:
    risk = Risk()
    books = made(risk)
    books.report(account(USDT=10_000.0), PRICES)
    risk.away = True
    books.report(account(USDT=equity), PRICES)
    assert bool(books.stopped) is stops
    again = made(risk)
    assert bool(again.stopped) is stops, "it forgets nothing over a restart"
    assert again.directive == risk.told
    risk.away = False
    again.report(account(USDT=10_000.0), PRICES)
    assert bool(risk.heard[-1].stopped) is stops
    assert again.stopped == "", "from here on the risk manager says what to do"


def test_without_prices_or_without_a_directive_nothing_is_closed(made: Made) -> None:
    risk = Risk()
    risk.away = True
    books = made(risk)
    books.report(account(USDT=1.0), PRICES)
    assert books.stopped == "", "it was never told where to stop"
    books.directive = risk.told
    books.report(account(USDT=1.0, BTC=10_000.0), {})
    assert books.stopped == "", "without prices the equity is unknown"


def test_an_account_of_unknown_worth_is_not_reported_and_still_told_what_to_do(made: Made) -> None:
    risk = Risk()
    books = made(risk)
    for unread in (account(USDT=9_500.0, BTC=500.0), account(), account(USDT=0.0, BTC=0.0)):
        books.directive = None
        books.report(unread, {})
        assert (risk.heard, books.equity) == ([], None)
        assert books.directive == risk.told
    books.report(account(USDT=9_500.0, BTC=500.0), PRICES)
    assert [told.equity for told in risk.heard] == [10_000.0]


def test_an_unreadable_directive_is_passed_over(made: Made, tmp_path: Path) -> None:
    (tmp_path / DIRECTIVE).write_text("{half")
    assert made(Risk()).directive is None


def test_failed_calls_count_and_refusals_do_not() -> None:
    import ccxt

    answers: list[Exception | None] = []

    def fetch() -> dict[str, str]:
        error = answers.pop()
        if error is not None:
            raise error
        return {"fine": "yes"}

    exchange, record = SimpleNamespace(_api=SimpleNamespace(fetch=fetch)), CallRecord()
    record.listen(exchange)
    answers += [None] * 10 + [ccxt.OrderNotFound("x")] * 10
    for _ in range(20):
        try:
            exchange._api.fetch()
        except ccxt.BaseError:
            continue
    assert record.error_rate == 0.0
    answers += [ccxt.RequestTimeout("x")] * 20
    for _ in range(20):
        with pytest.raises(ccxt.NetworkError):
            exchange._api.fetch()
    assert record.error_rate == 0.5
