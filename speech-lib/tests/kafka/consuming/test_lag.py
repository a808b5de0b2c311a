"""How far behind a consumer is, as it is told while reading."""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, TopicPartition
from speech_lib.kafka.consumer import RecordConsumer
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.records import Partition, Record
from speech_lib.kafka.settings import KafkaSettings

PATIENCE_SECONDS = 30


@contextmanager
def member(servers: str, topic: str, group: str) -> Iterator[RecordConsumer]:
    kafka = KafkaSettings(bootstrap_servers=servers)
    consumer = RecordConsumer(kafka, group_id=group, topics=[topic], client_id="test")
    try:
        yield consumer
    finally:
        consumer.close()


def store(servers: str, topic: str, records: int) -> None:
    async def scenario():
        kafka = KafkaSettings(bootstrap_servers=servers)
        producer = RecordProducer(kafka, client_id="test", delivery_timeout=20)
        try:
            for _ in range(records):
                await producer.send(Record(topic, b"key", b"value"))
        finally:
            await producer.close(0)

    asyncio.run(scenario())


def read(consumer: RecordConsumer, until: Callable[[], bool]) -> list[dict[Partition, int]]:
    """Read one record at a time until something is so; return the lag after each."""
    lags = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not until():
        assert time.monotonic() < deadline, lags
        if consumer.poll(0.1, 1):
            lags.append(consumer.lags())
    return lags


def test_a_consumer_knows_what_it_has_not_read(pipeline, make_topic):
    """One less with each record that it reads, and 0 where there is nothing."""
    topic = make_topic(partitions=2)
    store(pipeline.bootstrap_servers, topic, 3)
    with member(pipeline.bootstrap_servers, topic, f"g-{uuid.uuid4().hex}") as consumer:
        assert consumer.lags() == {}
        nothing = {(topic, 0): 0, (topic, 1): 0}
        lags = read(consumer, until=lambda: consumer.lags() == nothing)
        assert [sum(each.values()) for each in lags] == [2, 1, 0]


def test_a_partition_that_was_never_read_is_counted_from_where_the_group_stood(
    pipeline, make_topic
):
    """After a restart with nothing new to do, nothing waits, however much was said before."""
    topic, group = make_topic(), f"g-{uuid.uuid4().hex}"
    store(pipeline.bootstrap_servers, topic, 3)
    earlier = Consumer({"bootstrap.servers": pipeline.bootstrap_servers, "group.id": group})
    earlier.commit(offsets=[TopicPartition(topic, 0, 3)], asynchronous=False)
    earlier.close()
    with member(pipeline.bootstrap_servers, topic, group) as consumer:
        assert read(consumer, until=lambda: consumer.lags() == {(topic, 0): 0}) == []
