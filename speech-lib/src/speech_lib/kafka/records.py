"""Records as they go to a topic and come from it.

Producer, consumer, services and test doubles share these types. Pure: no Kafka client.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_HOLDING_BYTES = 1024

Partition = tuple[str, int]
"""A topic's name and the number of one of its partitions."""
Partitions = frozenset[Partition]
OnPartitions = Callable[[Partitions], None]
"""Called with partitions that a member of a group has gained or lost."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record to store.

    Attributes:
        topic: The topic to write to.
        key: Decides on the partition. Records of one key keep their order.
        value: The encoded event.
        headers: Names and texts, stored as UTF-8 (see `headers`).
        partition: Where it goes, in place of what the key decides.
    """

    topic: str
    key: bytes
    value: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    partition: int | None = None

    @property
    def size(self) -> int:
        """The bytes of key and value."""
        return len(self.key) + len(self.value)


@dataclass(frozen=True, slots=True)
class Stored:
    """The place where the broker has stored a record."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Queued:
    """How much waits for the broker's answer.

    Attributes:
        records: The number of records.
        bytes: The length of their keys and values.
    """

    records: int
    bytes: int

    def __add__(self, other: "Queued") -> "Queued":
        return Queued(self.records + other.records, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class ReceivedRecord:
    """A record that was read from a topic.

    Attributes:
        topic: The topic that it was read from.
        partition: Its partition.
        offset: Its offset in the partition.
        key: Empty where the record has none.
        value: Empty where the record has none (a tombstone).
        headers: The last one wins where a name occurs twice. Bytes that are not UTF-8 are replaced.
        timestamp_ms: Milliseconds since the epoch by the writer's or the broker's clock, -1 where
            the record has no time.
        headers_readable: False where a header's name is not UTF-8, which Kafka permits. Such a
            record has no `headers` here.
        damaged_from: If set, this object stands for the records from that offset up to `offset`.
            Nobody can read them, so it has no key, value, headers or time.
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

    @property
    def size(self) -> int:
        """About how many bytes it takes in memory: content, headers, and what holds them."""
        headers = sum(len(name) + len(text) for name, text in self.headers.items())
        return len(self.key) + len(self.value) + headers + _HOLDING_BYTES

    @classmethod
    def damaged(cls, topic: str, partition: int, first: int, last: int) -> "ReceivedRecord":
        """Return a stand-in for the unreadable records from offset `first` to `last`."""
        return cls(topic, partition, last, b"", b"", {}, -1, damaged_from=first)

    @property
    def topic_partition(self) -> Partition:
        """The partition that it was read from, with its topic."""
        return self.topic, self.partition
