"""Trimmed views of OTLP requests: the same bytes, read only as deep as is needed.

Traces, logs and their groups have the same field numbers, so one view serves both: request >
resource > scope > items, where an item (a span, a log record) stays bytes. Whatever a view does
not name is an unknown field to it and goes on as it came. The descriptors live in a pool of
their own, so that they meet no other file of that name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field: Final = descriptor_pb2.FieldDescriptorProto
_PACKAGE: Final = "otel_triage.views"


def _field(
    message: descriptor_pb2.DescriptorProto,
    name: str,
    number: int,
    kind: int,
    *,
    of: str = "",
    many: bool = True,
) -> None:
    message.field.add(
        name=name,
        number=number,
        type=cast("Any", kind),
        label=_Field.LABEL_REPEATED if many else _Field.LABEL_OPTIONAL,
        type_name=f".{_PACKAGE}.{of}" if of else None,
    )


def _classes() -> tuple[type[Any], type[Any]]:
    file = descriptor_pb2.FileDescriptorProto(
        name="otel_triage/views.proto", package=_PACKAGE, syntax="proto3"
    )
    for name in ("Request", "Group", "Scope", "Attributes"):
        file.message_type.add(name=name)
    request, group, scope, attributes = file.message_type
    _field(request, "groups", 1, _Field.TYPE_MESSAGE, of="Group")  # resource_spans, resource_logs
    _field(group, "scopes", 2, _Field.TYPE_MESSAGE, of="Scope")  # scope_spans, scope_logs
    _field(scope, "items", 2, _Field.TYPE_BYTES)  # spans, log_records
    _field(attributes, "span", 9, _Field.TYPE_BYTES)  # Span.attributes
    _field(attributes, "record", 6, _Field.TYPE_BYTES)  # LogRecord.attributes
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)

    def made(name: str) -> type[Any]:
        return cast(
            "type[Any]", message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        )

    return made("Request"), made("Attributes")


_REQUEST, _ATTRIBUTES = _classes()


class Splice:
    """One request whose items can be read and replaced as bytes.

    Items are counted as in the parsed request: group, scope, item.
    """

    def __init__(self, body: bytes) -> None:
        self._view = _REQUEST.FromString(body)

    def get(self, group: int, scope: int, item: int) -> bytes:
        """The bytes of one span or log record."""
        return cast("bytes", self._view.groups[group].scopes[scope].items[item])

    def items(self) -> Iterator[tuple[tuple[int, int, int], bytes]]:
        """All spans or log records with their places."""
        for group, groups in enumerate(self._view.groups):
            for scope, scopes in enumerate(groups.scopes):
                for item, content in enumerate(scopes.items):
                    yield (group, scope, item), content

    def put(self, group: int, scope: int, item: int, content: bytes) -> None:
        """Puts other bytes in its place."""
        self._view.groups[group].scopes[scope].items[item] = content

    def body(self) -> bytes:
        """The request with all that was put in."""
        return cast("bytes", self._view.SerializeToString())


def encode_span_attributes(pairs: list[bytes]) -> bytes:
    """Encoded `KeyValue`s as `Span.attributes`: bytes to append to those of a span."""
    return cast("bytes", _ATTRIBUTES(span=pairs).SerializeToString())


def encode_record_attributes(pairs: list[bytes]) -> bytes:
    """Encoded `KeyValue`s as `LogRecord.attributes`: bytes to append to those of a log record."""
    return cast("bytes", _ATTRIBUTES(record=pairs).SerializeToString())
