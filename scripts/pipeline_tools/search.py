"""Find the records of one utterance on its topics, without joining a consumer group.

Used by `trace.py`. All producers of the pipeline key their records by the correlation id and leave
the partition to librdkafka, so nearly always one partition of each topic is read; the others are
read only for what is still missing. Nothing is committed, and nothing after the ends that were
there at the start is read, so a search ends however busy the topics are.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from speech_lib.consumer import consumer_config, received
from speech_lib.errors import BrokerUnavailable, TopicMissing
from speech_lib.headers import CORRELATION_ID
from speech_lib.kafka import ClientConfig, KafkaSettings, client_logger
from speech_lib.records import ReceivedRecord

REQUEST_SECONDS = 5.0
STALLED_SECONDS = 10.0
"""After this time without a record the broker is taken for gone."""

Partition = tuple[str, int]
Found = list[ReceivedRecord]


@dataclass(frozen=True, slots=True)
class Span:
    """The offsets of one partition from `begin` up to, not including, `end`."""

    topic: str
    partition: int
    begin: int
    end: int


def likely_partition(key: str, partitions: int) -> int:
    """Return where librdkafka's default partitioner (consistent_random) puts a key."""
    return zlib.crc32(key.encode()) % partitions


def find(
    kafka: KafkaSettings,
    topics: Sequence[str],
    correlation_id: str,
    enough: Callable[[Found], bool],
) -> Found:
    """Return the records with this correlation id, in the order of each partition. Blocks.

    Args:
        kafka: How to reach the brokers.
        topics: Where to look.
        correlation_id: What the records' header of that name says.
        enough: Asked after each step whether what has been found will do.

    Raises:
        BrokerUnavailable: The broker cannot be reached, or fails on the way.
        TopicMissing: One of the topics does not exist.
    """
    found: Found = []
    try:
        with closing(Consumer(_config(kafka), logger=client_logger("search"))) as consumer:
            for step in _steps(_partitions(consumer, topics), correlation_id):
                done = {record.topic for record in found}
                spans = [_span(consumer, *each) for each in step if each[0] not in done]
                found += _scan(consumer, spans, correlation_id)
                if enough(found):
                    break
    except KafkaException as error:
        raise BrokerUnavailable(error.args[0].name()) from None
    return found


def _config(kafka: KafkaSettings) -> ClientConfig:
    # librdkafka wants a group even of a consumer that never joins one.
    shared = consumer_config(kafka, group_id="speech-trace", client_id="speech-trace")
    return {**shared, "enable.partition.eof": True}


def _partitions(consumer: Consumer, topics: Sequence[str]) -> dict[str, int]:
    """Return how many partitions each topic has."""
    known = consumer.list_topics(timeout=REQUEST_SECONDS).topics
    for topic in topics:
        if topic not in known:
            raise TopicMissing(topic)
        if (error := known[topic].error) is not None:
            raise TopicMissing(topic, error.name())
    return {topic: len(known[topic].partitions) for topic in topics}


def _steps(partitions: Mapping[str, int], key: str) -> Iterator[list[Partition]]:
    """Yield what to read first, and what after that if need be."""
    likely = {topic: likely_partition(key, count) for topic, count in partitions.items()}
    yield list(likely.items())
    yield [
        (topic, partition)
        for topic, count in partitions.items()
        for partition in range(count)
        if partition != likely[topic]
    ]


def _span(consumer: Consumer, topic: str, partition: int) -> Span:
    """Return all that a partition holds now."""
    answer = consumer.get_watermark_offsets(
        TopicPartition(topic, partition), timeout=REQUEST_SECONDS
    )
    if answer is None:
        raise BrokerUnavailable("_TIMED_OUT")
    return Span(topic, partition, *answer)


def _scan(consumer: Consumer, spans: Sequence[Span], correlation_id: str) -> Found:
    """Read the spans to their ends and return the records with this correlation id."""
    ends = {(span.topic, span.partition): span.end for span in spans if span.begin < span.end}
    consumer.assign(
        [
            TopicPartition(span.topic, span.partition, span.begin)
            for span in spans
            if (span.topic, span.partition) in ends
        ]
    )
    found: Found = []
    while ends:
        message = consumer.poll(STALLED_SECONDS)
        if message is None:
            raise BrokerUnavailable("_TIMED_OUT")
        where, offset = _position(message)
        if where not in ends:
            continue
        if message.error() is None and offset < ends[where] and _is_about(message, correlation_id):
            found.append(received(message))
        if message.error() is not None or offset + 1 >= ends[where]:
            del ends[where]
            consumer.pause([TopicPartition(*where)])
    return found


def _position(message: Message) -> tuple[Partition, int]:
    """Return where a record lies, or which partition has come to its end (offsets have gaps)."""
    error = message.error()
    if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001  # public
        raise BrokerUnavailable(error.name())
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None  # noqa: S101  # only errors without a partition lack them
    assert partition is not None  # noqa: S101
    return (topic, partition), offset or 0


def _is_about(message: Message, correlation_id: str) -> bool:
    return (CORRELATION_ID, correlation_id.encode()) in (message.headers() or [])
