"""Hooks on the HTTP clients and the SDKs' request methods. Nothing is imported that the application has not.

`Client.send` is hooked, not the transports: litellm swaps transports, and `send` sees every one.
It sees each attempt of an SDK's call; the SDK's own request method sees where the call begins and ends.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import Any, Final, Generic, TypeVar

import wrapt
from opentelemetry import context as otel_context

from otel_triage.capture.calls import (
    Attempt,
    Call,
    current_attempt,
    current_call,
    end_dropped,
    names_a_model,
)
from otel_triage.capture.guard import never_raises
from otel_triage.capture.watch import make_taps
from otel_triage.facts.providers import Endpoint, endpoint_of, is_listed

HTTP_LIBRARIES: Final = ("httpx", "httpx2")

SDK_MODULES: Final = ("openai._base_client", "anthropic._base_client", "groq._base_client")
"""Base clients of SDKs that are generated alike: `SyncAPIClient.request`, `AsyncAPIClient.request`."""

_MARK: Final = "_self_otel_triage"  # wrapt keeps attributes of this prefix on the wrapper


# Set by `suppress_instrumentation()`: whoever asks for silence gets it from us too.
SUPPRESSED: Final = str(getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation"))


class Listener:
    """Who hears of calls: set by `init`, cleared by `shutdown`. Without one every hook passes through."""

    def __init__(
        self, *, hosts: frozenset[str], on_end: Callable[[Call, BaseException | None], None]
    ) -> None:
        self.hosts = hosts
        self.on_end = on_end


_listener: Listener | None = None
_hooked = False


def listen(listener: Listener | None) -> None:
    """Sets who hears of calls, and sets the hooks the first time."""
    global _listener, _hooked
    _listener = listener
    if listener is not None and not _hooked:
        _hooked = True
        for name in HTTP_LIBRARIES:
            wrapt.register_post_import_hook(_hook_http, name)
        for name in SDK_MODULES:
            wrapt.register_post_import_hook(_hook_sdk, name)


def _wrap(cls: Any, method: str, wrapper: Callable[..., Any]) -> None:
    """Wraps a method once, however many names its class is imported under (`httpx2.alias_httpx`)."""
    if cls is None or method not in vars(cls) or getattr(vars(cls)[method], _MARK, False):
        return
    wrapped = wrapt.FunctionWrapper(vars(cls)[method], wrapper)
    setattr(wrapped, _MARK, True)
    setattr(cls, method, wrapped)


@never_raises
def _hook_http(module: Any) -> None:
    send, async_send = _send_wrappers(module)
    _wrap(getattr(module, "Client", None), "send", send)
    _wrap(getattr(module, "AsyncClient", None), "send", async_send)


@never_raises
def _hook_sdk(module: Any) -> None:
    # anthropic's `request` opens and ends its own span around `_request`, where that span is the
    # current one and still records; both hold all attempts of the call.
    for name, wrapper in (("SyncAPIClient", _request), ("AsyncAPIClient", _async_request)):
        cls = getattr(module, name, None)
        _wrap(cls, "_request" if "_request" in vars(cls or object) else "request", wrapper)


Begun = TypeVar("Begun", Attempt, Call)


class _Scope(Generic[Begun]):
    """The time of a wrapped call: what runs inside finds `begun` in its context; what it raises is told.

    It leaves the exception as it is: same object, same traceback, no frame of ours above it.
    """

    def __init__(self, variable: ContextVar[Begun | None], begun: Begun | None) -> None:
        self._variable: ContextVar[Begun | None] = variable
        self._begun: Begun | None = begun
        self._token: Token[Begun | None] | None = None

    def __enter__(self) -> Begun | None:
        if self._begun is not None:
            self._token = self._variable.set(self._begun)
        return self._begun

    def __exit__(self, _type: object, exc: BaseException | None, _traceback: object) -> None:
        if self._begun is None or self._token is None:
            return
        with suppress(ValueError):  # left in another context than it was entered in
            self._variable.reset(self._token)
        if exc is not None:
            self._begun.raised(exc)


# -- one exchange -------------------------------------------------------------------------------


@never_raises
def _begin_attempt(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Attempt | None:
    """The attempt that this request is, or None where it is none of ours."""
    listener = _listener
    if listener is None or otel_context.get_value(SUPPRESSED):
        return None
    around = current_attempt.get()
    if around is not None and around.sending:  # one that has ended was inherited by a task it started
        return None
    end_dropped()
    request = args[0] if args else kwargs["request"]
    host, path = request.url.host, request.url.path
    call = current_call.get()
    endpoint = endpoint_of(host, path)
    if call is not None and not call.over and (call.host == host or endpoint is not None):
        return call.begin_attempt(request)
    if is_listed(host, listener.hosts):
        endpoint = endpoint or Endpoint(provider=None, operation=None, api=None, known=True)
    elif endpoint is None or not (endpoint.known or names_a_model(request)):
        return None
    call = Call(endpoint=endpoint, host=host, on_end=listener.on_end)
    return call.begin_attempt(request)


def _send_wrappers(module: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What goes around `Client.send` and `AsyncClient.send` of one library."""
    tap, async_tap = make_taps(module)

    def send(wrapped: Callable[..., Any], _client: Any, args: Any, kwargs: Any) -> Any:
        with _Scope(current_attempt, _begin_attempt(args, kwargs)) as attempt:
            response = wrapped(*args, **kwargs)
        if attempt is not None:
            attempt.answered(response, tap if kwargs.get("stream") else None)
        return response

    async def async_send(wrapped: Callable[..., Any], _client: Any, args: Any, kwargs: Any) -> Any:
        with _Scope(current_attempt, _begin_attempt(args, kwargs)) as attempt:
            response = await wrapped(*args, **kwargs)
        if attempt is not None:
            attempt.answered(response, async_tap if kwargs.get("stream") else None)
        return response

    return send, async_send


