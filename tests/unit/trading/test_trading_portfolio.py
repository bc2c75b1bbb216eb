"""All accounts together: stop, target and shares of them; limits out of a file; the estimate of the market."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

from observability.errors import SettingsError
from observability.metrics import Meters
from tests.unit.trading.trading_makers import NOW, healthy, intent, report, with_report
from trading.book import Book
from trading.clock import FixedClock
from trading.directive import Directive, directive_of
from trading.journal import Journal
from trading.limits import RiskLimits
from trading.limits_file import LimitsFile
from trading.manager import RiskManager
from trading.market import (
    DAY_MS,
    SAMPLE_MS,
    SHORTFALL_SIGMAS,
    MarketRisk,
    MarkStat,
    estimate,
    pair_key,
    seen,
    spread_of,
)
from trading.orders import Approved
from trading.recovery import journalled_limits
from trading.state import Cause, TradingState

LIMITS = RiskLimits(accounts={"acc": "binance", "toy": "sandbox"}, max_drawdown=0.9, max_daily_loss=0.9)
QUARTER = 900_000


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[RiskManager]:
    made = RiskManager(tmp_path / "journal.db", LIMITS, FixedClock(NOW), Meters("risk"))
    for account in ("acc", "toy"):
        made.acquire_lease(account, "nn")
        made.report(report(account))
    yield made
    made.close()


def test_all_accounts_together_lose_too_much_and_everything_is_closed_until_a_person_resumes(
    manager: RiskManager,
) -> None:
    assert not manager.report(report("acc", equity=6_500.0)).flatten, "17.5 % of both"
    told = manager.report(report("toy", equity=9_400.0))
    assert (told.state, told.flatten) == (TradingState.REDUCING, True)
    manager.report(report("toy", equity=12_000.0))
    latch = manager.state()
    assert (latch.flatten, latch.cause, latch.who) == (True, Cause.LIMIT, "PORTFOLIO_STOP")
    assert not manager.resume("ann", "looked", rebase=True).flatten
    assert not manager.report(report("acc", equity=6_500.0)).flatten


@pytest.mark.parametrize("moved", [-6_000.0, 9_000.0])
def test_money_taken_out_or_put_in_while_no_bot_ran_is_no_loss_and_no_gain_after_a_rebase(
    tmp_path: Path, manager: RiskManager, moved: float
) -> None:
    limits = RiskLimits.from_dict({**LIMITS.to_dict(), "portfolio_take": 0.1, "max_drawdown": 0.2})
    manager.close()
    again = RiskManager(tmp_path / "journal.db", limits, FixedClock(NOW + 1_000))
    again.resume("ann", "moved money", rebase=True)
    assert not again.report(report("toy", as_of_ms=NOW + 1_000)).flatten
    told = again.report(report("acc", equity=10_000.0 + moved, as_of_ms=NOW + 1_000))
    assert (told.state, told.flatten) == (TradingState.ACTIVE, False)
    assert again.book().lost == again.book().gained == 0.0
    assert again.book().accounts["acc"].daily_loss == 0.0
    again.report(report("acc", equity=(10_000.0 + moved) * 0.7, as_of_ms=NOW + 1_001))
    assert again.state().who == "DRAWDOWN", "from there on a loss is one"
    again.close()


def test_a_target_closes_everything_too(manager: RiskManager) -> None:
    manager.set_limits(RiskLimits.from_dict({**LIMITS.to_dict(), "portfolio_take": 0.1}), "test")
    manager.report(report("acc", equity=12_100.0))
    assert manager.state().who == "PORTFOLIO_TAKE"
    assert manager.directive().flatten


def test_what_a_bot_did_by_itself_is_latched_when_the_manager_hears_of_it(manager: RiskManager) -> None:
    told = manager.report(report("acc", stopped="equity 1 is below 2"))
    assert told.flatten
    assert "closed by itself" in manager.state().reason


def test_books_that_stay_apart_wait_for_a_person(manager: RiskManager) -> None:
    for _ in range(LIMITS.max_mismatches):
        assert manager.report(report("acc", mismatch=True)).state is TradingState.ACTIVE
    assert manager.report(report("acc", mismatch=True)).state is TradingState.REDUCING
    manager.report(report("acc"))
    assert manager.state().who == "MISMATCH"


@given(
    st.lists(st.tuples(st.sampled_from(["acc", "toy"]), st.floats(1.0, 1e6)), min_size=1, max_size=30),
    st.floats(0.01, 0.99),
    st.lists(st.floats(0.0, 3.0), min_size=2, max_size=2),
)
def test_while_every_account_is_above_its_floor_the_portfolio_is_above_its_own(
    reports: list[tuple[str, float]], stop: float, moves: list[float]
) -> None:
    book = healthy()
    for number, (account, equity) in enumerate(reports):
        book = with_report(book, account=account, equity=equity, as_of_ms=NOW + number)
    limits = RiskLimits(portfolio_stop=stop)
    now = {name: view.report.equity for name, view in book.accounts.items()}
    later = {name: equity * move for (name, equity), move in zip(now.items(), moves, strict=True)}
    told = {name: directive_of(book, limits, name) for name in now}
    if not any(told[name].beyond(equity) for name, equity in later.items()):
        assert sum(later.values()) >= min(book.total, book.peak_total * (1 - stop)) * (1 - 1e-9)
    for name, equity in now.items():
        assert told[name].floor <= equity * (1 + 1e-9)
        assert Directive.from_dict(told[name].to_dict()) == told[name]


def test_nobody_in_particular_has_no_share() -> None:
    assert directive_of(Book(), LIMITS) == Directive(TradingState.HALTED, False, Book().latch.reason, 0.0, math.inf)


# --- limits out of a file -------------------------------------------------------------------------------------------


def test_a_changed_file_changes_the_limits_and_a_bad_one_keeps_them(manager: RiskManager, tmp_path: Path) -> None:
    path = tmp_path / "risk.toml"
    file = LimitsFile(path, LIMITS)
    assert file.changed() == LIMITS, "without a file those of the start"
    path.write_text("max_notional = 100\n")
    fresh = file.changed()
    assert fresh is not None
    assert manager.set_limits(fresh, str(path))
    assert not manager.set_limits(fresh, str(path))
    decision = manager.decide(intent(amount=0.003))
    assert isinstance(decision, Approved)
    assert decision.amount * 50_000 <= 100.0
    assert file.changed() is None
    for bad in ("max_notional = ", "max_notoinal = 5", "max_notional = -5", 'accounts = {x = "y"}', "max_net = nan"):
        path.write_text(bad)
        with pytest.raises(SettingsError):
            file.changed()
        assert file.changed() is None, "said once"
    manager.refuse_limits(str(path), "not a limit")
    path.unlink()
    assert file.changed() == LIMITS
    journal = Journal(tmp_path / "journal.db", read_only=True)
    assert [entry.payload["max_notional"] for entry in journal.read("limit_change")] == [10_000.0, 100.0]
    assert [entry.payload["error"] for entry in journal.read("limit_refused")] == ["not a limit"]
    journal.close()
    assert journalled_limits(partial(Journal, tmp_path / "journal.db")) == fresh
    assert journalled_limits(partial(Journal, tmp_path / "none.db")) is None


# --- the market's estimate ------------------------------------------------------------------------------------------


def closes(rho: float, rows: int = 3_000) -> dict[str, tuple[list[int], list[float]]]:
    dice = np.random.default_rng(4)
    shared, own = dice.standard_normal((2, rows))
    moves = {"A": 0.004 * shared, "B": 0.008 * (rho * shared + math.sqrt(1 - rho**2) * own)}
    at = [NOW + number * QUARTER for number in range(rows)]
    return {name: (at, (100 * np.exp(np.cumsum(move))).tolist()) for name, move in moves.items()}


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.6, 0.95])
def test_the_estimate_finds_volatility_and_bounds_of_the_correlation(rho: float) -> None:
    found = estimate(closes(rho))
    assert found.sigma["A"] == pytest.approx(0.004 * math.sqrt(96), rel=0.05)
    assert found.sigma["B"] == pytest.approx(0.008 * math.sqrt(96), rel=0.05)
    low, high = found.correlation["A|B"]
    assert low < rho < high
    assert high - low < 0.08
    assert MarketRisk.from_dict(found.to_dict()) == found


def test_gaps_short_and_still_series_fall_back() -> None:
    data = closes(0.5)
    at, values = data["A"]
    holed = estimate({**data, "A": (at[:1_000] + at[1_500:], values[:1_000] + values[1_500:])})
    assert holed.sigma["A"] == pytest.approx(0.004 * math.sqrt(96), rel=0.05), "a gap is not one large move"
    assert estimate({"A": (at[:50], values[:50])}) == MarketRisk()
    assert estimate({"A": (at, [1.0] * len(at))}) == MarketRisk()
    assert spread_of({"A": 3.0, "B": 4.0}, MarketRisk(), 1.0) == pytest.approx(7.0)
    assert spread_of({"A": 3.0, "B": -4.0}, MarketRisk(), 1.0) == pytest.approx(5.0), "unknown shelter is none"


@given(
    st.dictionaries(st.sampled_from("ABCD"), st.floats(-1e5, 1e5), max_size=4),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
)
def test_spread_lies_between_one_bet_and_none(weights: dict[str, float], rho: float, fallback: float) -> None:
    market = MarketRisk(1, {}, {pair_key("A", "B"): (0.0, rho), pair_key("C", "D"): (-rho, 0.0)}, 500)
    found = spread_of(weights, market, fallback)
    assert found <= sum(abs(weight) for weight in weights.values()) * (1 + 1e-9) + 1e-9
    assert found >= max((abs(weight) for weight in weights.values()), default=0.0) * (1 - 1e-9) - 1e-9


def test_shortfall_is_that_of_a_scaled_student() -> None:
    nu, level = 4, 0.975
    x = student.ppf(level, nu)
    tail = student.pdf(x, nu) / (1 - level) * (nu + x * x) / (nu - 1)
    assert pytest.approx(tail * math.sqrt((nu - 2) / nu), abs=1e-4) == SHORTFALL_SIGMAS


def test_marks_show_when_the_market_goes_wild() -> None:
    dice = np.random.default_rng(1)
    stats, mark, at = {}, 100.0, NOW
    for _ in range(400):
        at, mark = at + QUARTER, mark * math.exp(0.002 * dice.standard_normal())
        stats = dict(seen(stats, {"P": mark}, at))
    calm = stats["P"].ratio(None)
    assert 0.4 < calm < 1.8
    assert stats["P"].ratio(0.002 * math.sqrt(96)) == pytest.approx(calm, rel=0.5)
    for _ in range(16):
        at, mark = at + QUARTER, mark * math.exp(0.02 * dice.standard_normal())
        stats = dict(seen(stats, {"P": mark}, at))
    assert stats["P"].ratio(0.002 * math.sqrt(96)) > 4
    still = stats["P"]
    assert still.seen(at + SAMPLE_MS - 1, 1.0) is still
    assert still.seen(at + 2 * DAY_MS, 1.0).fast == still.fast, "a long silence is no move"
    assert MarkStat(NOW, 1.0).ratio(0.01) == 0.0
