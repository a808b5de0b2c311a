"""Turn a message of the client library into a `ReceivedRecord`, whatever its writer put in.

`consumer` and tools that read topics call `received`. It does no I/O beyond asking the message.
"""

from operator import methodcaller
from typing import cast

from confluent_kafka import Message

from speech_lib.kafka.records import ReceivedRecord


def place(message: Message) -> tuple[str, int, int]:
    """Return the topic, partition and offset of a message."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None  # noqa: S101, PT018
    return topic, partition, offset


def received(message: Message) -> ReceivedRecord:
    """Return the record of a message, whatever its writer put in."""
    topic, partition, offset = place(message)
    headers = _headers(message)
    return ReceivedRecord(
        topic=topic,
        partition=partition,
        offset=offset,
        key=message.key() or b"",
        value=message.value() or b"",
        headers=headers or {},
        timestamp_ms=message.timestamp()[1],
        headers_readable=headers is not None,
    )


# For a name that is not UTF-8 the library sets an exception, and still returns a list, with holes.
# Python's own call of a method does not notice the exception once it is specialised (after some
# eight calls), and touching a hole may crash the process. A call from C always checks, so this is
# one. Ask a message only once: its next answer is the list with the holes.
_headers_of = methodcaller("headers")


def _headers(message: Message) -> dict[str, str] | None:
    """Return the headers, or None where the client library cannot give them."""
    try:
        found = _headers_of(message)
    except (SystemError, UnicodeError):  # a name that is not UTF-8 raises one or the other
        return None
    pairs = cast("list[tuple[str, bytes | None]]", found or [])  # what is read has this form
    return {name: (value or b"").decode(errors="replace") for name, value in pairs}
