"""The topics of one test module, read until an utterance turns up; the fixture `topics`."""

import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing

from speech_lib.events import AudioInputEvent, TextRecognizedEvent
from speech_lib.kafka.consumer import RecordConsumer
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.registry import EventDeserializer, SchemaRegistry
from speech_lib.kafka.settings import KafkaSettings
from speech_lib.testing.pipeline import Pipeline

POLLS = 60


class Topics:
    """The topics of one test module, read from their beginning until a correlation id turns up.

    Attributes:
        names: The variables that tell a service its topics, and its group of recognisers.
    """

    def __init__(self, pipeline: Pipeline, names: Mapping[str, str]) -> None:
        self.names = names
        self.kafka = KafkaSettings(bootstrap_servers=pipeline.bootstrap_servers)
        self.registry = SchemaRegistry(pipeline.registry_url)
        self._audio = EventDeserializer(self.registry, AudioInputEvent)
        self._text = EventDeserializer(self.registry, TextRecognizedEvent)

    def reader(self, variable: str) -> AbstractContextManager[RecordConsumer]:
        """Return a consumer, of a group of its own, of the topic that `variable` names."""
        return closing(
            RecordConsumer(
                self.kafka,
                group_id=f"reader-{uuid.uuid4()}",
                topics=[self.names[variable]],
                client_id="test",
            )
        )

    def find(self, variable: str, correlation_id: str) -> ReceivedRecord:
        """Return the record of one utterance on the topic that `variable` names."""
        with self.reader(variable) as consumer:
            for _ in range(POLLS):
                for record in consumer.poll(0.5):
                    if record.headers["correlation_id"] == correlation_id:
                        return record
        raise AssertionError(f"{correlation_id} is not on {variable}")

    def audio(self, correlation_id: str) -> AudioInputEvent:
        return self._audio.decode(self.find("TOPIC_AUDIO_INGRESS", correlation_id).value)

    def text(self, correlation_id: str) -> TextRecognizedEvent:
        return self.decode_text(self.find("TOPIC_ASR_TEXT", correlation_id))

    def decode_text(self, record: ReceivedRecord) -> TextRecognizedEvent:
        return self._text.decode(record.value)
