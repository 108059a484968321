"""Counts what the HTTP interface answers, for Prometheus. All calls in the HTTP thread."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from ramd.metrics.declared import METRICS
from ramd.metrics.exposition import Sample

METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
OTHER = "other"


class RequestMeter(Collector):
    """Requests by method, route and status. A route or method that is not ours counts as "other",
    so that strangers cannot make families grow."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        count, took = METRICS["ramd_http_requests_total"], METRICS[_DURATION]
        self._count = Counter(count.name, count.help, count.labels, registry=self._registry)
        self._took = Histogram(
            took.name, took.help, took.labels, registry=self._registry, buckets=BUCKETS
        )
        self._classes = {2: 0, 4: 0, 5: 0}
        self._under_way = 0

    def begin(self) -> None:
        """A request arrived."""
        self._under_way += 1

    def end(self, method: str, route: str, status: int, seconds: float) -> None:
        """It was answered; status 0: the client left before."""
        self._under_way -= 1
        method = method if method in METHODS else OTHER
        self._count.labels(method, route or OTHER, str(status)).inc()
        self._took.labels(method, route or OTHER).observe(max(0.0, seconds))
        if status // 100 in self._classes:
            self._classes[status // 100] += 1

    def samples(self) -> Iterator[Sample]:
        """What stands beside the two families that `collect` gives."""
        yield Sample("ramd_http_requests_in_flight", self._under_way)
        for number, count in self._classes.items():
            yield Sample(f"ramd_http_requests_{number}xx", count)

    def describe(self) -> Iterator[Family]:
        """See `Exposition`."""
        return iter(())

    def collect(self) -> Iterator[Family]:
        """Counter and histogram; without their creation times, which few scrapers want."""
        for family in self._registry.collect():
            kept = [sample for sample in family.samples if not sample.name.endswith("_created")]
            family.samples = kept
            yield family


_DURATION = "ramd_http_request_duration_seconds"