# -- one call of an SDK -------------------------------------------------------------------------


@never_raises
def _begin_call(client: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call | None:
    listener = _listener
    if listener is None or otel_context.get_value(SUPPRESSED):
        return None
    around = current_call.get()
    if around is not None and not around.over and around.owner == id(client):
        return None  # the SDK's own method calls itself
    options = kwargs["options"] if "options" in kwargs else args[1]
    base = client.base_url
    endpoint = endpoint_of(base.host, base.path.rstrip("/") + "/" + str(options.url).lstrip("/"))
    if endpoint is None or endpoint.provider is None:
        # An SDK of this name speaks to an address that says nothing: its own provider is meant.
        name = _sdk_of(client)
        operation, api = (endpoint.operation, endpoint.api) if endpoint else (None, None)
        endpoint = Endpoint(provider=name, operation=operation, api=api, known=True)
    asked = options.json_data if isinstance(options.json_data, Mapping) else {}
    return Call(endpoint=endpoint, host=base.host, on_end=listener.on_end, owner=client, asked=asked)


def _sdk_of(client: Any) -> str | None:
    """The SDK that a client's class comes from, also where the application made a class of its own."""
    roots = [module.partition(".")[0] for module in SDK_MODULES]
    names = (cls.__module__.partition(".")[0] for cls in type(client).__mro__)
    return next((name for name in names if name in roots), None)


def _request(wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
    with _Scope(current_call, _begin_call(client, args, kwargs)) as call:
        result = wrapped(*args, **kwargs)
    if call is not None:
        call.returned()
    return result


async def _async_request(wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
    with _Scope(current_call, _begin_call(client, args, kwargs)) as call:
        result = await wrapped(*args, **kwargs)
    if call is not None:
        call.returned()
    return result


@never_raises
def hooked() -> list[str]:
    """Names of the HTTP libraries and SDKs whose hooks are in place: for `stats` and `doctor`."""
    found = []
    for name, cls, method in (
        *((library, "Client", "send") for library in HTTP_LIBRARIES),
        *((module, "SyncAPIClient", "request") for module in SDK_MODULES),
    ):
        module = sys.modules.get(name)
        owner = vars(getattr(module, cls, object)) if module else {}
        if any(getattr(owner.get(m), _MARK, False) for m in (method, f"_{method}")):
            found.append(name.partition(".")[0])
    return found
