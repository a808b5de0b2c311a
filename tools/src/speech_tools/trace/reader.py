"""Read chosen parts of topics, by offset and by time, without joining a consumer group.

Used by `search` and `trace.follow`. Kafka knows no reading of headers alone, and a record may hold
1.5 MB of audio: so little is asked for at once, and values are kept of texts only. Nothing is ever
committed.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from speech_lib.errors import BrokerUnavailable, TopicMissing
from speech_lib.kafka.consuming.config import consumer_config
from speech_lib.kafka.message import received
from speech_lib.kafka.records import Partition, ReceivedRecord
from speech_lib.kafka.settings import ClientConfig, KafkaSettings, client_logger

from speech_tools.trace.group import asking_the_coordinator

REQUEST_SECONDS = 5.0
STALLED_SECONDS = 10.0
"""After this time without a record the broker is taken for gone."""
TURN_SECONDS = 0.2
"""How soon Ctrl-C is noticed where records are waited for."""

_NO_RECORD = -1
_NOT_PERMITTED = "GROUP_AUTHORIZATION_FAILED"
_FETCH: ClientConfig = {
    # A look at one record must not drag in megabytes of others; a larger record still comes whole.
    "max.partition.fetch.bytes": 256 * 1024,
    "queued.max.messages.kbytes": 2 * 1024,
    # A full queue is soon emptied here; by default nothing would be fetched for a second.
    "fetch.queue.backoff.ms": 1,
    "enable.partition.eof": True,
}

T = TypeVar("T")
Wanted = Callable[[ReceivedRecord], bool]


@dataclass(frozen=True, slots=True)
class Span:
    """The offsets of one partition from `begin` up to, not including, `end`."""

    topic: str
    partition: int
    begin: int
    end: int


class TopicReader:
    """Reads parts of topics; one thread uses it.

    Args:
        kafka: How to reach the brokers.
        group_id: Whose commits `next_offsets` tells; never joined.
        keep_values: The topics whose records are returned with their value.
        wait_ms: How long the broker may hold an answer back where there is nothing to read yet.
            A search goes on to another place after that; whoever waits for records asks rarely.

    Attributes:
        examined: How many records of each topic have been looked at.

    The caller owes one `close`. All methods raise `BrokerUnavailable` where the broker cannot be
    reached or fails on the way.
    """

    def __init__(
        self, kafka: KafkaSettings, *, group_id: str, keep_values: Collection[str], wait_ms: int
    ) -> None:
        config = consumer_config(kafka, group_id=group_id, client_id="speech-trace")
        config |= {**_FETCH, "fetch.wait.max.ms": wait_ms}
        self._consumer = Consumer(config, logger=client_logger("trace"))
        self._keep_values = keep_values
        self.examined: Counter[str] = Counter()

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()

    def partitions(self, topics: Sequence[str]) -> dict[str, int]:
        """Return how many partitions each topic has.

        Raises:
            TopicMissing: One of the topics does not exist.
        """
        with _translated():
            known = self._consumer.list_topics(timeout=REQUEST_SECONDS).topics
        for topic in topics:
            if topic not in known:
                raise TopicMissing(topic)
            if (error := known[topic].error) is not None:
                raise TopicMissing(topic, error.name())
        return {topic: len(known[topic].partitions) for topic in topics}

    def whole(self, topic: str, partition: int) -> Span:
        """Return all that a partition holds now."""
        of = TopicPartition(topic, partition)
        with _translated():
            return Span(
                topic,
                partition,
                *_answered(self._consumer.get_watermark_offsets(of, timeout=REQUEST_SECONDS)),
            )

    def spans(self, topic: str, partitions: int) -> list[Span]:
        """Return all that each partition of a topic holds now."""
        return [self.whole(topic, partition) for partition in range(partitions)]

    def offset_at(self, span: Span, at_ms: int) -> int | None:
        """Return the first offset of a span whose record is not older than a time.

        Nothing where the broker cannot tell: the embedded one has no such lookup.
        """
        offset = self._lookup(span, max(at_ms, 0))
        if offset == _NO_RECORD:
            return None if self._lookup(span, 0) == _NO_RECORD else span.end
        return min(max(offset, span.begin), span.end)

    def _lookup(self, span: Span, at_ms: int) -> int:
        asked = [TopicPartition(span.topic, span.partition, at_ms)]
        with _translated():
            (answer,) = self._consumer.offsets_for_times(asked, timeout=REQUEST_SECONDS)
            return _offset(answer)

    def next_offsets(self, spans: Sequence[Span]) -> dict[int, int]:
        """Return where the group goes on in each partition: its commit, or the beginning.

        Nothing where this client may not know.
        """
        try:
            committed = self._committed(spans)
        except BrokerUnavailable as error:
            if error.reason == _NOT_PERMITTED:
                return {}
            raise
        return {
            span.partition: max(offset, span.begin)
            for span, offset in zip(spans, committed, strict=True)
        }

    @asking_the_coordinator
    def _committed(self, spans: Sequence[Span]) -> list[int]:
        asked = [TopicPartition(span.topic, span.partition) for span in spans]
        with _translated():
            answers = self._consumer.committed(asked, timeout=REQUEST_SECONDS)
            return [_offset(answer) for answer in answers]

    def read(self, spans: Sequence[Span], wanted: Wanted) -> list[ReceivedRecord]:
        """Read spans to their ends and return those of their records that are wanted."""
        ends = {(span.topic, span.partition): span.end for span in spans if span.begin < span.end}
        found: list[ReceivedRecord] = []
        if ends:
            self._begin([span for span in spans if span.begin < span.end])
        while ends:
            message = self._consumer.poll(STALLED_SECONDS)
            if message is None:
                raise BrokerUnavailable("_TIMED_OUT")
            if (position := _position(message)) is None or position[0] not in ends:
                continue
            where, offset = position
            at_end = message.error() is not None  # offsets have gaps: there may be no last record
            if not at_end and offset < ends[where]:
                found += self._kept(message, wanted)
            if at_end or offset + 1 >= ends[where]:
                del ends[where]
                self._consumer.incremental_unassign([TopicPartition(*where)])
        return found

    def follow(self, spans: Sequence[Span]) -> Iterator[ReceivedRecord]:
        """Yield what is stored after the ends of spans, for ever; a broker that goes is waited for.

        Ctrl-C is noticed within `TURN_SECONDS`.
        """
        self._begin([replace(span, begin=span.end) for span in spans])
        while True:
            message = self._consumer.poll(TURN_SECONDS)
            if message is not None and message.error() is None:
                yield from self._kept(message, lambda _: True)

    def _begin(self, spans: Sequence[Span]) -> None:
        with _translated():
            self._consumer.assign(
                [TopicPartition(each.topic, each.partition, each.begin) for each in spans]
            )

    def _kept(self, message: Message, wanted: Wanted) -> Iterator[ReceivedRecord]:
        topic = message.topic() or ""
        self.examined[topic] += 1
        if topic not in self._keep_values:
            message.set_value(b"")
        record = received(message)
        if wanted(record):
            yield record


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise BrokerUnavailable(error.args[0].name()) from None


def _offset(answer: TopicPartition) -> int:
    if answer.error is not None:
        raise KafkaException(answer.error)
    return answer.offset


def _answered(answer: T | None) -> T:
    if answer is None:
        raise BrokerUnavailable("_TIMED_OUT")
    return answer


def _position(message: Message) -> tuple[Partition, int] | None:
    """Return where a record lies, or which partition has come to its end."""
    error = message.error()
    if error is not None and error.name() == _NOT_PERMITTED:
        return None  # partitions are read without the group
    if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001  # public
        raise BrokerUnavailable(error.name())
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None  # noqa: S101  # only errors without a partition lack them
    assert partition is not None  # noqa: S101
    return (topic, partition), offset or 0
