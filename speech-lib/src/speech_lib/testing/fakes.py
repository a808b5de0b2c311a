"""In-memory doubles of the adapters, one for each boundary, with the same methods.

`FakeBroker` is the log between `FakeProducer` and `FakeConsumer`. They keep the rules of the real
ones on which services rely: offsets count up, a group continues at its commit, a refused record is
not in the log.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from speech_lib.errors import (
    DeliveryError,
    RegistryUnavailable,
    SchemaNotFound,
    SchemaRefused,
    SpeechLibError,
)
from speech_lib.kafka.records import (
    OnPartitions,
    Partition,
    Partitions,
    ReceivedRecord,
    Record,
    Stored,
)
from speech_lib.testing.schema_store import RegistryError, SchemaStore

_NOT_FOUND = 404


T = TypeVar("T")


class FakeBroker:
    """Topics of one partition each, and the offsets that groups have committed.

    Attributes:
        committed: By group and partition, the offset of the next record.
    """

    def __init__(self) -> None:
        self._log: defaultdict[str, list[ReceivedRecord]] = defaultdict(list)
        self.committed: defaultdict[str, dict[Partition, int]] = defaultdict(dict)

    def append(self, record: Record) -> Stored:
        """Store a record."""
        log = self._log[record.topic]
        received = ReceivedRecord(
            topic=record.topic,
            partition=0,
            offset=len(log),
            key=record.key,
            value=record.value,
            headers=dict(record.headers),
            timestamp_ms=time.time_ns() // 1_000_000,
        )
        log.append(received)
        return Stored(record.topic, 0, received.offset)

    def records(self, topic: str) -> Sequence[ReceivedRecord]:
        """Return all that a topic holds."""
        return tuple(self._log[topic])


class FakeProducer:
    """Stores records in a `FakeBroker`, or fails them as the test asks.

    Attributes:
        errors: The next sends raise them, one each; so does `check`.
        healthy: A service asks it before it calls itself ready.
        partition_count: The number of partitions of every topic. The broker's topics have one.
        gate: While it is cleared, sends wait.
    """

    def __init__(self, broker: FakeBroker) -> None:
        self._broker = broker
        self._closed = False
        self.errors: list[SpeechLibError] = []
        self.healthy = True
        self.partition_count = 1
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, record: Record) -> Stored:
        """Store a record and return where it is."""
        return await self.hand_over(record)

    def hand_over(self, record: Record) -> Coroutine[Any, Any, Stored]:
        """Take a record; it is stored when the result is awaited."""
        return self._store(record, taken=not self._closed)

    async def _store(self, record: Record, *, taken: bool) -> Stored:
        if not taken:
            raise DeliveryError(stored="no", reason="_DESTROY")
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        return self._broker.append(record)

    def check(self, topic: str, timeout: float) -> None:  # noqa: ARG002 - as the real one
        """Raise the next error, if there is one."""
        if self.errors:
            raise self.errors.pop(0)

    def partitions(self, topic: str) -> int:  # noqa: ARG002 - as the real one
        """Return how many partitions a topic has."""
        return self.partition_count

    async def close(self, timeout: float) -> None:  # noqa: ARG002, ASYNC109 - as the real one
        """Refuse whatever is sent from now on."""
        self._closed = True


class FakeConsumer:
    """Reads topics of a `FakeBroker` as the only member of its group.

    Attributes:
        problem: A service asks it before it calls itself ready.
    """

    def __init__(
        self,
        broker: FakeBroker,
        *,
        group_id: str,
        topics: Sequence[str],
        on_assign: OnPartitions = lambda _: None,
        on_revoke: OnPartitions = lambda _: None,
    ) -> None:
        self._broker = broker
        self._committed = broker.committed[group_id]
        self._assigned: Partitions = frozenset((topic, 0) for topic in topics)
        self._next: dict[Partition, int] = {}
        self.problem = ""
        self._on_assign = on_assign
        self._on_revoke = on_revoke

    def poll(
        self,
        timeout: float,  # noqa: ARG002 - as the real one
        max_records: int = 16,
        held: Partitions = frozenset(),
    ) -> list[ReceivedRecord]:
        """Return what there is; never waits."""
        if not self._next:
            self._next = {of: self._committed.get(of, 0) for of in self._assigned}
            self._on_assign(self._assigned)
        found: list[ReceivedRecord] = []
        for of in sorted(self._assigned - held):
            records = self._broker.records(of[0])[self._next[of] :][: max_records - len(found)]
            self._next[of] += len(records)
            found += records
        return found

    def commit(self, next_offsets: Mapping[Partition, int]) -> None:
        """Store, for each partition, the offset of the next record to read."""
        self._committed.update(next_offsets)

    def lags(self) -> dict[Partition, int]:
        """Return the number of unread records of each partition."""
        return {of: len(self._broker.records(of[0])) - at for of, at in sorted(self._next.items())}

    def revoke(self) -> None:
        """Take all partitions away, as a rebalance does; the next poll starts at the commits."""
        self._next = {}
        self._on_revoke(self._assigned)

    def close(self) -> None:
        """Leave the group."""
        if self._next:
            self.revoke()


class FakeRegistry:
    """A schema registry without HTTP, with the same rules.

    Attributes:
        available: While it is False, every call fails as where nobody listens.
    """

    def __init__(self) -> None:
        self._store = SchemaStore()
        self.available = True

    def register(self, subject: str, schema: str) -> int:
        """Add a schema to a subject, unless it is there, and return its id."""
        return self._translated(lambda: self._store.register(subject, schema))

    def lookup(self, subject: str, schema: str) -> int:
        """Return the id of a schema that somebody has registered."""
        return self._translated(lambda: int(self._store.lookup(subject, schema)["id"]))

    def schema(self, schema_id: int) -> str:
        """Return the schema of an id."""
        return self._translated(lambda: self._store.schema(str(schema_id)))

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _translated(self, call: Callable[[], T]) -> T:
        if not self.available:
            raise RegistryUnavailable("the registry cannot be reached")
        try:
            return call()
        except RegistryError as error:
            if error.status == _NOT_FOUND:
                raise SchemaNotFound(error.message) from None
            raise SchemaRefused(error.message) from None
