"""The trimmed views: what they do not name survives, and healthy items keep their bytes."""

from __future__ import annotations

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from span_dumps import logs, make_record, make_span, spans_of, traces

from otel_triage.sidecar.views import Splice


def test_nothing_put_is_nothing_changed() -> None:
    request = traces(make_span({"a": 1}), make_span({"b": "x"}, span=2))
    request.resource_spans[0].schema_url = "https://opentelemetry.io/schemas/1.37.0"
    request.resource_spans[0].scope_spans[0].schema_url = "x"
    assert ExportTraceServiceRequest.FromString(Splice(request.SerializeToString()).body()) == request


def test_items_are_counted_as_in_the_parsed_request() -> None:
    request = traces(make_span({}, span=1), make_span({}, span=2))
    request.resource_spans.add().scope_spans.add()
    request.MergeFrom(traces(make_span({}, span=3), scope="other"))
    found = dict(Splice(request.SerializeToString()).items())
    assert found == {
        (group, scope, item): span.SerializeToString()
        for group, groups in enumerate(request.resource_spans)
        for scope, scopes in enumerate(groups.scope_spans)
        for item, span in enumerate(scopes.spans)
    }
    assert set(found) == {(0, 0, 0), (0, 0, 1), (2, 0, 0)}


def test_neighbours_keep_their_bytes_and_unknown_fields_survive() -> None:
    # Field 1000 is a later version's: of the request, and of a span.
    unknown = bytes((0xC2, 0x3E, 1, ord("x")))
    span = make_span({"a": 1}).SerializeToString() + unknown
    healthy = make_span({"b": 2}, span=2, status=0).SerializeToString() + unknown
    splice = Splice(_request(span, healthy) + unknown)
    splice.put(0, 0, 0, span + make_span({"c": 3}).SerializeToString())
    done = splice.body()
    assert healthy in done
    assert done.endswith(unknown)
    assert Splice(done).get(0, 0, 1) == healthy
    assert Splice(done).get(0, 0, 0).startswith(span)


def _request(*spans: bytes) -> bytes:
    """An encoded request of these encoded spans: fields 1, 2 and 2, all with a one- or two-byte length."""

    def field(number: int, content: bytes) -> bytes:
        size = len(content)
        length = bytes((size,)) if size < 128 else bytes((size & 0x7F | 0x80, size >> 7))
        return bytes((number << 3 | 2,)) + length + content

    return field(1, field(2, b"".join(field(2, span) for span in spans)))


def test_log_records_have_the_same_shape() -> None:
    request = logs(make_record({"a": 1}), make_record({"b": 1}))
    splice = Splice(request.SerializeToString())
    assert splice.get(0, 0, 1) == request.resource_logs[0].scope_logs[0].log_records[1].SerializeToString()


def test_request_builder_is_right() -> None:
    span = make_span({"a": 1})
    request = ExportTraceServiceRequest.FromString(_request(span.SerializeToString()))
    assert [found for _, found in spans_of(request)] == [span]
