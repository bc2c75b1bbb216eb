"""Report: what a journal tells of trading, as a terminal table and as one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import charts
from cluster.evidence import JournalStory, journal_story, stamp, thin, trade_rows
from cluster.pages import render_page
from cluster.settings import Settings
from observability.errors import JournalError
from observability.files import write_whole
from trading.adapters.bot_database import Database, schemas
from trading.events import from_rows
from trading.journal import Journal
from trading.performance import AccountPerformance, PairPerformance, Performance, performance
from trading.rulebook import Rule

MEANINGS = {"APPROVED": "allowed, with room reserved for it", **{rule.value: rule.meaning for rule in Rule}}


@dataclass(frozen=True)
class Judged:
    """A journal read: figures, and every decision as a row."""

    performance: Performance
    story: JournalStory


@dataclass(frozen=True)
class AccountRow:
    """One account's figures; money in its quote currency, ratios as fractions."""

    account: str
    bot: str
    since: str
    until: str
    equity: float
    profit_ratio: float
    max_drawdown: float
    mean_exposure: float
    trades: int
    wins: int
    realised: float
    fees: float
    slippage: float
    exit_gap: float
    turnover: float
    pairs: Mapping[str, PairPerformance]


@dataclass(frozen=True)
class TradeReport:
    """What `trade report` prints: every account, decisions by rule, and where the page lies."""

    accounts: tuple[AccountRow, ...]
    by_rule: Mapping[str, int]
    breakers: tuple[tuple[int, str, str, str], ...]
    page: Path


def judge_journal(path: Path) -> Judged:
    """Read a journal of a live system, a dry run or a backtest.

    Raises:
        JournalError: there is none, or it cannot be trusted.
    """
    if not path.is_file():
        raise JournalError(
            "nothing has traded here: there is no journal", where=str(path), todo="trade up, or backtest"
        )
    with closing(Journal(path, read_only=True)) as journal:
        figures = performance(from_rows(journal.read()))
    return Judged(figures, journal_story(path))


def report(settings: Settings, *, folder: Path | None = None, out: Path | None = None) -> TradeReport:
    """The figures of this workspace's trading, or of a backtest's folder, and a page of them.

    Args:
        settings: the workspace.
        folder: a backtest's folder; None reports on the workspace's own bots.
        out: file of the page; None puts it beside the journal.

    Raises:
        JournalError: there is no journal, or it cannot be trusted.
    """
    space = settings.workspace
    journal = space.journal if folder is None else folder / "journal.db"
    judged = judge_journal(journal)
    databases = {} if folder is not None else _databases(space.var / "bots", settings.trade.bots_dsn_file)
    page = out or journal.with_name("trading.html" if folder is None else "report.html")
    rows = trade_rows(databases) if databases else []
    title = "Trading" if folder is None else f"Backtest in {folder.name}"
    write_page(page, judged, rows, title=title, text=words(judged.performance))
    accounts = tuple(account_row(each) for each in judged.performance.accounts.values())
    return TradeReport(accounts, judged.performance.by_rule, judged.performance.breakers, page)


def account_row(account: AccountPerformance) -> AccountRow:
    """An account in one row."""
    total = account.total
    return AccountRow(
        account=account.account,
        bot=account.bot,
        since=stamp(account.equity[0][0]),
        until=stamp(account.equity[-1][0]),
        equity=account.equity[-1][1],
        profit_ratio=account.profit_ratio,
        max_drawdown=account.max_drawdown,
        mean_exposure=account.mean_exposure,
        trades=total.trades,
        wins=total.wins,
        realised=total.profit,
        fees=total.fees,
        slippage=total.slippage,
        exit_gap=total.exit_gap,
        turnover=total.turnover,
        pairs=dict(sorted(account.pairs.items())),
    )


def words(figures: Performance) -> str:
    """What the figures mean, in a sentence an account."""
    if not figures.accounts:
        return "No account has reported yet."
    parts = []
    for each in figures.accounts.values():
        total = each.total
        gain = f"{'gained' if each.profit_ratio >= 0 else 'lost'} {abs(each.profit_ratio):.2%}"
        parts.append(
            f"{each.bot} {gain}, open positions included, with {total.trades} closed trades that cost "
            f"{total.fees:,.2f} in fees; it once stood {each.max_drawdown:.2%} below its best."
        )
    return " ".join(parts)


def write_page(path: Path, judged: Judged, trades: Sequence[Mapping[str, Any]], *, title: str, text: str) -> Path:
    """Write the page; it loads nothing from anywhere."""
    figures = judged.performance
    equity = {name: thin(each.equity) for name, each in figures.accounts.items()}
    exposure = {name: thin(each.exposure) for name, each in figures.accounts.items()}
    pictures = {
        "equity": charts.lines("Equity, open positions at market (stake currency)", equity),
        "drawdown": charts.drawdown("Drawdown from the highest equity so far", equity),
        "exposure": charts.lines("Exposure: positions as a part of equity", exposure, percent=True),
        "decisions": charts.decisions(figures.by_rule),
    }
    page = render_page(
        "trading.html.j2",
        pictures,
        title=title,
        text=text,
        accounts=[account_row(each) for each in figures.accounts.values()],
        by_rule=figures.by_rule,
        by_bot=figures.by_bot,
        meanings=MEANINGS,
        breakers=[(stamp(at), state, who, why) for at, state, who, why in figures.breakers],
        trades=list(trades),
        decisions=judged.story.decisions[-500:],
    )
    return write_whole(path, page)


def _databases(bots: Path, dsn_file: Path | None) -> dict[str, Database]:
    """Every bot's databases; dry and live ones are told apart by their name."""
    files: dict[str, Database] = {
        f"{path.parent.name} ({path.stem.removeprefix('trades-')})": path
        for path in sorted(bots.glob("*/trades-*.sqlite"))
    }
    kept = schemas(dsn_file, bots) if dsn_file else []
    return files | {f"{each.name} ({each.mode})": each for each in kept}
