"""The service that the README shows, run as it stands there."""

import asyncio
import io
import os
import re
import subprocess
import sys
import threading
import wave
from pathlib import Path
from uuid import uuid4

import pytest
from speech_lib.events import AudioInput, AudioInputEvent
from speech_lib.kafka import KafkaSettings
from speech_lib.producer import RecordProducer
from speech_lib.records import Record
from speech_lib.registry import EventSerializer, SchemaRegistry

README = Path(__file__).parents[1] / "README.md"


def example() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return code


def silence(seconds: float) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(16_000)
        audio.writeframes(bytes(round(seconds * 16_000) * 2))
    return out.getvalue()


async def publish(pipeline, topic: str, event: AudioInputEvent) -> None:
    registry = SchemaRegistry(pipeline.registry_url)
    kafka = KafkaSettings(bootstrap_servers=pipeline.bootstrap_servers)
    producer = RecordProducer(kafka, client_id="test", delivery_timeout=10)
    try:
        serializer = EventSerializer(registry, topic, AudioInputEvent, auto_register=True)
        serializer.warm_up()
        key = event.correlation_id.encode()
        await producer.send(Record(topic, key, serializer.encode(event)))
    finally:
        await producer.close(1)
        registry.close()


def test_the_service_has_twenty_lines():
    """The example is as short as it is said to be: imports, settings and the loop."""
    assert sum(1 for line in example().splitlines() if line.strip()) <= 20


@pytest.mark.pipeline
def test_the_service_prints_the_duration_of_an_utterance(pipeline, make_topic):
    """The code of the README, unchanged, reads an utterance and prints its id and length."""
    topic = make_topic("readme")
    event = AudioInputEvent.new(
        correlation_id=str(uuid4()),
        source_service="gateway",
        payload=AudioInput(silence(1.25)),
    )
    asyncio.run(publish(pipeline, topic, event))
    environ = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": pipeline.bootstrap_servers,
        "SCHEMA_REGISTRY_URL": pipeline.registry_url,
        "TOPIC_AUDIO_INGRESS": topic,
    }
    command = [sys.executable, "-c", example()]
    with subprocess.Popen(  # noqa: S603  # our own README, by our own interpreter
        command, env=environ, stdout=subprocess.PIPE, text=True
    ) as service:
        give_up = threading.Timer(30, service.kill)  # so that reading a line cannot hang
        give_up.start()
        try:
            assert service.stdout.readline() == f"{event.correlation_id} 1.25 s\n"
        finally:
            give_up.cancel()
            service.kill()
