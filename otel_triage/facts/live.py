"""Live exceptions -> facts, by the same walk and the same reader of texts as everything else.

Duck-typed: no SDK is imported, and any attribute may be missing, raise or lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from otel_triage.facts import headers
from otel_triage.facts.bodies import token_limits
from otel_triage.facts.exceptions import chain, is_cancellation, stacktrace_of, text_of, type_name
from otel_triage.facts.records import best_of
from otel_triage.facts.scrub import scrub
from otel_triage.facts.text import finish, read_text
from otel_triage.facts.walk import ErrorBody, Walk
from otel_triage.model import Cause, LLMError

_LINKS: Final = 12
_MESSAGE_LIMIT: Final = 2000

# Members of exceptions and of the answers that they carry, by the SDKs' sources (openai and anthropic:
# body, response; google.genai: code, status, details; botocore: response; grpc: code(), details()).
_MEMBERS: Final = (
    "body", "response", "details", "error", "response_json", "status_code", "status", "http_status", "code",
    "type", "param", "request_id", "retry_after", "headers",
)  # fmt: skip
# Bodies that were read already: reading one now could block.
_READ: Final = ("_content", "_body")
# Exceptions inside of one that are not its __cause__ (litellm, SQLAlchemy's style, urllib3, tenacity).
_INNER: Final = ("last_exception", "original_exception", "orig", "reason", "inner_exception")


def _get(of: object, name: str) -> Any:
    try:
        return getattr(of, name, None)
    except Exception:  # noqa: BLE001 - a property of foreign code
        return None


def _inner(exc: BaseException) -> BaseException | None:
    """The exception that another one wraps without naming it as its cause: a retry's last attempt."""
    last = _get(exc, "last_attempt")
    if last is not None:
        try:
            # tenacity hands out a finished future, which cannot block
            found = last.exception(timeout=0)
        except BaseException:  # noqa: BLE001 - cancelled, unfinished or no future at all
            found = None
        if isinstance(found, BaseException):
            return found
    for name in _INNER:
        if isinstance(found := _get(exc, name), BaseException):
            return found
    errors = _get(exc, "errors")
    if isinstance(errors, (list, tuple)) and errors and isinstance(errors[-1], BaseException):
        return errors[-1]
    return next((arg for arg in exc.args if isinstance(arg, BaseException)), None)


def links(exc: BaseException, *, until: BaseException | None = None) -> Iterator[BaseException]:
    """The exception and all that is wrapped in it, outermost first, each one once; `until` as in `chain`."""
    seen: set[int] = set()
    waiting = [exc]
    while waiting and len(seen) < _LINKS:
        for link in chain(waiting.pop(0), until=until):
            if id(link) in seen:
                continue
            seen.add(id(link))
            yield link
            if (inner := _inner(link)) is not None:
                waiting.append(inner)


def _plain(value: Any) -> Any:
    """A member as data, or None: an enum by its name (grpc's StatusCode), an answer by its members."""
    if value is None or isinstance(value, (str, int, Mapping, list, tuple)):
        return value
    if isinstance(value, bytes):
        return value[:100_000].decode("utf-8", "replace")
    name = _get(value, "name")
    if isinstance(name, str) and name.isupper():
        return name
    status = _get(value, "status_code") or _get(value, "status")
    if not isinstance(status, int):
        return None
    body = next((body for name in _READ if isinstance(body := _get(value, name), (bytes, str))), None)
    answered = _get(value, "headers")
    return {
        "status_code": status,
        "body": _plain(body),
        "headers": dict(answered) if isinstance(answered, Mapping) else None,
    }


def _view(exc: BaseException) -> dict[str, Any]:
    """An exception's members as an object for the walk."""
    found: dict[str, Any] = {}
    for name in _MEMBERS:
        value = _get(exc, name)
        if callable(value) and type(exc).__name__.endswith("RpcError"):
            try:
                value = value()
            except Exception:  # noqa: BLE001 - foreign code
                value = None
        if (plain := _plain(value)) is not None:
            found[name] = plain
    return found


def body_of(exc: BaseException, now: float | None = None) -> ErrorBody:
    """What one exception says: its members first, then its text."""
    facts = Walk(now).read(_view(exc))
    told = read_text(text_of(exc), now).body
    facts.status = facts.status or told.status
    facts.code = facts.code or told.code
    facts.type = facts.type or told.type
    facts.param = facts.param or told.param
    facts.message = facts.message or told.message
    facts.request_id = facts.request_id or told.request_id
    facts.wait = facts.wait if facts.wait is not None else told.retry_after_s
    return finish(facts, now)


def facts_of_exception(exc: BaseException, *, now: float, until: BaseException | None = None) -> LLMError:
    """What a live exception alone tells, where no tap saw the call.

    Args:
        exc: The outermost exception.
        now: Unix time in seconds.
        until: Where its chain ends; see `chain`.
    """
    known = list(links(exc, until=until))
    bodies = [body_of(link, now) for link in known]
    body = best_of(bodies) or bodies[0]
    failed = next(
        (link for link, said in zip(known, bodies, strict=True) if body.status and said.status), exc
    )
    told = next((link for link in known if _get(_get(link, "response"), "headers") is not None), exc)
    found = _get(_get(told, "response"), "headers")
    answered: Mapping[str, str] = found if isinstance(found, Mapping) else {}
    message = (body.message or text_of(exc))[:_MESSAGE_LIMIT]
    limit, asked = token_limits(message)
    wait = headers.retry_after_s(answered, now)
    return LLMError(
        status=body.status,
        error_type=type_name(failed),
        code=body.code,
        type=body.type,
        param=body.param,
        request_id=body.request_id or headers.request_id(answered),
        retry_after_s=wait if wait is not None else body.retry_after_s,
        context_limit=limit,
        requested_tokens=asked,
        message=scrub(message) or None,
        stacktrace=stacktrace_of(exc, until=until),
        causes=tuple(
            Cause(type_name(link), scrub(text_of(link)[:_MESSAGE_LIMIT]))
            for link in known
            if not is_cancellation(link)
        ),
        **headers.rate_limits(answered, now),
    )
