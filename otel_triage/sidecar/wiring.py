"""The triage stage that the sidecar runs: rules, and the desk's table of failures."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable

from otel_triage.desk.errors import Errors
from otel_triage.desk.joins import Failure
from otel_triage.sidecar.metrics import Metrics
from otel_triage.sidecar.settings import Settings
from otel_triage.sidecar.stages import Stage
from otel_triage.sidecar.triage import Triage
from otel_triage.verdict import text_model
from otel_triage.verdict.classify import classify


def rules_and_desk(settings: Settings, metrics: Metrics) -> Stage:
    """Build the stage and open its table in the data directory; with `DESK=off` it keeps no table."""
    kind = Errors if settings.desk else _JoinsOnly
    errors = kind(settings.data_dir, keep_days=settings.keep_errors_days)
    errors.start()
    decide = functools.partial(classify, language=settings.language, second=text_model.if_installed())
    triage = Triage(errors, decide=decide, grouping=settings.grouping)
    metrics.count_triage(triage.counts)
    return Stage(triage, lambda: errors.degraded, errors.close)


class _JoinsOnly(Errors):
    """Failures are joined in memory and not written down."""

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    def note(self, *failures: Failure) -> Awaitable[None]:
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done
