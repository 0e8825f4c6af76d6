"""OTLP/JSON to protobuf messages.

`google.protobuf.json_format` does the work, but OTLP differs from the protobuf mapping
(OTLP specification 1.11, "JSON Protobuf Encoding"): trace and span ids are hex and not
base64, only lowerCamelCase keys exist, and whatever is unknown is ignored. So a JSON object
is first brought into the mapping's form, along the message's descriptor: attribute values
are never touched, because a map's keys are values of `key` there, not JSON keys.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from otel_triage.sidecar.refusals import Refused, Why
from otel_triage.sidecar.signals import WIRE, ExportRequest, Signal

_HEX: Final = frozenset({"trace_id", "span_id", "parent_span_id"})

_fields_of: Final[dict[str, dict[str, FieldDescriptor]]] = {}


def parse(signal: Signal, body: bytes) -> ExportRequest:
    """Read an export request in OTLP/JSON.

    Raises:
        Refused: If it is not one; the text says where and why.
    """
    message = WIRE[signal].request()
    try:
        tree = json.loads(body)
        if not isinstance(tree, dict):
            raise ValueError(f"a JSON object is due, this is {_kind(tree)}")
        json_format.ParseDict(_mapped(tree, message.DESCRIPTOR), message)
    except RecursionError:
        raise Refused(Why.INVALID, "not OTLP/JSON: nested too deeply") from None
    except (ValueError, json_format.ParseError) as error:
        raise Refused(Why.INVALID, f"not OTLP/JSON: {error}") from None
    return message


def _mapped(tree: dict[str, Any], descriptor: Descriptor) -> dict[str, Any]:
    """The same object with unknown keys left out and ids as base64."""
    fields = _fields_of.get(descriptor.full_name)
    if fields is None:
        fields = _fields_of[descriptor.full_name] = {field.json_name: field for field in descriptor.fields}
    mapped = {}
    for key, value in tree.items():
        field = fields.get(key)
        if field is None or value is None:
            continue
        if field.message_type is not None:
            value = _messages(value, field, key)
        elif field.name in _HEX:
            value = _id(value, key)
        mapped[key] = value
    return mapped


def _messages(value: Any, field: FieldDescriptor, key: str) -> Any:
    if not field.is_repeated:
        return _message(value, field, key)
    if not isinstance(value, list):
        raise ValueError(f"{key}: an array is due, this is {_kind(value)}")
    return [_message(item, field, key) for item in value]


def _message(value: Any, field: FieldDescriptor, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{key}: an object is due, this is {_kind(value)}")
    assert field.message_type is not None
    return _mapped(value, field.message_type)


def _id(value: Any, key: str) -> str:
    try:
        return base64.b64encode(binascii.unhexlify(value)).decode()
    except (ValueError, TypeError):
        raise ValueError(f"{key}: {str(value)[:64]!r} is not a hex string") from None


def _kind(value: Any) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array"}
    return names.get(type(value), "null" if value is None else "an object")
