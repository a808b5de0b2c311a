"""The services that the README shows, run as they stand there."""

import asyncio
import io
import os
import re
import subprocess
import sys
import threading
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO
from uuid import uuid4

import pytest
from speech_lib.events import (
    AudioInput,
    AudioInputEvent,
    TextRecognized,
    TextRecognizedEvent,
)
from speech_lib.kafka import headers
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.records import Record
from speech_lib.kafka.registry import EventSerializer, SchemaRegistry
from speech_lib.kafka.settings import KafkaSettings

README = Path(__file__).parents[1] / "README.md"
PATIENCE_SECONDS = 30


def example(heading: str) -> str:
    (_, section) = README.read_text(encoding="utf-8").split(f"\n## {heading}\n")
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]


def silence(seconds: float) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(16_000)
        audio.writeframes(bytes(round(seconds * 16_000) * 2))
    return out.getvalue()


def utterance() -> AudioInputEvent:
    return AudioInputEvent.new(
        correlation_id=str(uuid4()),
        source_service="gateway",
        payload=AudioInput(silence(1.25)),
    )


def text(words: str) -> TextRecognizedEvent:
    return TextRecognizedEvent.new(
        correlation_id=str(uuid4()),
        source_service="asr",
        payload=TextRecognized(words, "en-US", 0.5),
    )


def headers_of(event: TextRecognizedEvent, input_event_id: str) -> dict[str, str]:
    return headers.for_asr_text(
        event, traceparent="", input_event_id=input_event_id, fetched_ms=0, recognised_ms=0
    )


async def publish(pipeline, topic: str, *sent) -> None:
    """Store events, each with its headers, as a service does."""
    registry = SchemaRegistry(pipeline.registry_url)
    kafka = KafkaSettings(bootstrap_servers=pipeline.bootstrap_servers)
    producer = RecordProducer(kafka, client_id="test", delivery_timeout=10)
    try:
        for event, own in sent:
            serializer = EventSerializer(registry, topic, type(event), auto_register=True)
            serializer.warm_up()
            key = event.correlation_id.encode()
            await producer.send(Record(topic, key, serializer.encode(event), own))
    finally:
        await producer.close(1)
        registry.close()


@contextmanager
def running(code: str, pipeline, **topics: str) -> Iterator[IO[str]]:
    """Run a service of the README on these topics; yield what it prints."""
    environ = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": pipeline.bootstrap_servers,
        "SCHEMA_REGISTRY_URL": pipeline.registry_url,
        **topics,
    }
    command = [sys.executable, "-c", code]
    with subprocess.Popen(  # noqa: S603  # our own README, by our own interpreter
        command, env=environ, stdout=subprocess.PIPE, text=True
    ) as service:
        give_up = threading.Timer(PATIENCE_SECONDS, service.kill)  # so that reading cannot hang
        give_up.start()
        try:
            yield service.stdout
        finally:
            give_up.cancel()
            service.kill()


@pytest.mark.parametrize("heading", ["A service in twenty lines", "Reading the texts"])
def test_the_service_has_twenty_lines(heading):
    """The example is as short as it is said to be: imports, settings and the loop."""
    assert sum(1 for line in example(heading).splitlines() if line.strip()) <= 20


@pytest.mark.pipeline
def test_the_service_prints_the_duration_of_an_utterance(pipeline, make_topic):
    """The code of the README, unchanged, reads an utterance and prints its id and length."""
    topic = make_topic("readme")
    event = utterance()
    asyncio.run(publish(pipeline, topic, (event, {})))
    code = example("A service in twenty lines")
    with running(code, pipeline, TOPIC_AUDIO_INGRESS=topic) as printed:
        assert printed.readline() == f"{event.correlation_id} 1.25 s\n"


@pytest.mark.pipeline
def test_the_reader_prints_each_text_once(pipeline, make_topic):
    """The code of the README, unchanged, prints texts, and one that was stored twice only once."""
    topic = make_topic("readme")
    first, other = text("go forward"), text("")
    again = replace(first, event_id=str(uuid4()))
    sent = [(first, "a"), (again, "a"), (other, "b")]
    asyncio.run(publish(pipeline, topic, *((event, headers_of(event, of)) for event, of in sent)))
    with running(example("Reading the texts"), pipeline, TOPIC_ASR_TEXT=topic) as printed:
        assert [printed.readline(), printed.readline()] == [
            f"{first.correlation_id} 'go forward'\n",
            f"{other.correlation_id} ''\n",
        ]
