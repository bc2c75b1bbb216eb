"""Three books: equal ones agree, and every way of differing is seen, counted and named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.book import Reservation
from trading.journal import Entry, Journal
from trading.reconcile import OrderLine, compare_books, journal_lines
from trading.reconciliation import (
    BotReconciliation,
    BotView,
    Difference,
    Holding,
    Origin,
    Resting,
    differences,
    lasting,
)

Book = dict[str, tuple[str, str, float, float]]
LINES = st.tuples(
    st.sampled_from(["BTC/USDT", "ETH/USDT"]),
    st.sampled_from(["buy", "sell"]),
    st.floats(0.001, 100),
    st.floats(1, 1e5),
)
BOOKS = st.dictionaries(st.integers(1, 50).map(str), LINES, max_size=12)


@given(BOOKS)
def test_a_book_agrees_with_itself(book: Book) -> None:
    difference = compare_books(book, dict(book), dict(book))
    assert difference.agree
    assert (difference.filled, difference.cost, difference.orders) == (0.0, 0.0, len(book))


@given(BOOKS.filter(bool), st.data(), st.sampled_from([0, 1, 2]))
def test_a_missing_order_is_found_in_any_book(book: Book, data: st.DataObject, which: int) -> None:
    lost = data.draw(st.sampled_from(sorted(book)))
    books = [dict(book), dict(book), dict(book)]
    del books[which][lost]
    difference = compare_books(*books)
    assert not difference.agree
    assert difference.missing == {lost: (("bot", "journal", "exchange")[which],)}
    assert difference.filled == pytest.approx(book[lost][2])
    assert difference.cost == pytest.approx(book[lost][3])
    assert lost in difference.text


@given(BOOKS, BOOKS, BOOKS)
def test_agreement_means_equality(a: Book, b: Book, c: Book) -> None:
    difference = compare_books(a, b, c, tolerance=0.0)
    assert difference.agree == (a == b == c)
    assert difference.filled >= 0


@pytest.mark.parametrize(
    "changed",
    [("ETH/USDT", "buy", 1.0, 100.0), ("BTC/USDT", "sell", 1.0, 100.0), ("BTC/USDT", "buy", 1.1, 100.0),
     ("BTC/USDT", "buy", 1.0, 101.0), ("BTC/USDT", "buy", float("nan"), 100.0)],
)  # fmt: skip
def test_every_field_counts(changed: tuple[str, str, float, float]) -> None:
    good: Book = {"1": ("BTC/USDT", "buy", 1.0, 100.0)}
    assert set(compare_books(good, {"1": changed}, good).wrong) == {"1"}


def test_rounding_agrees_and_unfilled_orders_are_in_no_book() -> None:
    good: Book = {"1": ("BTC/USDT", "buy", 0.3, 100.0)}
    assert compare_books({"1": ("BTC/USDT", "buy", 0.1 + 0.2, 100.0)}, good, good).agree
    assert compare_books({**good, "2": ("BTC/USDT", "buy", 0.0, 0.0)}, good, good).agree


def test_the_journal_tells_the_newest_state_of_each_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    fill = {"account": "acc", "order_id": "7", "pair": "BTC/USDT", "side": "buy", "amount": 0.4, "price": 100.0}
    journal.append("fill", fill)
    journal.append("fill", {**fill, "amount": 1.0})
    journal.append("fill", {**fill, "account": "toy", "order_id": "8"})
    entries: list[Entry] = list(journal.read())
    journal.close()
    assert journal_lines(entries, "acc") == {"7": ("BTC/USDT", "buy", 1.0, 100.0)}
    assert set(journal_lines(entries)) == {"7", "8"}


@given(BOOKS, BOOKS)
def test_a_book_that_cannot_be_read_is_left_out_of_the_comparison(a: Book, b: Book) -> None:
    assert compare_books(a, b, None, tolerance=0.0).agree == (a == b)
    assert compare_books(None, a, b, tolerance=0.0).agree == (a == b)
    assert "bot" not in {name for names in compare_books(None, a, b).missing.values() for name in names}


AGREED = compare_books({}, {}, {})
ROOM = Reservation("r-1", "bot", "acc", "BTC/USDT", "buy", 0.5, 100.0, 0)


def kinds(view: BotView | None, room: tuple[Reservation, ...] = ()) -> list[tuple[str, str, float]]:
    return [(each.kind, each.order, each.amount) for each in differences(view, room, AGREED, {})]


@pytest.mark.parametrize(
    ("view", "found"),
    [
        (BotView(), []),
        (BotView((Holding("BTC/USDT", 1.0, 0.99, 0.02),)), []),
        (BotView((Holding("BTC/USDT", 1.0, 0.5, 0.02),)), [("holding", "", 0.5)]),
        (BotView((Holding("BTC/USDT", -1.0, 0.0, 0.02),)), [("holding", "", -1.0)]),
        (BotView(lost={"7": "BTC/USDT"}), [("lost", "7", 0.0)]),
        (None, [("silent", "", 0.0)]),
    ],
)
def test_what_differs_is_named_with_its_amount(view: BotView | None, found: list[tuple[str, str, float]]) -> None:
    assert kinds(view) == found


@pytest.mark.parametrize(
    ("origin", "kind", "rule"),
    [("reserved", "unbooked", "books it"), ("orphan", "orphan", "cancels"), ("stranger", "stranger", "MISMATCH")],
)
def test_an_order_that_the_database_lacks_comes_with_its_rule(origin: Origin, kind: str, rule: str) -> None:
    resting = (Resting("1", "BTC/USDT", "buy", 2.0, "booked"), Resting("2", "BTC/USDT", "sell", 3.0, origin))
    (found,) = differences(BotView(resting=resting), (), AGREED, {})
    assert (found.kind, found.order, found.amount) == (kind, "2", 3.0)
    assert rule in found.rule


def test_room_is_only_strange_when_the_bot_does_not_know_of_it() -> None:
    assert kinds(BotView(outstanding=frozenset({"r-1"})), (ROOM,)) == []
    assert kinds(BotView(), (ROOM,)) == [("reservation", "r-1", 0.5)]


@given(BOOKS, BOOKS, BOOKS)
def test_every_order_that_differs_is_told_once_and_with_its_pair(a: Book, b: Book, c: Book) -> None:
    compared = compare_books(a, b, c)
    lines = {order: OrderLine(*line) for book in (a, b, c) for order, line in book.items()}
    found = list(differences(BotView(), (), compared, lines))
    assert sorted(each.order for each in found) == sorted({*compared.missing, *compared.wrong})
    assert all(each.pair == lines[each.order].pair for each in found)


KEYS = st.lists(st.sampled_from("abcd"), unique=True)


@given(KEYS, KEYS)
def test_only_what_lasts_is_told(first: list[str], then: list[str]) -> None:
    def look(orders: list[str]) -> BotReconciliation:
        found = tuple(Difference("order", "BTC/USDT", each, 0.0, "", "") for each in orders)
        return BotReconciliation("bot", "acc", ("bot", "journal"), len(orders), 0, 0, 0, found)

    now = lasting(look(first), look(then))
    assert [each.order for each in now.differences] == [each for each in then if each in first]
    assert now.orders == len(then), "what it counted is the later look's"
