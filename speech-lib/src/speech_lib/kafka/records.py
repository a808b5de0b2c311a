"""Records as they go to a topic and come from it, free of any Kafka client.

`producer` takes a `Record` and gives back a `Stored`; `consumer` gives `ReceivedRecord`s. The
doubles in `testing` speak the same types.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Record:
    """What is to be stored.

    Attributes:
        topic: Where to.
        key: Decides on the partition; records of one key keep their order.
        value: The encoded event.
        headers: Names and texts, stored as UTF-8 (see `headers`).
    """

    topic: str
    key: bytes
    value: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stored:
    """Where the broker says that it has stored a record."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class ReceivedRecord:
    """What was read from a topic.

    Attributes:
        topic: Where it lies, with `partition` and `offset`.
        partition: See `topic`.
        offset: See `topic`.
        key: Empty where the record has none.
        value: Empty where the record has none (a tombstone).
        headers: The last one wins where a name occurs twice; text that is not UTF-8 has its bad
            bytes replaced.
        timestamp_ms: Milliseconds since the epoch by the writer's or the broker's clock, -1 where
            the record has no time.
        headers_readable: False where the name of a header is not UTF-8, which Kafka permits; then
            there are no `headers`.
        damaged_from: Where not None, this stands for the records from there up to `offset`, which
            nobody can read: it has neither key, value, headers nor time.
    """

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes = field(repr=False)
    headers: Mapping[str, str]
    timestamp_ms: int
    headers_readable: bool = True
    damaged_from: int | None = None

    @classmethod
    def damaged(cls, topic: str, partition: int, first: int, last: int) -> "ReceivedRecord":
        """Return what stands for records that nobody can read."""
        return cls(topic, partition, last, b"", b"", {}, -1, damaged_from=first)
