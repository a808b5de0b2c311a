"""Write what the services would of one utterance, and run `speech trace` on it.

Used by the tests of that command: times, partitions and outcomes are the test's choice.
"""

import uuid
from collections.abc import Mapping
from contextlib import closing

from confluent_kafka import Consumer, Producer, TopicPartition
from speech_lib.events import TextRecognized, TextRecognizedEvent
from speech_lib.kafka import headers
from speech_lib.kafka.registry import EventSerializer, SchemaRegistry
from speech_lib.testing.pipeline import Pipeline
from speech_tools.topics import Topics
from speech_tools.trace.command import app

from support.invoke import Done, invoke
from support.trace_record import START_MS

PARTITIONS = 6
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FLUSH_SECONDS = 20


class Writer:
    """Writes what the services would, at times of its own, on topics of its own."""

    def __init__(self, pipeline: Pipeline, topics: Topics) -> None:
        self.pipeline = pipeline
        self.topics = topics
        self.id = str(uuid.uuid4())
        self.input_id = str(uuid.uuid4())
        self.group_id = f"asr-{self.id}"
        self._producer = Producer(
            {"bootstrap.servers": pipeline.bootstrap_servers, "linger.ms": 0, "acks": "all"}
        )

    def audio(self, partition: int = -1, at_ms: int = 2_110, **changed: str) -> dict[str, object]:
        """Store an utterance whose value is no event: nobody looks into it."""
        told = {
            headers.CORRELATION_ID: self.id,
            headers.TRACEPARENT: TRACEPARENT,
            headers.EVENT_TYPE: "AudioInputEvent",
            headers.ENDED_BY: "done",
            headers.HANDSHAKE_MS: str(START_MS),
            headers.FIRST_AUDIO_MS: str(START_MS + 100),
            headers.ENDED_MS: str(START_MS + 2_100),
        }
        return self._store(self.topics.audio, b"audio", told | changed, at_ms, partition)

    def text(self, at_ms: int = 2_500, text: str = "go forward") -> dict[str, object]:
        """Store a recognised text."""
        event = TextRecognizedEvent.new(
            correlation_id=self.id, source_service="asr", payload=TextRecognized(text, "en-US", 0.5)
        )
        told = headers.for_asr_text(
            event,
            traceparent=TRACEPARENT,
            input_event_id=self.input_id,
            fetched_ms=START_MS + 2_150,
            recognised_ms=START_MS + 2_450,
        )
        with closing(SchemaRegistry(self.pipeline.registry_url)) as registry:
            serializer = EventSerializer(
                registry, self.topics.text, TextRecognizedEvent, auto_register=True
            )
            serializer.warm_up()
            return self._store(self.topics.text, serializer.encode(event), told, at_ms)

    def dead_letter(self, **changed: str) -> dict[str, object]:
        """Store a dead letter."""
        told = {
            headers.CORRELATION_ID: self.id,
            headers.DLQ_REASON: "not_wav",
            headers.DLQ_PARTITION: "0",
            headers.DLQ_OFFSET: "0",
        }
        return self._store(self.topics.dead_letter, b"audio", told | changed, 2_200)

    def empty_dead_letter(self, of: Mapping[str, object]) -> dict[str, object]:
        """Store what is kept of an utterance that fills the broker's limit."""
        told = {
            headers.DLQ_REASON: "not_wav",
            headers.DLQ_PARTITION: str(of["partition"]),
            headers.DLQ_OFFSET: str(of["offset"]),
            headers.DLQ_OMITTED: "too_large",
        }
        return self._store(self.topics.dead_letter, b"", told, 2_200, key=b"")

    def commit(self, partition: int, next_offset: int) -> None:
        """Commit as the recogniser does when it has done all before an offset."""
        group = {"bootstrap.servers": self.pipeline.bootstrap_servers, "group.id": self.group_id}
        with closing(Consumer(group)) as consumer:
            done = TopicPartition(self.topics.audio, partition, next_offset)
            consumer.commit(offsets=[done], asynchronous=False)

    def _store(
        self,
        topic: str,
        value: bytes,
        told: Mapping[str, str],
        at_ms: int,
        partition: int = -1,
        key: bytes | None = None,
    ) -> dict[str, object]:
        stored = []
        self._producer.produce(
            topic,
            key=self.id.encode() if key is None else key,
            value=value,
            headers=[(name, text.encode()) for name, text in told.items()],
            partition=partition,
            timestamp=START_MS + at_ms,
            on_delivery=lambda error, message: stored.append((error, message)),
        )
        assert self._producer.flush(FLUSH_SECONDS) == 0
        ((error, message),) = stored
        assert error is None
        return {"topic": topic, "partition": message.partition(), "offset": message.offset()}

    def trace(self, *arguments: str) -> Done:
        """Run the command on this utterance."""
        return self.run(self.id, *arguments)

    def run(self, *arguments: str) -> Done:
        """Run the command on these topics."""
        names = {
            "ASR_GROUP_ID": self.group_id,
            "TOPIC_AUDIO_INGRESS": self.topics.audio,
            "TOPIC_ASR_TEXT": self.topics.text,
            "TOPIC_DEAD_LETTER": self.topics.dead_letter,
            "KAFKA_BOOTSTRAP_SERVERS": self.pipeline.bootstrap_servers,
            "SCHEMA_REGISTRY_URL": self.pipeline.registry_url,
        }
        return invoke(app, *arguments, env=names)
