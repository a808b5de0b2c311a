"""What waits is worked off as fast as the workers can, and is fetched once."""

import asyncio
import json
import os
import time
import uuid
from collections import Counter
from functools import partial

import pytest
from confluent_kafka import Producer
from speech_asr.metrics import Metrics
from speech_asr.pipeline import Pipeline as Recogniser
from speech_gateway.testing import until as until_seconds
from speech_gateway.wav import wrap
from speech_lib.events import AudioInput, AudioInputEvent
from speech_lib.events.codec import encode
from speech_lib.events.schemas import schema_text
from speech_lib.kafka.consumer import RecordConsumer
from speech_lib.kafka.registry import SchemaRegistry, subject_of
from speech_lib.kafka.settings import KafkaSettings
from speech_lib.service.run import StopSignals
from speech_tools import stack

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(120)]

UTTERANCES = 200
PARTITIONS = 6
SECOND = 32_000
WORKERS = 2
DEADLINE_SECONDS = 60
until = partial(until_seconds, seconds=DEADLINE_SECONDS)


def store(pipeline, topic, values, partitions=PARTITIONS) -> None:
    """Store values on each partition in turn."""
    producer = Producer(
        {"bootstrap.servers": pipeline.bootstrap_servers, "message.max.bytes": 2_097_152}
    )
    for number, value in enumerate(values):
        producer.produce(topic, value, partition=number % partitions)
    assert producer.flush(DEADLINE_SECONDS) == 0


class Member:
    """A recogniser in this process, with a stand-in for the work of its workers."""

    def __init__(self, pipeline, topic, group, work_seconds):
        self.handled = Counter()
        """How often each record was brought to its end, by partition and offset."""
        self.statistics = []
        self.signals = StopSignals()
        self._work_seconds = work_seconds
        self._workers = asyncio.Semaphore(WORKERS)
        self._consumer = {
            "kafka": KafkaSettings(bootstrap_servers=pipeline.bootstrap_servers),
            "group_id": group,
            "topics": [topic],
            "client_id": "test",
            "client_options": {
                "statistics.interval.ms": 100,
                "stats_cb": lambda text: self.statistics.append(json.loads(text)),
            },
        }

    def open(self, on_assign, on_revoke):
        return RecordConsumer(**self._consumer, on_assign=on_assign, on_revoke=on_revoke)

    async def handle(self, record, on_begun):
        async with self._workers:
            on_begun()
            await asyncio.sleep(self._work_seconds)
        self.handled[record.partition, record.offset] += 1

    async def run(self, capacity=2 * WORKERS):
        await Recogniser(self.open, self.handle, capacity=capacity, metrics=Metrics()).run(
            self.signals
        )


def test_a_backlog_is_fetched_once(pipeline, make_topic):
    """Fewer than twice the bytes of its records come over the network, all protocol included."""
    topic = make_topic("backlog", PARTITIONS)
    values = [os.urandom(SECOND) for _ in range(UTTERANCES)]
    store(pipeline, topic, values)

    async def scenario():
        member = Member(pipeline, topic, topic, work_seconds=0.02)
        running = asyncio.create_task(member.run())
        await until(lambda: len(member.handled) == UTTERANCES)
        seen = len(member.statistics)
        await until(lambda: len(member.statistics) > seen + 1)
        member.signals.receive()
        await running
        return member.statistics[-1]["rx_bytes"]

    fetched = asyncio.run(scenario())
    ratio = fetched / (UTTERANCES * SECOND)
    print(f"{ratio:.2f} times the bytes of the records")  # noqa: T201
    assert 1 <= ratio < 2


def test_a_member_that_joins_repeats_only_what_a_worker_already_had(pipeline, make_topic):
    """What only waits in the hand of the first is left to the second."""
    if not pipeline.real:
        pytest.skip("needs Apache Kafka: a second member waits for the session timeout")
    topic = make_topic("share", 2)
    store(pipeline, topic, [b"x"] * 60, partitions=2)
    in_hand = 40  # more than a partition holds: whichever is lost, some of it waits in the hand

    async def scenario():
        first, second = (Member(pipeline, topic, topic, work_seconds=0.5) for _ in range(2))
        running = [asyncio.create_task(first.run(in_hand))]
        await until(lambda: len(first.handled) > WORKERS)
        running.append(asyncio.create_task(second.run(in_hand)))
        await until(lambda: len(first.handled | second.handled) == 60)
        for member in (first, second):
            member.signals.receive()
        await asyncio.gather(*running)
        return first.handled + second.handled, len(second.handled)

    handled, by_second = asyncio.run(scenario())
    repeats = handled.total() - len(handled)
    print(f"{repeats} repeats, {by_second} by the second")  # noqa: T201
    assert by_second > WORKERS
    assert repeats <= 2 * WORKERS  # what they have, and what they did behind it


