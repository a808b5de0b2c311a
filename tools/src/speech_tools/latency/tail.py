"""Read what is added to topics from now on, in a thread of its own, and say when it came.

Used by `latency.run`. It reads nothing that was there before, however large the topics are. It
joins no consumer group, and commits nothing.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Self

from confluent_kafka import Consumer, KafkaException, TopicPartition
from speech_lib.errors import BrokerUnavailable, TopicMissing
from speech_lib.kafka.consuming.config import consumer_config
from speech_lib.kafka.headers import now_ms
from speech_lib.kafka.message import received
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.settings import KafkaSettings, client_logger

TURN_SECONDS = 0.2
"""The longest time until the thread notices that it shall end. A record wakes it at once."""

REQUEST_SECONDS = 10.0

OnRecord = Callable[[ReceivedRecord, int], None]
"""Takes a record, and when it was read, in milliseconds since the epoch."""


class Tail:
    """Reads topics from their ends at the entry to its exit.

    Args:
        kafka: How to reach the brokers.
        topics: What to read.
        on_record: Called for each record, in the reading thread. It must not raise.
    """

    def __init__(self, kafka: KafkaSettings, topics: Sequence[str], on_record: OnRecord) -> None:
        # librdkafka wants a group even of a consumer that never joins one.
        shared = consumer_config(kafka, group_id="speech-latency", client_id="speech-latency")
        # The embedded broker holds back its answer for all of this time where there is no record.
        config = {**shared, "fetch.wait.max.ms": 100}
        self._consumer = Consumer(config, logger=client_logger("latency"))
        self._topics = topics
        self._on_record = on_record
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="tail", daemon=True)

    def __enter__(self) -> Self:
        """Begin to read: every record that is stored after this call is seen. Blocks.

        Raises:
            BrokerUnavailable: The broker cannot be reached.
            TopicMissing: One of the topics does not exist.
        """
        try:
            self._consumer.assign(self._ends())
        except BaseException:
            self._consumer.close()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End reading."""
        self._over.set()
        self._thread.join()
        self._consumer.close()

    def _ends(self) -> list[TopicPartition]:
        # Numbers and not OFFSET_END, which would be looked up at some time after this.
        return [
            TopicPartition(topic, number, end(self._consumer, topic, number))
            for topic in self._topics
            for number in partitions(self._consumer, topic)
        ]

    def _read(self) -> None:
        while not self._over.is_set():
            message = self._consumer.poll(TURN_SECONDS)
            # An error is a broker that has gone for now: whoever waits for a record sees the rest.
            if message is not None and message.error() is None:
                self._on_record(received(message), now_ms())


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
    offset: int = answer[1]
    return offset
