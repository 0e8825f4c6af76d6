"""`google.rpc.Status` and `RetryInfo`: how OTLP says why not, and when to come back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

STATUS_TRAILER: Final = "grpc-status-details-bin"
"""Where gRPC carries a Status: Go's clients read its RetryInfo, Python's do not."""
RETRY_TRAILER: Final = "google.rpc.retryinfo-bin"
"""Where Python's OTLP exporter looks for RetryInfo."""


def status(code: int, text: str, retry_after_s: float | None = None) -> Any:
    """A Status message, with RetryInfo if a time is given."""
    made = Status(code=code, message=text)
    if retry_after_s is not None:
        made.details.add().Pack(_retry_info(retry_after_s))
    return made


def status_json(code: int, text: str, retry_after_s: float | None = None) -> bytes:
    """The same in JSON."""
    return json_format.MessageToJson(status(code, text, retry_after_s), indent=None).encode()


def trailers(code: int, text: str, retry_after_s: float | None = None) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata of a gRPC error: what every client's way of reading finds."""
    found = [(STATUS_TRAILER, status(code, text, retry_after_s).SerializeToString())]
    if retry_after_s is not None:
        found.append((RETRY_TRAILER, _retry_info(retry_after_s).SerializeToString()))
    return tuple(found)


def retry_after(trailing: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Seconds of the RetryInfo in a gRPC error's trailing metadata; None if there is none."""
    found = {key: value for key, value in trailing if isinstance(value, bytes)}
    info = RetryInfo()
    try:
        details = Status.FromString(found.get(STATUS_TRAILER, b"")).details
        if not any(detail.Unpack(info) for detail in details):
            if RETRY_TRAILER not in found:
                return None
            info = RetryInfo.FromString(found[RETRY_TRAILER])
    except DecodeError:
        return None
    return max(0.0, float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9))


def text_of(body: bytes) -> str:
    """The message of an encoded Status; empty if it is not one."""
    try:
        return str(Status.FromString(body).message)
    except DecodeError:
        return ""


def _retry_info(seconds: float) -> Any:
    delay = Duration()
    delay.FromMilliseconds(round(seconds * 1000))
    return RetryInfo(retry_delay=delay)