@pytest.mark.full
def test_a_member_that_is_busy_answers_a_rebalance(pipeline, make_topic):
    """Who joins while every worker has seconds to do gets its partitions within 5 s."""
    if not pipeline.real:
        pytest.skip("needs Apache Kafka: a second member waits for the session timeout")
    topic = make_topic("busy", PARTITIONS)
    store(pipeline, topic, [os.urandom(SECOND) for _ in range(UTTERANCES)])
    gained: set[tuple[str, int]] = set()

    async def scenario():
        busy = Member(pipeline, topic, topic, work_seconds=3)
        running = asyncio.create_task(busy.run())
        await until(lambda: len(busy.handled) >= 2 * WORKERS)
        before = time.monotonic()
        joining = asyncio.create_task(asyncio.to_thread(join))
        await until(lambda: len(gained) == PARTITIONS // 2)
        took = time.monotonic() - before
        await joining
        busy.signals.receive(), busy.signals.receive()
        await running
        return took

    def join():
        member = RecordConsumer(
            KafkaSettings(bootstrap_servers=pipeline.bootstrap_servers),
            group_id=topic,
            topics=[topic],
            client_id="second",
            on_assign=gained.update,
        )
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(gained) < PARTITIONS // 2 and time.monotonic() < deadline:
            member.poll(0.1)
        member.close()

    took = asyncio.run(scenario())
    print(f"{took:.1f} s")  # noqa: T201
    assert took < 5


@pytest.mark.full
def test_short_utterances_are_worked_off_as_fast_as_the_workers_can(pipeline, make_topic, tmp_path):
    """Two workers need under 4 s for 200 seconds of silence, from the first text to the last."""
    if not pipeline.real:
        pytest.skip("needs Apache Kafka: set KAFKA_BOOTSTRAP_SERVERS and SCHEMA_REGISTRY_URL")
    names = {
        "TOPIC_AUDIO_INGRESS": make_topic("audio", PARTITIONS),
        "TOPIC_ASR_TEXT": make_topic("text"),
        "TOPIC_DEAD_LETTER": make_topic("dead"),
    }
    settings = {**names, "ASR_GROUP_ID": names["TOPIC_AUDIO_INGRESS"], "ASR_WORKERS": str(WORKERS)}
    store(pipeline, names["TOPIC_AUDIO_INGRESS"], spoken(pipeline, names["TOPIC_AUDIO_INGRESS"]))
    with stack.recogniser(pipeline, tmp_path, settings):
        times = [each.timestamp_ms for each in read(pipeline, names["TOPIC_ASR_TEXT"])]
    took = (max(times) - min(times)) / 1000
    print(f"{took:.2f} s")  # noqa: T201
    assert took < 4


def spoken(pipeline, topic) -> list[bytes]:
    """Return the values of utterances of one second of silence."""
    registry = SchemaRegistry(pipeline.registry_url)
    try:
        schema_id = registry.register(subject_of(topic), schema_text(AudioInputEvent.event_type))
    finally:
        registry.close()
    return [
        encode(
            AudioInputEvent.new(
                correlation_id=str(uuid.uuid4()),
                source_service="gateway",
                payload=AudioInput(wrap(bytes(SECOND))),
            ),
            schema_id,
        )
        for _ in range(UTTERANCES)
    ]


def read(pipeline, topic):
    """Return the records of a topic, when there is one for each utterance."""
    consumer = RecordConsumer(
        KafkaSettings(bootstrap_servers=pipeline.bootstrap_servers),
        group_id=f"test-{topic}",
        topics=[topic],
        client_id="test",
    )
    found, deadline = [], time.monotonic() + DEADLINE_SECONDS
    try:
        while len(found) < UTTERANCES:
            assert time.monotonic() < deadline, len(found)
            found += consumer.poll(0.5, 100)
    finally:
        consumer.close()
    return found
