"""Delivery to Sentry: each request alone, in the lane of its upstream, key and categories.

Requests of the same categories share the fate of their rate limits; so a limit of transactions for
a day holds back no error and no check-in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from otel_triage.sidecar.deliver import Item, Lane, Outbox
from otel_triage.sidecar.envelopes import read_envelope
from otel_triage.sidecar.export_sentry import SentryExporter
from otel_triage.sidecar.metrics import Metrics
from otel_triage.sidecar.ratelimits import RateLimits
from otel_triage.sidecar.refusals import Refused
from otel_triage.sidecar.sentry_record import split
from otel_triage.sidecar.signals import Signal
from otel_triage.sidecar.store import Burial
from otel_triage.sidecar.upstreams import Upstreams

_SPANS: Final = frozenset({"span", "transaction"})


class SentryDelivery(Outbox):
    """Everything on its way to the Sentries of the settings."""

    def __init__(
        self,
        upstreams: Upstreams,
        limits: RateLimits,
        hops: Callable[[], str],
        *,
        memory_bytes: int,
        max_age_s: float,
        metrics: Metrics,
        backoff_s: float = 1.0,
    ) -> None:
        """Deliver to `upstreams` within their `limits`, saying `hops`; the rest as in `Outbox`."""
        super().__init__(memory_bytes=memory_bytes, max_age_s=max_age_s, metrics=metrics, backoff_s=backoff_s)
        self._upstreams = upstreams
        self._limits = limits
        self._exporter = SentryExporter(limits, hops)

    def put(self, item: Item) -> None:
        """Take one record. One whose key has no upstream is done at once, and counted."""
        try:
            sender, body = split(item.body)
            categories = _categories(item.signal, body)
        except Refused as refused:  # from a journal that something else wrote
            item.done(item, Burial(item.seq, item.size, "unreadable", refused.text))
            return
        upstream = self._upstreams.of(sender.key)
        if upstream is None:
            self.metrics.no_downstream.labels(item.signal).inc()
            item.done(item, None)
            return
        name = (item.signal, upstream, sender.key, categories)
        if name not in self._lanes:
            self._lanes[name] = Lane(
                self,
                item.signal,
                functools.partial(self._exporter.export, item.signal, upstream),
                name=f"sentry: {upstream}: {item.signal}",
                joins=False,
                limited_s=functools.partial(self._limits.wait_s, sender.key, categories),
                emptied=functools.partial(self._lanes.pop, name, None),
            )
        if self._lanes[name].waits and item.reload is not None:
            # One key's limit may last for hours: what waits for it must not fill the memory of the others.
            item.body, item.parked = b"", True
        self._put(self._lanes[name], item)

    async def close(self) -> None:
        """Stop sending; what was not delivered stays in the journal."""
        await super().close()
        await self._exporter.close()


def _categories(signal: Signal, body: bytes) -> frozenset[str]:
    if signal is Signal.SENTRY_TRACES:
        return _SPANS
    return frozenset(item.category for item in read_envelope(body).items)
