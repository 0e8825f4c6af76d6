"""Why a request can be refused, and how that is said in gRPC and in HTTP: one table.

Sources: OTLP specification 1.11, "Failures" of OTLP/gRPC and OTLP/HTTP. A throttled client is
told to come back in 1 to 3 s: the Python SDK drops a batch at once when it is told a time
beyond its own deadline of 10 s.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import Final

import grpc

RETRY_AFTER_S: Final = (1, 3)
"""Range of the wait that a throttled client is told, in whole seconds."""


class Why(Enum):
    """Reason of a refusal: its name in metrics, the gRPC code and the HTTP status that say it."""

    INVALID = ("invalid", grpc.StatusCode.INVALID_ARGUMENT, 400)
    UNAUTHENTICATED = ("unauthenticated", grpc.StatusCode.UNAUTHENTICATED, 401)
    FORBIDDEN = ("forbidden", grpc.StatusCode.PERMISSION_DENIED, 403)
    NO_UPSTREAM = ("no_upstream", grpc.StatusCode.NOT_FOUND, 404)
    LOOP = ("loop", grpc.StatusCode.FAILED_PRECONDITION, 400)
    METHOD = ("method", grpc.StatusCode.UNIMPLEMENTED, 405)
    SLOW = ("slow", grpc.StatusCode.DEADLINE_EXCEEDED, 408)
    TOO_LARGE = ("too_large", grpc.StatusCode.RESOURCE_EXHAUSTED, 413)
    MEDIA_TYPE = ("media_type", grpc.StatusCode.INVALID_ARGUMENT, 415)
    MEMORY = ("memory", grpc.StatusCode.UNAVAILABLE, 503)
    JOURNAL_FULL = ("journal_full", grpc.StatusCode.UNAVAILABLE, 503)
    JOURNAL = ("journal", grpc.StatusCode.UNAVAILABLE, 503)
    DRAINING = ("draining", grpc.StatusCode.UNAVAILABLE, 503)

    def __init__(self, label: str, code: grpc.StatusCode, http: int) -> None:
        """Unpack one row."""
        self.label = label
        self.code = code
        self.http = http


@dataclass(eq=False)
class Refused(Exception):
    """A request that is not taken. `text` tells its sender what is wrong and what would be right."""

    why: Why
    text: str

    def __post_init__(self) -> None:
        """Choose the wait of a throttled client once, so that every part of the answer says the same."""
        self.retry_after_s: int | None = random.randint(*RETRY_AFTER_S) if self.why.http == 503 else None  # noqa: S311

    def details(self) -> tuple[int, str, int | None]:
        """What `rpc_status` needs to say it: gRPC code, text, wait."""
        return self.why.code.value[0], self.text, self.retry_after_s
