"""What the risk manager shows of itself: names from the catalogue, values from the book."""

from __future__ import annotations

from observability.metrics import Meters
from trading.book import Book
from trading.limits import RiskLimits


class Gauges:
    """The risk manager's meters; without meters everything is a no-op, never an error."""

    def __init__(self, meters: Meters | None) -> None:
        self._meters = meters

    def limits(self, limits: RiskLimits) -> None:
        """The limits in force that alerts compare with."""
        values = {
            "drawdown": limits.max_drawdown,
            "daily_loss": limits.max_daily_loss,
            "data_age": limits.max_data_age_ms / 1000,
            "forecast_age": limits.max_forecast_age_ms / 1000,
        }
        if self._meters is not None:
            for name, value in values.items():
                self._meters.set("mtst_risk_limit", value, limit=name)
            self.limits_file(sound=True)

    def limits_file(self, *, sound: bool) -> None:
        """Whether the limits that a person wrote last are in force."""
        if self._meters is not None:
            self._meters.set("mtst_risk_limits_sound", float(sound))

    def decided(self, code: str, seconds: float) -> None:
        """One decision and how long it took, journal included."""
        if self._meters is not None:
            self._meters.inc("mtst_risk_decisions_total", code=code)
            self._meters.observe("mtst_risk_decision_seconds", seconds)

    def journalled(self, seconds: float) -> None:
        """One write to the journal."""
        if self._meters is not None:
            self._meters.observe("mtst_journal_write_seconds", seconds)

    def reservations(self, book: Book) -> None:
        """How many approved entries are not settled: all that a settlement changes, however many accounts there are."""
        if self._meters is not None:
            self._meters.set("mtst_unsettled_reservations", float(len(book.unsettled())))

    def show(self, book: Book) -> None:
        """State, reservations and every account's figures."""
        meters = self._meters
        if meters is None:
            return
        meters.set("mtst_trading_state", float(book.latch.state.level))
        self.reservations(book)
        for account, view in book.accounts.items():
            report = view.report
            meters.set("mtst_equity", report.equity, account=account)
            meters.set("mtst_peak_equity", view.peak_equity, account=account)
            meters.set("mtst_drawdown_ratio", view.drawdown, account=account)
            meters.set("mtst_daily_loss_ratio", max(0.0, view.daily_loss), account=account)
            meters.set("mtst_open_positions", float(len(report.positions)), account=account)
            meters.set("mtst_exposure", sum(position.notional for position in report.positions), account=account)
            meters.set("mtst_position_mismatch", float(report.mismatch), account=account)
