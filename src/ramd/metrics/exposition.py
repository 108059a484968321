"""Values → the text that Prometheus scrapes.

Lives here: the collector that turns declared metrics with their samples into families. Must not
live here: where samples come from. Start reading at `Exposition.text`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    UnknownMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder
from prometheus_client.registry import Collector

from ramd.metrics.declared import METRICS, Kind, Metric, all_metrics

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Of the plain text format, which every scraper reads."""
_FAMILIES: Mapping[Kind, Callable[..., Any]] = {
    Kind.GAUGE: GaugeMetricFamily,
    Kind.COUNTER: CounterMetricFamily,
    Kind.UNTYPED: UnknownMetricFamily,
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a declared metric; `labels` in the order of its declaration."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


Source = Callable[[], Iterable[Sample]]
"""Everything that is known now. Called in the HTTP thread; must not wait."""


class Exposition:
    """What one daemon tells Prometheus. `collectors` bring families of their own beside the
    declared ones that `source` fills."""

    def __init__(self, source: Source, *collectors: Collector) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Declared(source))
        for collector in collectors:
            self._registry.register(collector)
        ProcessCollector(registry=self._registry)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """(body, content type) in the format that the Accept header prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Declared(Collector):
    """The families of `METRICS` that have samples now."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def describe(self) -> Iterable[Family]:
        """Nothing: names are checked by tests, not when the daemon starts."""
        return ()

    def collect(self) -> Iterator[Family]:
        """In the order of the declarations; a family without a sample is left out."""
        found: dict[str, list[Sample]] = {}
        for sample in self._source():
            found.setdefault(sample.name, []).append(sample)
        assert found.keys() <= METRICS.keys(), f"not declared: {found.keys() - METRICS.keys()}"
        for metric in all_metrics():
            samples = found.get(metric.alias_of or metric.name)
            if samples:
                yield _family(metric, samples)


def _family(metric: Metric, samples: Iterable[Sample]) -> Family:
    family: Family = _FAMILIES[metric.kind](metric.name, metric.help, labels=metric.labels)
    name = metric.name
    for sample in samples:
        assert len(sample.labels) == len(metric.labels), f"labels of {metric.name}"
        labels = dict(zip(metric.labels, sample.labels, strict=True))
        family.add_sample(name, labels, sample.value * metric.factor)
    return family
