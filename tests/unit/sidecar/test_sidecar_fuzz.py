"""Whatever comes in is taken or refused, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from google.protobuf.descriptor import Descriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otel_triage.sidecar import otlp_json, pipeline
from otel_triage.sidecar.http_body import gunzip
from otel_triage.sidecar.refusals import Refused
from otel_triage.sidecar.signals import OTLP, WIRE, Signal


def names_of(descriptor: Descriptor, seen: set[str]) -> Iterator[str]:
    """All JSON names of a message and of what it holds."""
    if descriptor.full_name not in seen:
        seen.add(descriptor.full_name)
        for field in descriptor.fields:
            yield field.json_name
            if field.message_type is not None:
                yield from names_of(field.message_type, seen)


KEYS = [
    *{name for wire in WIRE.values() for name in names_of(wire.request.DESCRIPTOR, set())},
    "trace_id",
    "x",
]
TOPS = ["resourceSpans", "resourceLogs", "resourceMetrics"]

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
)


@settings(max_examples=300, deadline=None)
@given(signal=st.sampled_from(OTLP), tree=TREES, top=st.sampled_from(TOPS))
def test_any_json_is_taken_or_refused(signal: Signal, tree: Any, top: str) -> None:
    for body in (tree, {top: [{"scopeSpans": [{"spans": [tree]}]}]}, {"resourceLogs": tree}):
        with suppress(Refused):
            message = otlp_json.parse(signal, json.dumps(body).encode())
            assert pipeline.parse(signal, message.SerializeToString()) == message


@settings(max_examples=300, deadline=None)
@given(signal=st.sampled_from(OTLP), body=st.binary(max_size=200))
def test_any_bytes_are_taken_or_refused(signal: Signal, body: bytes) -> None:
    for take in (
        lambda: otlp_json.parse(signal, body),
        lambda: pipeline.parse(signal, body),
        lambda: gunzip(body, 100),
        lambda: gunzip(b"\x1f\x8b\x08\x00" + body, 100),
    ):
        with suppress(Refused):
            take()


@settings(max_examples=100, deadline=None)
@given(
    trace_id=st.binary(max_size=20),
    number=st.integers(-(2**63), 2**63 - 1),
    text=st.text(st.characters(exclude_categories=["Cs"])),
    as_string=st.booleans(),
    upper=st.booleans(),
)
def test_what_json_can_say_arrives(
    trace_id: bytes, number: int, text: str, as_string: bool, upper: bool
) -> None:
    record = {
        "traceId": trace_id.hex().upper() if upper else trace_id.hex(),
        "body": {"stringValue": text},
        "attributes": [{"key": text, "value": {"intValue": str(number) if as_string else number}}],
    }
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).encode()
    expected = ExportLogsServiceRequest()
    made = expected.resource_logs.add().scope_logs.add().log_records.add(trace_id=trace_id)
    made.body.string_value = text
    made.attributes.add(key=text).value.int_value = number
    assert otlp_json.parse(Signal.LOGS, body) == expected
