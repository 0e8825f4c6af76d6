"""OTLP/HTTP out, in protobuf.

Source of the retryable statuses: OTLP specification 1.11, "Failures" of OTLP/HTTP.
"""

from __future__ import annotations

import email.utils
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import httpx

from otel_triage.sidecar import rpc_status
from otel_triage.sidecar.exporters import TIMEOUT_S, Outcome, Rejected, Retry, accepted
from otel_triage.sidecar.loops import HOPS
from otel_triage.sidecar.signals import OTLP, Signal

# The first three are not by the specification: they refuse us and not the request (export_grpc).
RETRYABLE_STATUS: Final = frozenset({401, 403, 407, 429, 502, 503, 504})

_MAX_ANSWER: Final = 64 << 10


class HttpExporter:
    """OTLP/HTTP with protobuf."""

    def __init__(
        self, endpoint: str, headers: Mapping[str, str], certificate: Path | None, hops: Callable[[], str]
    ) -> None:
        """Prepare a client; it connects by itself. Arguments as in `GrpcExporter`."""
        verify: ssl.SSLContext | bool = (
            ssl.create_default_context(cafile=certificate) if certificate else True
        )
        self._client = httpx.AsyncClient(
            headers={"user-agent": "otel-triage", **headers, "content-type": "application/x-protobuf"},
            timeout=TIMEOUT_S,
            verify=verify,
        )
        self._hops = hops
        self._urls = {signal: f"{endpoint}/v1/{signal}" for signal in OTLP}

    async def export(self, signal: Signal, body: bytes) -> Outcome:
        """Send once."""
        try:
            response, answer = await post(self._client, self._urls[signal], body, {HOPS: self._hops()})
        except httpx.HTTPError as error:
            return Retry(type(error).__name__, str(error))
        status = response.status_code
        if response.is_success:
            is_protobuf = response.headers.get("content-type", "").startswith("application/x-protobuf")
            return accepted(signal, answer if is_protobuf else b"")
        text = rpc_status.text_of(answer) or response.reason_phrase
        if status in RETRYABLE_STATUS:
            return Retry(str(status), text, retry_after(response.headers.get("retry-after")))
        return Rejected(str(status), text)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


async def post(
    client: httpx.AsyncClient, url: str, body: bytes, headers: Mapping[str, str] | None = None
) -> tuple[httpx.Response, bytes]:
    """Post once; the response, and its body as far as anyone would read it.

    Raises:
        httpx.HTTPError: nothing, or no whole answer, came back.
    """
    async with client.stream("POST", url, content=body, headers=headers) as response:
        answer = b""
        async for chunk in response.aiter_bytes():
            answer += chunk
            if len(answer) > _MAX_ANSWER:
                break
        return response, answer


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number or an HTTP date."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
