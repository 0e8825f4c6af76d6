"""The sidecar's own Prometheus metrics: one registry, one attribute a metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

_FAST: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
_SLOW: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """All counters, gauges and histograms. Names have the prefix `otel_triage_`."""

    def __init__(self) -> None:
        """Make the metrics in a registry of their own."""
        self.registry: Final = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"otel_triage_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"otel_triage_{name}", text, labels, registry=self.registry)

        self.received: Final = counter("requests_received", "Export requests that came in", "signal")
        self.acknowledged: Final = counter(
            "requests_acknowledged", "Requests answered with success", "signal"
        )
        self.refused: Final = counter(
            "requests_refused", "Requests answered with an error", "signal", "reason"
        )
        self.receiving_bytes: Final = gauge("receiving_bytes", "Bytes of requests not acknowledged yet")

        self.journal_records: Final = gauge("journal_records", "Records not settled yet")
        self.journal_bytes: Final = gauge("journal_bytes", "Bytes of the records not settled yet")
        self.journal_damaged: Final = counter("journal_damaged", "Damaged journals that were moved aside")
        self.commit_seconds: Final = Histogram(
            "otel_triage_journal_commit_seconds",
            "One commit, fsync included",
            buckets=_FAST,
            registry=self.registry,
        )

        self.triage_failures: Final = counter("triage_failures", "Requests that left untriaged", "stage")

        self.delivered: Final = counter("delivered_requests", "Requests accepted downstream", "signal")
        self.retried: Final = counter("export_retries", "Exports to be sent again", "signal", "reason")
        self.dead_lettered: Final = counter("dead_lettered_requests", "Requests given up", "signal", "reason")
        self.partial: Final = counter("partial_successes", "Exports accepted in part", "signal")
        self.rejected_items: Final = counter("rejected_items", "Items refused in partial successes", "signal")
        self.export_seconds: Final = Histogram(
            "otel_triage_export_seconds",
            "One export, answer included",
            ["signal"],
            buckets=_SLOW,
            registry=self.registry,
        )
        self.delivering_bytes: Final = gauge(
            "delivering_bytes", "Bytes of payloads held in memory for delivery"
        )
        self.rate_limited: Final = counter(
            "rate_limited_requests",
            "Envelopes answered with success and not kept: upstream takes none of their categories now",
            "category",
        )
        self.no_downstream: Final = counter("no_downstream_requests", "Requests with nowhere to go", "signal")
        self.dropped: Final = counter("dropped", "Dead letters deleted", "reason")

        self._held: list[Callable[[], int]] = []
        self.delivering_bytes.set_function(lambda: sum(held() for held in self._held))

    def hold_for_delivery(self, held: Callable[[], int]) -> None:
        """Add what one downstream's way holds in memory to `delivering_bytes`."""
        self._held.append(held)

    def count_triage(self, counts: Mapping[str, int]) -> None:
        """Show what the triage stage counts for itself, as `otel_triage_triaged_total` by kind."""
        self.registry.register(_Counts(counts))


class _Counts(Collector):
    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily("otel_triage_triaged", "What triage found and did", labels=["kind"])
        for kind, count in sorted(self._counts.items()):
            family.add_metric([kind], count)
        yield family
