"""Read a topic from its first record to its last, without joining a consumer group.

Used where what was promised is compared with what is stored (`ledger`). What is added after the
start is not read, so that it ends; `latency.tail` reads that, and asks here where the ends are.
"""

from collections.abc import Iterator
from contextlib import closing

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from speech_lib.errors import BrokerUnavailable, TopicMissing
from speech_lib.kafka.consuming.config import consumer_config
from speech_lib.kafka.message import received
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.settings import KafkaSettings, client_logger

REQUEST_SECONDS = 10.0
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


def partitions(consumer: Consumer, topic: str) -> list[int]:
    """Return the numbers of a topic's partitions. Blocks.

    Raises:
        BrokerUnavailable: The broker cannot be reached.
        TopicMissing: It does not exist.
    """
    try:
        found = consumer.list_topics(topic, timeout=REQUEST_SECONDS).topics[topic]
    except KafkaException as error:
        raise BrokerUnavailable(error.args[0].name()) from None
    if found.error is not None:
        raise TopicMissing(topic, found.error.name())
    return sorted(found.partitions)


def end(consumer: Consumer, topic: str, number: int) -> int:
    """Return the offset that the next record of a partition gets. Blocks.

    Raises:
        BrokerUnavailable: The broker cannot be reached.
    """
    of = TopicPartition(topic, number)
    try:
        answer = consumer.get_watermark_offsets(of, timeout=REQUEST_SECONDS)
    except KafkaException as error:
        raise BrokerUnavailable(error.args[0].name()) from None
    if answer is None:
        raise BrokerUnavailable("_TIMED_OUT")
    end: int = answer[1]
    return end


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
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # public
            left.discard(message.partition() or 0)
        else:
            raise BrokerUnavailable(error.name())
