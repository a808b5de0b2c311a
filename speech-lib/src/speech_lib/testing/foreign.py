"""Store records that our own producer would not make: header names of any bytes, any time.

For tests of readers. The client library takes only text for the name of a header, while Kafka takes
any bytes. So this calls librdkafka itself, as `mock_cluster` does.
"""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import (
    POINTER,
    Structure,
    Union,
    c_char_p,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_ssize_t,
    c_void_p,
)
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import cimpl

_PRODUCER = 0
_TEXT_BYTES = 512
_FLUSH_MS = 20_000
_COPY = 2
_TOPIC, _PARTITION, _VALUE, _KEY, _FLAGS, _TIMESTAMP, _HEADER = 1, 3, 4, 5, 7, 8, 9


class ForeignError(Exception):
    """The record was not stored; the text is librdkafka's."""


@dataclass(frozen=True, slots=True)
class ForeignRecord:
    """A record as a foreign writer may make it.

    Attributes:
        value: None for a tombstone.
        key: None for a record without one.
        headers: Names and values of any bytes. A value may be None.
        timestamp_ms: Milliseconds since the epoch; 0 for now.
        compression: librdkafka's name of the codec.
    """

    value: bytes | None = field(repr=False)
    key: bytes | None = None
    headers: Sequence[tuple[bytes, bytes | None]] = field(default=(), repr=False)
    timestamp_ms: int = 0
    compression: str = "none"


class _Memory(Structure):
    _fields_ = (("ptr", c_char_p), ("size", c_size_t))


class _Header(Structure):
    _fields_ = (("name", c_char_p), ("val", c_char_p), ("size", c_ssize_t))


class _Content(Union):
    _fields_ = (
        ("cstr", c_char_p),
        ("i", c_int),
        ("i32", c_int32),
        ("i64", c_int64),
        ("mem", _Memory),
        ("header", _Header),
        ("pad", ctypes.c_char * 64),
    )


class _Argument(Structure):
    """`rd_kafka_vu_t` of rdkafka.h."""

    _fields_ = (("vtype", c_int), ("u", _Content))


class _Report(Structure):
    """`rd_kafka_message_t` of rdkafka.h, as a delivery report."""

    _fields_ = (
        ("err", c_int),
        ("rkt", c_void_p),
        ("partition", c_int32),
        ("payload", c_void_p),
        ("len", c_size_t),
        ("key", c_void_p),
        ("key_len", c_size_t),
        ("offset", c_int64),
        ("private", c_void_p),
    )


_OnReport = ctypes.CFUNCTYPE(None, c_void_p, POINTER(_Report), c_void_p)
_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (c_void_p, []),
    "rd_kafka_conf_set": (c_int, [c_void_p, c_char_p, c_char_p, c_char_p, c_size_t]),
    "rd_kafka_conf_set_dr_msg_cb": (None, [c_void_p, _OnReport]),
    "rd_kafka_new": (c_void_p, [c_int, c_void_p, c_char_p, c_size_t]),
    "rd_kafka_produceva": (c_void_p, [c_void_p, POINTER(_Argument), c_size_t]),
    "rd_kafka_error_string": (c_char_p, [c_void_p]),
    "rd_kafka_err2name": (c_char_p, [c_int]),
    "rd_kafka_flush": (c_int, [c_void_p, c_int]),
    "rd_kafka_destroy": (None, [c_void_p]),
}


def store(bootstrap_servers: str, topic: str, record: ForeignRecord) -> int:
    """Store a record on partition 0 and return its offset. Blocks.

    Raises:
        ForeignError: The record was refused, or not stored within 20 s.
    """
    library = _library()
    arguments = _arguments(topic, record)
    reports: list[tuple[int, int]] = []

    def note(_: int, report: Any, __: int) -> None:  # noqa: ANN401 - a pointer
        reports.append((report.contents.err, report.contents.offset))

    on_report = _OnReport(note)
    with _producer(library, bootstrap_servers, record.compression, on_report) as client:
        array = (_Argument * len(arguments))(*arguments)
        if error := library.rd_kafka_produceva(client, array, len(arguments)):
            raise ForeignError(library.rd_kafka_error_string(error).decode())
        if library.rd_kafka_flush(client, _FLUSH_MS):
            raise ForeignError("not stored in time")
    ((code, offset),) = reports
    if code:
        raise ForeignError(library.rd_kafka_err2name(code).decode())
    return offset


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(cimpl.__file__)
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@contextmanager
def _producer(
    library: ctypes.CDLL, servers: str, compression: str, on_report: object
) -> Iterator[int]:
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    config = library.rd_kafka_conf_new()
    settings = {
        "bootstrap.servers": servers,
        "compression.type": compression,
        "message.max.bytes": "1000000000",  # its own limit; the broker has another
        "log_level": "3",
    }
    for name, value in settings.items():
        if library.rd_kafka_conf_set(config, name.encode(), value.encode(), text, _TEXT_BYTES):
            raise ForeignError(text.value.decode())
    library.rd_kafka_conf_set_dr_msg_cb(config, on_report)
    client: int = library.rd_kafka_new(_PRODUCER, config, text, _TEXT_BYTES)
    try:
        yield client
    finally:
        library.rd_kafka_destroy(client)


def _arguments(topic: str, record: ForeignRecord) -> list[_Argument]:
    made = [
        _argument(_TOPIC, cstr=topic.encode()),
        _argument(_PARTITION, i32=0),
        _argument(_FLAGS, i=_COPY),
        _argument(_TIMESTAMP, i64=record.timestamp_ms),
    ]
    for kind, content in ((_VALUE, record.value), (_KEY, record.key)):
        if content is not None:
            made.append(_argument(kind, mem=_Memory(content, len(content))))
    for name, value in record.headers:
        size = 0 if value is None else len(value)
        made.append(_argument(_HEADER, header=_Header(name, value, size)))
    return made


def _argument(vtype: int, **content: object) -> _Argument:
    return _Argument(vtype, _Content(**content))
