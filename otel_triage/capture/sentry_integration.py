"""Our integration for sentry_sdk. Importing this imports sentry_sdk: the application has done so."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

import sentry_sdk
import wrapt
from sentry_sdk.integrations import Integration
from sentry_sdk.integrations import logging as sentry_logging
from sentry_sdk.scope import add_global_event_processor, global_event_processors

from otel_triage.capture import start
from otel_triage.capture.guard import never_raises
from otel_triage.capture.sentry_event import HINT, SentryEvents, SentryOptions, is_unhandled
from otel_triage.capture.telling import Told

if TYPE_CHECKING:
    from typing import Unpack

    from sentry_sdk.types import Event, Hint

_LOGGER: Final = "otel_triage"
_EXPORTERS: Final = "opentelemetry.exporter.otlp.*"

_events: Final = SentryEvents()
_attached = False


class TriageIntegration(Integration):
    """Gives error events of failed LLM calls their verdict: one for `sentry_sdk.init(integrations=[…])`.

    It calls `otel_triage.init` with its options, unless the application has; those for Sentry events
    (`grouping`, `language`, `soft_events`, `defer_at_call`) hold in either case.

    Args:
        options: The same as those of `otel_triage.init`.
    """

    identifier = "otel_triage"

    def __init__(self, **options: Unpack[start.InitOptions]) -> None:
        start.init(**options)
        self.options = options

    @staticmethod
    def setup_once() -> None:
        """Registers our event processor, once a process."""
        attach()


@never_raises
def attach() -> None:
    """Registers the event processor, once, in front of Sentry's de-duplication, which must not see drops."""
    global _attached
    if _attached:
        return
    _attached = True
    add_global_event_processor(_processor)
    global_event_processors.remove(_processor)
    global_event_processors.insert(0, _processor)
    for ignore in ("ignore_logger", "ignore_logger_for_sentry_logs"):
        if (found := getattr(sentry_logging, ignore, None)) is not None:
            found(_LOGGER)
    client: Any = sys.modules["sentry_sdk.client"]
    wrapt.wrap_function_wrapper(client, "_Client.capture_event", _capture_event)
    if _exports_to_sidecar():
        sentry_logging.ignore_logger(_EXPORTERS)


def _exports_to_sidecar() -> bool:
    """Whether the application's own OTLP exporters speak to the sidecar: it being down is not for Sentry."""
    hosts = {
        urlsplit(os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT", "")).hostname
        for signal in ("", "TRACES_", "LOGS_", "METRICS_")
    }
    sidecar = start.sidecar()
    return sidecar is not None and urlsplit(sidecar).hostname in hosts


def _processor(event: Event, hint: Hint) -> Event | None:
    options = _options()
    data = cast("dict[str, Any]", event)
    if options is None or _events.keep(data, hint or {}, options):
        return event
    _tell_session(data)
    return None


def _capture_event(wrapped: Callable[..., Any], _client: Any, args: Any, kwargs: Any) -> Any:
    """Around Sentry's own: whether an event was sent is known only when it returns."""
    event_id = wrapped(*args, **kwargs)
    if event_id is None:
        _not_sent(args[0] if args else kwargs.get("event"))
    return event_id


@never_raises
def _not_sent(event: Any) -> None:
    if isinstance(event, Mapping) and isinstance(event.get("event_id"), str):
        _events.forget(event["event_id"])


@never_raises
def _options() -> SentryOptions | None:
    """The options in force: those of `init`, and of the integration where it names its own."""
    common = start.options()
    if common is None:
        return None
    names = [field.name for field in fields(SentryOptions)]
    found = SentryOptions(**{name: getattr(common, name) for name in names})
    ours = sentry_sdk.get_client().get_integration(TriageIntegration)
    given: Mapping[str, Any] = ours.options if isinstance(ours, TriageIntegration) else {}
    own = start.checked(replace(common, **{name: given[name] for name in names if name in given}))
    return replace(found, **{name: getattr(own, name) for name in names})


@never_raises
def _tell_session(event: Mapping[str, Any]) -> None:
    """A dropped duplicate may still be the one that says for sure that the application crashed."""
    session = sentry_sdk.get_isolation_scope()._session
    if session is not None and is_unhandled(event):
        session.update(status="crashed")


def send_soft(told: Told) -> None:
    """Sends an event for an answer that came and is unusable, where that was asked for."""
    options = _options()
    if options is not None and options.soft_events and sentry_sdk.get_client().is_active():
        event: Event = {
            "level": "warning",
            "logentry": {"message": f"Unusable answer of a model: {told.verdict.reason}"},
        }
        sentry_sdk.capture_event(event, hint={HINT: told})
