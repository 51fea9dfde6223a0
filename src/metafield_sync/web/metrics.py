"""Figures for Prometheus: the fleet's, counted in the database so that any process can tell them, and our own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from psycopg.rows import dict_row

from metafield_sync.sync.incoming import fleet_incoming
from metafield_sync.sync.schedule import workers_alive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.metrics_core import Metric
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from metafield_sync.db.database import Database

GAUGES = {
    "shops_active": "Shops that are pushed to.",
    "shops_paused": "Shops that are not, by staff or because Shopify refuses them.",
    "stale": "Customers whose change has not reached Shopify yet.",
    "failing": "Customers whose last push failed.",
    "missing": "Customers who are gone from Shopify.",
    "in_doubt": "Customers whose last push has no known outcome.",
    "backfilling": "Shops that are being pushed by bulk operation.",
    "oldest_stale_seconds": "Age of the oldest change not in Shopify yet, shops paused by staff apart. Alarm on it.",
    "inbox_waiting": "Webhooks that came in and are not handled yet.",
    "inbox_failed": "Webhooks given up, until somebody resends them. Alarm on more than 0.",
    "inbox_oldest_seconds": "Age of the oldest webhook that is not handled yet.",
    "errands_waiting": "Things to be asked of Shopify that are due, shops paused by staff apart.",
    "errands_failing": "Those that failed the last time and are tried again.",
    "errands_oldest_seconds": "For how long the oldest of either has been due, or failing. Alarm on it.",
}
COUNTERS = {
    "calls": "Calls that wrote metafields.",
    "throttled": "Calls that Shopify throttled.",
    "points_spent": "Shopify API points spent on writing metafields.",
    "customers_pushed": "Customers whose balance Shopify acknowledged.",
    "customers_read": "Customers read back from Shopify, after a write without a known outcome or to reconcile.",
    "customers_refused": "Customers that Shopify refused.",
    "outcomes_unknown": "Calls whose outcome Shopify did not tell.",
    "late_writes": "Customers in step of whom reading back showed that a late write had won. Each was written again.",
    "drifts": "Customers whom a reconciliation found showing something else than their balance.",
}
SHOP_GAUGES = {
    "oldest_stale_seconds": "Age of the oldest change of a shop that has not reached Shopify.",
    "points_available": "API points in a shop's bucket, by what Shopify last told and restores since.",
    "points_maximum": "API points that a shop's bucket holds.",
}
CONFLICT_WRITERS = {"ourselves": "conflicts_ours", "foreign": "conflicts_foreign"}
LATENCY_BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Numbers over every shop, counted just now: in all, by shop, failing customers by code, runs, workers."""

    counts: Mapping[str, Any]
    shops: Sequence[Mapping[str, Any]]
    failing: Sequence[tuple[str, int]]
    runs: Sequence[tuple[str, str, str, int]]
    workers: int


async def read_fleet(db: Database) -> Fleet:
    """Numbers over every shop, from the functions that tell them and nothing else."""
    async with db.unscoped() as conn, conn.cursor() as cur:
        async with conn.cursor(row_factory=dict_row) as named:
            await named.execute("select * from fleet_counts()")
            counts = await named.fetchone()
            await named.execute(SHOP_FIGURES)
            shops = await named.fetchall()
        await cur.execute("select code, customers from fleet_failures()")
        failing = await cur.fetchall()
        await cur.execute("select kind, trigger, status, runs from fleet_runs()")
        runs = await cur.fetchall()
        counts = {**(counts or {}), **await fleet_incoming(conn)}
        return Fleet(counts, shops, failing, runs, await workers_alive(conn))


SHOP_FIGURES = """
select s.domain, f.oldest_stale_seconds, f.points_available, f.points_maximum
from fleet_shops() f
join shops s on s.id = f.shop_id
"""


class Metrics:
    """This process's figures; one an application."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "metafield_sync_http_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self.latency = Histogram(
            "metafield_sync_http_request_seconds",
            "How long answers took, in seconds.",
            ("route",),
            buckets=LATENCY_BUCKETS_S,
            registry=self._registry,
        )
        self.webhooks = Counter(
            "metafield_sync_webhooks",
            "Webhooks that came in, by what became of each. Alarm on not_authentic: the secret may be another.",
            ("topic", "outcome"),
            registry=self._registry,
        )

    def render(self, fleet: Fleet) -> bytes:
        """Everything in Prometheus' text format."""
        counted = CollectorRegistry()
        counted.register(_Fleet(fleet))
        return generate_latest(counted) + generate_latest(self._registry)


class _Fleet:
    """Figures that were counted just now."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterable[Metric]:
        """What prometheus-client asks for."""
        counts = self._fleet.counts
        for name, about in GAUGES.items():
            yield GaugeMetricFamily(f"metafield_sync_{name}", about, value=float(counts[name]))
        for name, about in COUNTERS.items():
            yield CounterMetricFamily(f"metafield_sync_{name}", about, value=float(counts[name]))
        for name, about in SHOP_GAUGES.items():
            gauge = GaugeMetricFamily(f"metafield_sync_shop_{name}", about, labels=["shop"])
            for shop in self._fleet.shops:
                if shop[name] is not None:
                    gauge.add_metric([shop["domain"]], shop[name])
            yield gauge
        conflicts = CounterMetricFamily(
            "metafield_sync_conflicts",
            "Writes that met another value than believed, by who had written it; each was made again over it.",
            labels=["writer"],
        )
        for writer, name in CONFLICT_WRITERS.items():
            conflicts.add_metric([writer], float(counts[name]))
        yield conflicts
        failing = GaugeMetricFamily(
            "metafield_sync_failing_customers", "Customers who fail, by Shopify's code or ours.", labels=["code"]
        )
        for code, customers in self._fleet.failing:
            failing.add_metric([code], customers)
        yield failing
        runs = GaugeMetricFamily(
            "metafield_sync_runs", "Runs on record (HISTORY_DAYS).", labels=["kind", "trigger", "status"]
        )
        for kind, trigger, status, count in self._fleet.runs:
            runs.add_metric([kind, trigger, status], count)
        yield runs
        yield GaugeMetricFamily(
            "metafield_sync_workers_alive",
            "Workers heard of in the last 30 seconds. Alarm on 0: nothing is pushed by itself.",
            value=self._fleet.workers,
        )


class Measure:
    """Counts and times every request, by its route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = _route(scope)
            self._metrics.requests.labels(scope["method"], route, status).inc()
            self._metrics.latency.labels(route).observe(time.perf_counter() - began)


def _route(scope: Scope) -> str:
    """The path of the route that answered, with its parameters' names; one word for all that is unknown."""
    return str(getattr(scope.get("route"), "path", "unknown"))
