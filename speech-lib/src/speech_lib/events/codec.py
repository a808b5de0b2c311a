"""Events as bytes and back: the Confluent wire format around Avro.

Magic byte 0, the schema's id in four bytes (big-endian), the Avro body: see "Wire format" in the
documentation of the Confluent Schema Registry. `kafka.registry` calls it and knows the ids. This
module knows neither registry nor network.
"""

import io
import json
import struct
from functools import lru_cache
from typing import TypeVar, cast

import fastavro

from speech_lib.errors import NotAvro, WrongSchema
from speech_lib.events import AnyEvent, AvroRecord
from speech_lib.events.schemas import schema_text
from speech_lib.events.writer_schema import MAX_SCHEMA_CHARACTERS, is_affordable

EventT = TypeVar("EventT", bound=AnyEvent)

_HEADER = struct.Struct(">bI")
_MAGIC = 0


def encode(event: AnyEvent, schema_id: int) -> bytes:
    """Return an event as the value of a record.

    Args:
        event: Valid, as every event is.
        schema_id: The id of the event's schema in the registry.
    """
    out = io.BytesIO()
    out.write(_HEADER.pack(_MAGIC, schema_id))
    fastavro.schemaless_writer(out, _parsed(schema_text(event.event_type)), event.to_record())
    return out.getvalue()


def split(data: bytes) -> tuple[int, bytes]:
    """Return the schema's id and the Avro body of a record's value.

    Raises:
        NotAvro: The value does not begin as the wire format does.
    """
    if len(data) < _HEADER.size:
        raise NotAvro("the value is shorter than the header of the wire format")
    magic, schema_id = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise NotAvro("the value does not begin with the magic byte of the wire format")
    return schema_id, data[_HEADER.size :]


def decode(event_class: type[EventT], data: bytes, writer_schema: str) -> EventT:
    """Return the event in a record's value.

    Args:
        event_class: The class of the expected event.
        data: The whole value, header included.
        writer_schema: The schema of the value's id: ours, or an older or newer version of it.

    Raises:
        NotAvro: The bytes are not one whole record of the writer's schema.
        WrongSchema: The writer's schema is not a version of the event's, or not `is_affordable`.
        EventError: A value is not what the event takes.
    """
    _, body = split(data)
    ours = _parsed(schema_text(event_class.event_type))
    theirs = _writers(writer_schema)
    if not isinstance(theirs, dict) or theirs.get("name") != ours["name"]:
        raise WrongSchema(f"the value was not written as {event_class.event_type}")
    if not is_affordable(theirs):
        raise WrongSchema("the writer's schema has types that may cost more than their bytes")
    return event_class.from_record(_read(body, theirs, ours))


def _read(body: bytes, theirs: AvroRecord, ours: AvroRecord) -> AvroRecord:
    stream = io.BytesIO(body)
    try:
        record = fastavro.schemaless_reader(stream, theirs, ours)
    except fastavro.read.SchemaResolutionError:
        raise WrongSchema("the writer's schema cannot be read as ours") from None
    except Exception:  # noqa: BLE001  # bad bytes make fastavro raise whatever they lead it to
        raise NotAvro("the value is not a whole record of its schema") from None
    if stream.tell() != len(body):
        raise NotAvro("the value goes on after the end of its record")
    return cast("AvroRecord", record)


def _writers(schema: str) -> AvroRecord:
    if len(schema) > MAX_SCHEMA_CHARACTERS:
        raise WrongSchema("the writer's schema is too long to be a version of ours")
    try:
        return _parsed(schema)
    except Exception:  # noqa: BLE001  # a bad schema makes fastavro raise whatever it leads it to
        raise WrongSchema("the writer's schema is not an Avro record schema") from None


@lru_cache(maxsize=64)
def _parsed(schema: str) -> AvroRecord:
    return cast("AvroRecord", fastavro.parse_schema(json.loads(schema)))
