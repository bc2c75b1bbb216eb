"""The catalogue of every metric of the system, and the meters by which a process fills it.

One tuple names all metrics: dashboards, alert rules and `docs/monitoring.md` are checked against it, and a name or a
label that is not in it raises `MetricError` at the first use, so that a typing error cannot become a silent panel.

Labels are bounded: none carries an order id, a path, a time or a text. A metric that still meets more than
`MAX_SERIES` label sets folds the rest into the label value "other", because a full memory must never be the price of
measuring.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from observability.errors import MetricError

Kind = Literal["counter", "gauge", "histogram"]

SERVICES = ("risk", "bot", "forecast", "exchange", "pipeline", "train", "system")
"""What a process can be; the value of the label `service` on everything that it exports."""

MAX_SERIES = 2000
"""Label sets of one metric in one process before further ones are counted as "other"."""

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds, in seconds, of every duration histogram."""


@dataclass(frozen=True)
class Metric:
    """One metric: its full name, kind, one sentence of help, label names and (histograms) bucket bounds."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS: tuple[Metric, ...] = (
    # data
    Metric(
        "mtst_candles_stored_total",
        "counter",
        "Rows written to the candle store.",
        ("exchange", "kind", "pair"),
    ),
    Metric(
        "mtst_data_age_seconds",
        "gauge",
        "Time since the close of the newest stored or used candle.",
        ("pair",),
    ),
    Metric("mtst_feature_rows_total", "counter", "Feature rows written.", ("pair",)),
    Metric("mtst_stage_seconds", "gauge", "How long the last run of a stage of the pipeline took.", ("stage",)),
    # learning
    Metric(
        "mtst_trials_total",
        "counter",
        "Trials of a sweep that ended (completed, stopped, failed).",
        ("status",),
    ),
    Metric(
        "mtst_model_info",
        "gauge",
        "1 for the model that is served; status is champion or shadow.",
        ("name", "version", "status"),
    ),
    # forecasts
    Metric(
        "mtst_forecasts_total",
        "counter",
        "Forecasts given out, by model and its status.",
        ("model", "status"),
    ),
    Metric("mtst_forecast_latency_seconds", "histogram", "Time to answer one forecast request.", (), SECONDS),
    Metric("mtst_forecast_age_seconds", "gauge", "Age of the forecast that a bot last used.", ("pair",)),
    Metric(
        "mtst_forecast_errors_total",
        "counter",
        "Forecast requests that gave none (timeout, unavailable, invalid, stale ...).",
        ("reason",),
    ),
    # risk
    Metric(
        "mtst_risk_decisions_total",
        "counter",
        "Decisions of the risk manager, by code of the rule.",
        ("code",),
    ),
    Metric("mtst_risk_decision_seconds", "histogram", "Time to decide one intent, journal included.", (), SECONDS),
    Metric(
        "mtst_risk_limit",
        "gauge",
        "Limits in force: drawdown, daily_loss (ratios); data_age, forecast_age (s).",
        ("limit",),
    ),
    Metric("mtst_risk_limits_sound", "gauge", "1 while the limits file is in force as it is, 0 while it is refused."),
    Metric("mtst_trading_state", "gauge", "0 halted, 1 reducing, 2 active."),
    Metric("mtst_equity", "gauge", "Account value in its stake currency.", ("account",)),
    Metric("mtst_peak_equity", "gauge", "Highest account value since the peak was last reset.", ("account",)),
    Metric(
        "mtst_drawdown_ratio",
        "gauge",
        "Fall from the peak as a ratio of the peak (0.1 is 10 %).",
        ("account",),
    ),
    Metric("mtst_daily_loss_ratio", "gauge", "Loss of this UTC day as a ratio (0 if a gain).", ("account",)),
    Metric("mtst_open_positions", "gauge", "Open positions.", ("account",)),
    Metric("mtst_exposure", "gauge", "Absolute value of all positions in the stake currency.", ("account",)),
    Metric(
        "mtst_position_mismatch",
        "gauge",
        "Positions or orders in which bot, journal and exchange differ.",
        ("account",),
    ),
    Metric("mtst_unsettled_reservations", "gauge", "Approved orders whose outcome the journal does not know yet."),
    Metric(
        "mtst_journal_write_seconds",
        "histogram",
        "Time to write one event to the journal durably.",
        (),
        SECONDS,
    ),
    # bots and exchange
    Metric("mtst_bot_loops_total", "counter", "Rounds of the bot's loop that ended.", ("bot",)),
    Metric(
        "mtst_bot_last_loop_timestamp_seconds",
        "gauge",
        "Wall time of the bot's last finished loop.",
        ("bot",),
    ),
    Metric("mtst_bot_restarts_total", "counter", "Times that a bot was started again after a failure.", ("bot",)),
    Metric(
        "mtst_orders_total",
        "counter",
        "Orders by side (buy, sell) and outcome (placed, filled, cancelled, rejected, refused, unknown).",
        ("bot", "side", "outcome"),
    ),
    Metric(
        "mtst_exchange_errors_total",
        "counter",
        "Calls to the exchange that failed (network, rate_limit, rejected, auth, unknown).",
        ("bot", "kind"),
    ),
    Metric(
        "mtst_exchange_requests_total",
        "counter",
        "Requests that the sandbox exchange served, by endpoint name and HTTP status.",
        ("endpoint", "status"),
    ),
    Metric("mtst_clock_skew_seconds", "gauge", "Exchange clock minus ours."),
)
"""Every metric that the system exports."""

CATALOGUE: dict[str, Metric] = {metric.name: metric for metric in METRICS}


class Meters:
    """All metrics of one process, bound to a registry of its own (never the global one).

    Args:
        service: what this process is, one of `SERVICES`.

    Raises:
        MetricError: the service is unknown.
    """

    def __init__(self, service: str) -> None:
        if service not in SERVICES:
            raise MetricError(f"no service is called {service!r}", todo=f"use one of {', '.join(SERVICES)}")
        self.service = service
        self.registry = CollectorRegistry()
        self._families: dict[str, Counter | Gauge | Histogram] = {}
        self._children: dict[tuple[str, tuple[str, ...]], Counter | Gauge | Histogram] = {}
        self._sizes: dict[str, int] = {}
        self._lock = Lock()
        ProcessCollector(registry=self.registry)

    def inc(self, name: str, /, amount: float = 1.0, **labels: str) -> None:
        """Add `amount` (>= 0) to a counter."""
        child = self._child(name, "counter", labels)
        assert isinstance(child, Counter)
        if amount < 0:
            raise MetricError("a counter only grows", where=f"{name} by {amount}", todo="use a gauge")
        child.inc(amount)

    def set(self, name: str, /, value: float, **labels: str) -> None:
        """Set a gauge to `value`."""
        child = self._child(name, "gauge", labels)
        assert isinstance(child, Gauge)
        child.set(value)

    def observe(self, name: str, /, value: float, **labels: str) -> None:
        """Count `value` in a histogram."""
        child = self._child(name, "histogram", labels)
        assert isinstance(child, Histogram)
        child.observe(value)

    def clear(self, name: str) -> None:
        """Forget every series of a metric, e.g. `mtst_model_info` before another model is named in it."""
        _known(name)
        with self._lock:
            family = self._families.pop(name, None)
            if family is not None:
                self.registry.unregister(family)
            self._children = {key: child for key, child in self._children.items() if key[0] != name}
            self._sizes.pop(name, None)

    def value(self, name: str, /, **labels: str) -> float | None:
        """The present value of a counter or gauge, or the number of observations of a histogram; None if never set."""
        metric = _known(name)
        sample = f"{name}_count" if metric.kind == "histogram" else name
        return self.registry.get_sample_value(sample, {key: str(value) for key, value in labels.items()})

    def _child(self, name: str, kind: Kind, labels: dict[str, str]) -> Counter | Gauge | Histogram:
        metric = _known(name)
        if metric.kind != kind:
            raise MetricError(f"{name} is a {metric.kind}, not a {kind}", where=name, todo=_VERBS[metric.kind])
        if len(labels) != len(metric.labels) or any(label not in labels for label in metric.labels):
            raise MetricError(
                f"labels are {sorted(labels)} where the catalogue has {sorted(metric.labels)}",
                where=name,
                todo="give exactly the catalogue's labels",
            )
        values = tuple(str(labels[label]) for label in metric.labels)
        child = self._children.get((name, values))
        return child if child is not None else self._new_child(metric, values)

    def _new_child(self, metric: Metric, values: tuple[str, ...]) -> Counter | Gauge | Histogram:
        with self._lock:
            family = self._families.get(metric.name)
            if family is None:
                family = self._families[metric.name] = _family(metric, self.registry)
            if not metric.labels:
                return self._children.setdefault((metric.name, values), family)
            if (metric.name, values) not in self._children:
                size = self._sizes.get(metric.name, 0)
                if size >= MAX_SERIES:
                    return family.labels(*("other" for _ in values))
                self._sizes[metric.name] = size + 1
                self._children[metric.name, values] = family.labels(*values)
            return self._children[metric.name, values]


_VERBS = {"counter": "use inc()", "gauge": "use set()", "histogram": "use observe()"}


def _known(name: str) -> Metric:
    metric = CATALOGUE.get(name)
    if metric is None:
        raise MetricError(f"the catalogue has no metric {name!r}", todo="add it to observability/metrics.py")
    return metric


def _family(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if metric.kind == "counter":
        return Counter(metric.name, metric.help, metric.labels, registry=registry)
    if metric.kind == "gauge":
        return Gauge(metric.name, metric.help, metric.labels, registry=registry)
    return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)
