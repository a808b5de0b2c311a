"""Read a topic from its first record to its last, without joining a consumer group.

Used by tests that compare what was promised with what is stored. What is added after the start is
not read, so that reading ends.
"""

from collections.abc import Iterator
from contextlib import closing

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from speech_lib.errors import BrokerUnavailable
from speech_lib.kafka.consuming.config import consumer_config
from speech_lib.kafka.message import received
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.settings import KafkaSettings, client_logger
from speech_tools.latency.tail import end, partitions

STALLED_SECONDS = 20.0
"""After this time without a record the broker is taken for gone."""


def read(kafka: KafkaSettings, topic: str) -> list[ReceivedRecord]:
    """Return all records of a topic, those of a partition in their order. Blocks.

    Raises:
        BrokerUnavailable: The broker cannot be reached, or fails on the way.
        TopicMissing: It does not exist.
    """
    with closing(_consumer(kafka)) as consumer:
        return list(_read(consumer, topic))


def count(kafka: KafkaSettings, topic: str) -> int:
    """Return how many records a topic that is never cleaned up holds now. Blocks.

    Raises:
        BrokerUnavailable: The broker cannot be reached.
        TopicMissing: It does not exist.
    """
    with closing(_consumer(kafka)) as consumer:
        return sum(end(consumer, topic, number) for number in partitions(consumer, topic))


def _consumer(kafka: KafkaSettings) -> Consumer:
    # librdkafka wants a group even of a consumer that never joins one.
    shared = consumer_config(kafka, group_id="speech-audit", client_id="speech-audit")
    return Consumer({**shared, "enable.partition.eof": True}, logger=client_logger("audit"))


def _read(consumer: Consumer, topic: str) -> Iterator[ReceivedRecord]:
    left = set(partitions(consumer, topic))
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in left])
    while left:
        message = consumer.poll(STALLED_SECONDS)
        if message is None:
            raise BrokerUnavailable("_TIMED_OUT")
        error = message.error()
        if error is None:
            yield received(message)
        elif error.code() == KafkaError._PARTITION_EOF:  # public
            left.discard(message.partition() or 0)
        else:
            raise BrokerUnavailable(error.name())
