"""Finding an utterance among many: how little of the topics is read, and how long that takes."""

import json
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from speech_lib.events import (
    AnyEvent,
    AudioInput,
    AudioInputEvent,
    TextRecognized,
    TextRecognizedEvent,
)
from speech_lib.kafka import headers
from speech_lib.kafka.registry import EventSerializer, SchemaRegistry
from speech_lib.kafka.settings import MAX_RECORD_BYTES, KafkaSettings
from speech_lib.testing.pipeline import Pipeline
from speech_tools.topics import Topics
from speech_tools.trace import newest as trace_newest
from speech_tools.trace import search
from speech_tools.trace.reader import Span, TopicReader

PARTITIONS = 6
DAY_MS = 23 * 60 * 60 * 1000
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SIZES = {32_000: 80, 160_000: 15, 320_000: 4, 1_572_820: 1}
"""Bytes of samples, and how many in a hundred are of that size: 1, 5, 10 and 49 s."""
LIMIT_SECONDS = 2.0
FLUSH_SECONDS = 60


@dataclass(frozen=True)
class Archive:
    """Topics with a day's utterances; the first, the middle and the last one have no text."""

    pipeline: Pipeline
    topics: Topics
    ids: list[str]

    @property
    def without_text(self) -> list[str]:
        return [self.ids[0], self.ids[len(self.ids) // 2], self.ids[-1]]

    @property
    def share(self) -> float:
        """How many of them are in a partition at most: keys do not spread evenly."""
        return 1.4 * len(self.ids) / PARTITIONS

    @property
    def with_text(self) -> list[str]:
        return [self.ids[1], self.ids[len(self.ids) // 2 + 1], self.ids[-2]]

    def reader(self, group_id: str = "nobody") -> TopicReader:
        kafka = KafkaSettings(bootstrap_servers=self.pipeline.bootstrap_servers)
        return TopicReader(kafka, group_id=group_id, keep_values=(), wait_ms=10)

    def done_by(self, group_id: str) -> None:
        """Commit as recognisers do that have nothing left to do."""
        servers = {"bootstrap.servers": self.pipeline.bootstrap_servers, "group.id": group_id}
        with closing(self.reader()) as reader, closing(Consumer(servers)) as consumer:
            ends = [
                TopicPartition(span.topic, span.partition, span.end)
                for span in reader.spans(self.topics.audio, PARTITIONS)
            ]
            consumer.commit(offsets=ends, asynchronous=False)


class Archivist:
    """Writes what gateway and recogniser would have written during a day."""

    def __init__(self, pipeline: Pipeline, topics: Topics, registry: SchemaRegistry) -> None:
        self._topics = topics
        self._audio = EventSerializer(registry, topics.audio, AudioInputEvent, auto_register=True)
        self._text = EventSerializer(registry, topics.text, TextRecognizedEvent, auto_register=True)
        self._audio.warm_up()
        self._text.warm_up()
        self._producer = Producer(
            {
                "bootstrap.servers": pipeline.bootstrap_servers,
                "message.max.bytes": MAX_RECORD_BYTES,
                "queue.buffering.max.kbytes": 32 * 1024,
            }
        )

    def write(self, count: int, sizes: Callable[[], int]) -> list[str]:
        """Spread utterances over a day that ends now; return their ids in order."""
        now = headers.now_ms()
        ids = [str(uuid.uuid4()) for _ in range(count)]
        silent = {0, count // 2, count - 1}
        for number, correlation_id in enumerate(ids):
            at_ms = now - DAY_MS + number * DAY_MS // count
            spoken = self._utterance(correlation_id, at_ms, sizes())
            if number not in silent:
                self._recognised(spoken, at_ms)
        assert self._producer.flush(FLUSH_SECONDS) == 0
        return ids

    def _utterance(self, correlation_id: str, at_ms: int, size: int) -> AudioInputEvent:
        event = AudioInputEvent.new(
            correlation_id=correlation_id,
            source_service="gateway",
            payload=AudioInput(bytes(44 + size), "wav", 16_000, None),
        )
        told = headers.for_audio_ingress(
            event,
            traceparent=TRACEPARENT,
            ended_by="done",
            handshake_ms=at_ms,
            first_audio_ms=at_ms + 100,
            ended_ms=at_ms + 2_100,
            source="",
        )
        self._store(self._topics.audio, event, self._audio.encode(event), told, at_ms + 2_110)
        return event

    def _recognised(self, spoken: AudioInputEvent, at_ms: int) -> None:
        event = TextRecognizedEvent.new(
            correlation_id=spoken.correlation_id,
            source_service="asr",
            payload=TextRecognized("go forward ten meters", "en-US", 0.5),
        )
        told = headers.for_asr_text(
            event,
            traceparent=TRACEPARENT,
            input_event_id=spoken.event_id,
            fetched_ms=at_ms + 2_150,
            recognised_ms=at_ms + 2_450,
        )
        self._store(self._topics.text, event, self._text.encode(event), told, at_ms + 2_500)

    def _store(
        self, topic: str, event: AnyEvent, value: bytes, told: Mapping[str, str], at_ms: int
    ) -> None:
        record = {
            "key": event.correlation_id.encode(),
            "value": value,
            "headers": [(name, text.encode()) for name, text in told.items()],
            "timestamp": at_ms,
        }
        while True:
            try:
                self._producer.produce(topic, **record)
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return


def archive(
    pipeline: Pipeline, make_topic: Callable[..., str], count: int, sizes: Callable[[], int]
) -> Archive:
    names = (make_topic(name, partitions=PARTITIONS) for name in ("audio", "text", "dead"))
    topics = Topics(*names)
    with closing(SchemaRegistry(pipeline.registry_url)) as registry:
        return Archive(pipeline, topics, Archivist(pipeline, topics, registry).write(count, sizes))


@pytest.fixture(scope="module")
def small(pipeline: Pipeline, make_topic: Callable[..., str]) -> Archive:
    """Return an archive of 1,200 utterances that hold next to nothing."""
    return archive(pipeline, make_topic, 1_200, lambda: 100)


@pytest.fixture
def reader(small: Archive) -> Iterator[TopicReader]:
    with closing(small.reader()) as reader:
        yield reader


def found_topics(finding: search.Finding, correlation_id: str) -> list[str]:
    ids = {record.headers[headers.CORRELATION_ID] for record in finding.records}
    assert ids <= {correlation_id}
    return [record.topic for record in finding.records]


@pytest.mark.parametrize("which", range(3))
def test_the_time_of_its_text_leads_to_an_utterance(
    small: Archive, reader: TopicReader, which: int
):
    """Wherever it is, hardly more than itself is read of the large topic.

    The embedded broker has no lookup by time: there it is the partition of its key.
    """
    correlation_id = small.with_text[which]
    finding = search.find(reader, small.topics, correlation_id)
    assert found_topics(finding, correlation_id) == [small.topics.audio, small.topics.text]
    assert reader.examined[small.topics.audio] <= (3 if small.pipeline.real else small.share)
    assert reader.examined[small.topics.text] <= small.share


def test_an_utterance_that_waits_is_found_from_the_end(small: Archive, reader: TopicReader):
    """The newest one without a text costs the texts of its partition and a block of utterances."""
    correlation_id = small.ids[-1]
    finding = search.find(reader, small.topics, correlation_id)
    assert found_topics(finding, correlation_id) == [small.topics.audio]
    assert reader.examined[small.topics.audio] <= search.LARGE_BLOCK
    assert reader.examined[small.topics.text] <= small.share


def test_a_partition_is_read_from_its_end_in_growing_blocks():
    """What is recent costs little, and what is old few turns; every offset is in one block."""
    span = Span("any", 0, 10, 10_000)
    blocks = list(search.backwards(span, search.SMALL_BLOCK))
    assert [(each.begin, each.end) for each in blocks] == [
        (9_500, 10_000),
        (7_500, 9_500),
        (10, 7_500),
    ]


def test_a_missing_id_costs_no_utterance_that_is_done(small: Archive):
    """What is done has its outcome: the texts of one partition say that there is none."""
    group_id = f"asr-{uuid.uuid4()}"
    small.done_by(group_id)
    with closing(small.reader(group_id)) as reader:
        finding = search.find(reader, small.topics, str(uuid.uuid4()))
        examined = dict(reader.examined)
    print(f"of {len(small.ids)} utterances: {examined}")  # noqa: T201  # with -rP
    assert finding.records == ()
    foreign = (PARTITIONS - 1) * search.FOREIGN_OUTCOMES
    assert examined[small.topics.text] <= small.share + foreign
    assert examined.keys() == {small.topics.text}


def test_a_missing_id_costs_one_partition_of_what_is_not_done(small: Archive, reader: TopicReader):
    """Of the others only the newest are looked at, for records by other producers."""
    finding = search.find(reader, small.topics, str(uuid.uuid4()))
    assert finding.records == ()
    foreign = PARTITIONS - 1
    assert reader.examined[small.topics.audio] <= small.share + foreign * search.FOREIGN
    assert reader.examined[small.topics.text] <= small.share + foreign * search.FOREIGN_OUTCOMES


def test_nothing_older_than_asked_for_is_read(small: Archive, reader: TopicReader):
    """A bound by time keeps the search to what is newer; the embedded broker knows no time."""
    since_ms = headers.now_ms() - DAY_MS // 10
    correlation_id = small.without_text[0]
    finding = search.find(reader, small.topics, correlation_id, since_ms)
    if small.pipeline.real:
        assert finding.records == ()
        assert reader.examined.total() <= len(small.ids) * 2 / 10 * 1.4
    else:
        assert found_topics(finding, correlation_id) == [small.topics.audio]


@pytest.mark.parametrize("count", [1, 7, 40])
def test_the_newest_are_read_from_the_ends(small: Archive, reader: TopicReader, count: int):
    """Just as many as asked for, in their order, with their texts, without reading all the rest."""
    finding = trace_newest.newest(reader, small.topics, count)
    audio = [each for each in finding.records if each.topic == small.topics.audio]
    assert [each.headers[headers.CORRELATION_ID] for each in audio] == small.ids[-count:]
    assert len(finding.records) == 2 * count - 1
    if small.pipeline.real:
        assert reader.examined.total() <= 4 * (count + PARTITIONS * trace_newest.MARGIN)


def test_more_than_there_are_are_all(small: Archive, reader: TopicReader):
    """Asked for too many, every utterance comes, each once."""
    finding = trace_newest.newest(reader, small.topics, 5_000)
    audio = [each for each in finding.records if each.topic == small.topics.audio]
    assert [each.headers[headers.CORRELATION_ID] for each in audio] == small.ids


def timed(archive: Archive, *arguments: str) -> tuple[float, str]:
    """Run the command as a process of its own, and return its seconds and its output.

    The best of three: whatever else runs on the machine only adds to them.
    """
    env = {
        **os.environ,
        "TOPIC_AUDIO_INGRESS": archive.topics.audio,
        "TOPIC_ASR_TEXT": archive.topics.text,
        "TOPIC_DEAD_LETTER": archive.topics.dead_letter,
        "KAFKA_BOOTSTRAP_SERVERS": archive.pipeline.bootstrap_servers,
        "SCHEMA_REGISTRY_URL": archive.pipeline.registry_url,
    }
    command = [sys.executable, "-m", "speech_tools", "trace", *arguments, "--json"]
    took = []
    for _ in range(3):
        began = time.monotonic()
        done = subprocess.run(  # noqa: S603 - our own command
            command, env=env, check=False, capture_output=True, text=True, timeout=60
        )
        took.append(time.monotonic() - began)
    return min(took), done.stdout


def missing_hop(told: str) -> str | None:
    missing = json.loads(told)["missing"]
    return missing and missing["hop"]


@pytest.mark.full
@pytest.mark.timeout(600)
def test_among_ten_thousand_an_utterance_is_found_within_two_seconds(pipeline, make_topic):
    """Of 0.8 GB on Apache Kafka: at the start, in the middle, at the end, without text, missing."""
    if not pipeline.real:
        pytest.skip("scripts/with-kafka runs this: the embedded broker keeps too little")
    chance = random.Random(5)  # noqa: S311 - the same sizes each time
    many = archive(
        pipeline,
        make_topic,
        10_000,
        lambda: chance.choices(list(SIZES), list(SIZES.values()))[0],
    )
    places = ("start", "middle", "end")
    took = {}
    for where, correlation_id in zip(places, many.with_text, strict=True):
        took[where], told = timed(many, correlation_id)
        assert missing_hop(told) is None
    for where, correlation_id in zip(places, many.without_text, strict=True):
        took[f"{where}, no text"], told = timed(many, correlation_id)
        assert missing_hop(told) == "fetched"
    took["missing"], told = timed(many, str(uuid.uuid4()))
    assert missing_hop(told) == "stored"
    took["the newest 10"], told = timed(many, "--last", "10")
    assert len(told.splitlines()) == 10
    print({where: round(seconds, 2) for where, seconds in took.items()})  # noqa: T201  # with -s
    assert {where for where, seconds in took.items() if seconds >= LIMIT_SECONDS} == set(), took
